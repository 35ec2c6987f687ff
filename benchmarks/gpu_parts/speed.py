"""Steps of ``deformable_detr`` at 800 px, batch 4: precisions, the compiler, the attention's kernel, waits for the device."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from contestants.engines import fresh
from gpu_parts.fits import Speed, batches_of, built, forget, overrides, step_speed
from gpu_parts.outcome import Figure, Place, Skipped, at_least
from torch.profiler import ProfilerActivity, profile

from winnow.errors import ConfigError

WAITS = ("cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "aten::_local_scalar_dense")
"""What the profiler calls a host that waits; the last one is each read of a number, on a CPU too."""


def precisions(place: Place) -> Iterator[Figure]:
    """training steps in float32, bf16 and fp16: images/s and peak memory"""
    speeds = {}
    for amp in ("off", "bf16", "fp16"):
        name = "fp32" if amp == "off" else amp
        speeds[amp] = steps(place, f"training.amp={amp}")
        yield Figure(f"{name} speed", speeds[amp].images_per_second, "images/s")
        yield Figure(f"{name} peak memory", speeds[amp].peak_bytes / 2**30, "GiB")
        if amp != "off":
            yield at_least(
                f"{name} over fp32, speed", speeds[amp].images_per_second / speeds["off"].images_per_second, 2.0
            )
            saved = 1 - speeds[amp].peak_bytes / speeds["off"].peak_bytes
            yield at_least(f"{name} over fp32, memory saved", 100 * saved, 50, "%")


def compiled(place: Place) -> Iterator[Figure]:
    """the same steps in bf16 with training.compile=true"""
    # A rehearsal takes a network that the compiler is done with sooner.
    tiny = ["model=fcos_tiny", "model.channels=[8,8,8,8]", "model.head_channels=32", "model.head_convs=1"]
    more = ["training.amp=bf16", *(tiny if place.smoke else [])]
    plain = steps(place, *more)
    yield Figure("eager speed", plain.images_per_second, "images/s")
    fast = steps(place, *more, "training.compile=true")
    yield Figure("compiled speed", fast.images_per_second, "images/s")
    yield Figure("compiled over eager, speed", fast.images_per_second / plain.images_per_second)
    yield Figure("compiled peak memory", fast.peak_bytes / 2**30, "GiB")
    yield Figure("first compiled step", fast.first_step_seconds, "s")


def attention(place: Place) -> Iterator[Figure]:
    """deformable attention in pure PyTorch and by the kernel: images/s in bf16"""
    try:
        run = built(place, overrides(place, "training.amp=bf16", "model.attention=kernel"))
    except ConfigError as error:  # no card, no package, or nothing in the hub's cache
        raise Skipped(str(error)) from error
    kernel = step_speed(run, num_steps(place))
    del run
    forget()
    yield Figure("kernel speed", kernel.images_per_second, "images/s")
    pure = steps(place, "training.amp=bf16", "model.attention=pure")
    yield Figure("pure speed", pure.images_per_second, "images/s")
    yield Figure("kernel over pure, speed", kernel.images_per_second / pure.images_per_second)
    yield Figure("kernel over pure, memory", kernel.peak_bytes / pure.peak_bytes)


def waits(place: Place) -> Iterator[Figure]:
    """how often the host waits for the device in a training step, by the profiler, and where"""
    run = built(place, overrides(place, "training.amp=bf16" if place.on_gpu else "training.amp=off"))
    run.task.model.train()
    batches = batches_of(run, 1)
    for number in range(3):
        run.step([fresh(batches[0])], number)
    count = 4
    yield from waits_of(lambda: run.step([fresh(batches[0])], 3), count, "step")
    del run
    forget()
    run = built(place, overrides(place, "model=fcos_tiny" if place.smoke else "model=fcos_r50_fpn"))
    run.task.model.eval()
    batch = batches_of(run, 1)[0].to(run.device)
    with torch.inference_mode():
        outputs = run.task.forward(batch)
        yield from waits_of(lambda: run.task.predictions(outputs, batch), count, "batch of FCOS predictions")


def waits_of(work: Callable[[], object], count: int, unit: str) -> Iterator[Figure]:
    """Yield how often the host waited in ``work``, as the profiler counts it, and on CUDA the lines of code that made it wait."""
    on_gpu = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        for _ in range(count):
            work()
    calls = {event.key: event.count for event in profiler.key_averages()}
    for name in WAITS:
        if on_gpu or name.startswith("aten"):
            yield Figure(name, calls.get(name, 0) / count, f"per {unit}")
    if on_gpu:
        for line, number in sync_places(work, count).most_common(8):
            yield Figure(f"waits at {line}", number / count, f"per {unit}")


def sync_places(work: Callable[[], object], count: int) -> Counter[str]:
    """Return the lines that torch warns of as synchronising, with the number of their calls."""
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(count):
                work()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return Counter(
        f"{'/'.join(Path(warning.filename).parts[-2:])}:{warning.lineno}"
        for warning in caught
        if "synchronizing" in str(warning.message)
    )


def steps(place: Place, *more: str) -> Speed:
    """Build a run with these overrides and time its steps; nothing of it is left."""
    speed = step_speed(built(place, overrides(place, *more)), num_steps(place), warm_up=2 if place.smoke else 8)
    forget()
    return speed


def num_steps(place: Place) -> int:
    return 2 if place.smoke else 20
