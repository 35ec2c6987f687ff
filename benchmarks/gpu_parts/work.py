"""What a run does besides steps: waiting for data, evaluating, saving; and what preflight said of it."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from contestants.engines import fresh
from gpu_parts.fits import batches_of, built, forget, overrides, synchronise
from gpu_parts.forked import REPOSITORY, start
from gpu_parts.outcome import Figure, Place

from winnow.checkpoints.state_dicts import frozen_parameters
from winnow.engine.evaluate import evaluate
from winnow.engine.loop import Fit, fit
from winnow.engine.stop import StopRequest
from winnow.preflight.peak_memory import PeakMemory
from winnow.tracking.null_tracker import NullTracker


class Recorder(NullTracker):
    """A tracker that keeps each number's history."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.history: dict[str, list[float]] = {}

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)


def waiting(place: Place) -> Iterator[Figure]:
    """what part of a training's time goes into waiting for data, by the loader as shipped"""
    tracker = Recorder(place.folder)
    workers = 1 if place.smoke else 8
    more = ["training.max_epochs=2", "training.eval_interval=2", f"training.num_workers={workers}"]
    fit_whole(built(place, overrides(place, *more), tracker))
    for epoch, share in enumerate(tracker.history["perf/data_wait_fraction"], start=1):
        words = "with the start of its workers" if epoch == 1 else f"{workers} workers"
        yield Figure(f"epoch {epoch}, {words}", 100 * share, "% of the time")
    yield Figure("speed in epoch 2", tracker.history["perf/images_per_second"][-1], "images/s")


def evaluation(place: Place) -> Iterator[Figure]:
    """images/s of evaluations (with loading and metric) and of predictions from memory, per model"""
    models = ("deformable_detr_tiny", "fcos_tiny") if place.smoke else ("deformable_detr", "fcos_r50_fpn")
    more = [] if place.smoke else ["training.num_workers=8", "data.num_val=64"]
    for model in models:
        run = built(place, overrides(place, f"model={model}", *more))
        parts = (run.task, run.data, run.sizes.final, run.step.precision, run.progress)
        evaluate(*parts)  # the first one starts the loader's workers
        began = time.perf_counter()
        evaluate(*parts)
        count = sum(batch.num_samples for batch in run.data.val_batches(run.sizes.final))
        yield Figure(f"{model} evaluation", count / (time.perf_counter() - began), "images/s")
        yield Figure(f"{model} prediction", prediction_speed(run, 2 if place.smoke else 20), "images/s")
        del run, parts
        forget()


def prediction_speed(run: Fit, rounds: int) -> float:
    """Return images/s of forward pass and predictions, from batches in memory."""
    batches = batches_of(run, 4)
    run.task.model.eval()
    images = 0
    with torch.inference_mode(), run.step.precision.autocast():
        for number in range(rounds + 2):
            if number == 2:
                synchronise(run.device)
                images, began = 0, time.perf_counter()
            host = fresh(batches[number % len(batches)])
            batch = host.to(run.device, run.step.precision.memory_format)
            run.task.predictions(run.task.forward(batch), batch)
            images += batch.shape[0]
        synchronise(run.device)
    return images / (time.perf_counter() - began)


def checkpoint(place: Place) -> Iterator[Figure]:
    """how long a save stops the training, against torch.save of the same"""
    run = built(place, overrides(place, "training.ema.decay=0.999"))
    run.task.model.train()
    batches, step = batches_of(run, 1), 0
    pauses: dict[str, list[float]] = {"winnow": [], "torch.save": []}
    with run.checkpoints:
        for turn in range(2 if place.smoke else 4):
            for way, seconds in pauses.items():
                for _ in range(2):
                    run.step([fresh(batches[0])], step)
                    step += 1
                if not run.checkpoints.has_room:
                    run.checkpoints.make_room(run.snapshot.take(run.state), frozen_parameters(run.task.model).values())
                    run.checkpoints.has_room = True
                synchronise(run.device)
                began = time.perf_counter()
                if way == "winnow":
                    run.state.epoch += 1
                    run.checkpoints.save_epoch(run.snapshot.take(run.state), is_best=True, recorded=lambda: True)
                else:
                    torch.save(run.snapshot.take(run.state), place.folder / "plain.pth")
                seconds.append(time.perf_counter() - began)
                run.checkpoints.wait()
            if turn == 0:
                yield Figure("first pause", 1000 * pauses["winnow"][0], "ms")
        size = run.checkpoints.last.stat().st_size
    yield Figure("size", size / 1e6, "MB")
    ours, plain = (statistics.median(seconds) for seconds in pauses.values())
    yield Figure("pause", 1000 * ours, "ms")
    yield Figure("pause of torch.save", 1000 * plain, "ms")
    yield Figure("pause over torch.save's", ours / plain)


def foretold(place: Place) -> Iterator[Figure]:
    """preflight's foretold memory against what the run held, each in a process of its own"""
    more = ["training.max_epochs=1", f"data.root={place.data}", f"training.device={place.device}"]
    command = overrides(place, "tracking=off", *more)
    report, held = place.folder / "report.json", place.folder / "held.json"
    for name, work in (
        ("preflight", lambda: write_report(place, command, report)),
        ("run", lambda: write_held(place, command, held)),
    ):
        code = start(work, place.folder / "log.txt").wait(60)
        if code != 0:
            raise RuntimeError(f"the {name} ended with {code}")
    (stage,) = json.loads(report.read_text())["stages"]
    said, real = stage["memory"]["peak_bytes"], json.loads(held.read_text())
    yield Figure("foretold peak", said / 2**30, "GiB")
    yield Figure("real peak", real / 2**30, "GiB")
    yield Figure("foretold over real", 100 * (said / real - 1), "%")


def write_report(place: Place, command: list[str], path: Path) -> None:
    from winnow.preflight.preflight import preflight

    report = preflight(REPOSITORY / "conf", command, place.folder / "pictures", 2.0 if place.smoke else 6.0)
    path.write_text(report.to_json())


def write_held(place: Place, command: list[str], path: Path) -> None:
    run = built(place, command)
    fit_whole(run)
    path.write_text(json.dumps(PeakMemory(run.device).read()))


def fit_whole(run: Fit) -> Any:
    with StopRequest() as stop:
        return fit(run, stop)
