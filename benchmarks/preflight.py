"""What a preflight takes, how far it is off, and what the checks at a training's start take: python benchmarks/preflight.py.

Seconds from the command's start to its end, imports included, of three models with their data as shipped. The estimate of
``winnow preflight`` for fcos_tiny on digits is held against ``python train.py`` with the same command line: seconds from the
first step to the end of the last evaluation, and peak memory. The checks are timed on gradients of the size of four models,
without a training.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from winnow.checkpoints.disk_room import warn_of_little_room
from winnow.checkpoints.host_copy import state_bytes
from winnow.config.resolvers import register_resolvers
from winnow.engine.gradients import FirstLook
from winnow.run.build import build
from winnow.run.plan import RunPlan
from winnow.tracking.null_tracker import NullTracker

REPOSITORY = Path(__file__).resolve().parents[1]
INK = ["data=ink_strokes"]
MODELS = {"fcos_tiny": [], "deformable_detr_tiny": [], "inktrace": INK, "fcos_r50_fpn": ["model.pretrained=false"]}
TIMED = ("fcos_tiny", "deformable_detr_tiny", "inktrace")
REPEATS, SECONDS = 20, 15.0
SMOKE_SECONDS = 1.0
SMOKE = (
    "data.num_train=8", "data.num_val=2", "data.size=64", "data.image_size=64", "training.batch_size=2",
    "training.num_workers=0", "training.max_epochs=1",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="of the run that is foretold", default=["training.max_epochs=3"])
    parser.add_argument("--only", choices=("checks", "seconds", "estimate"))
    parser.add_argument("--turns", type=int, default=3, help="of preflight and run")
    parser.add_argument("--smoke", action="store_true", help="one model, tiny images, 1 turn: its figures mean nothing")
    options = parser.parse_args()
    models, repeats, turns = (["fcos_tiny"], 2, 1) if options.smoke else (list(MODELS), REPEATS, options.turns)
    overrides = [*options.overrides, "tracking=off", *(SMOKE if options.smoke else ())]
    seconds = SMOKE_SECONDS if options.smoke else SECONDS
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if options.only in (None, "checks"):
            for model in models:
                time_checks(model, repeats, folder)
        if options.only in (None, "seconds") and not options.smoke:
            for model in TIMED:
                time_preflight(model, folder)
        if options.only in (None, "estimate"):
            compare_with_runs(overrides, turns, seconds, folder)


def time_checks(model: str, repeats: int, folder: Path) -> None:
    run = built(model, folder)
    for parameter in run.task.model.parameters():
        parameter.grad = torch.randn_like(parameter) if parameter.requires_grad else None
    run.step.optimizer.step()  # the optimizer's state is part of a checkpoint
    looks, disks = [], []
    for _ in range(repeats):
        began = time.perf_counter()
        FirstLook(run.task.model, required=True)(run.step.optimizer, can_learn=True, step=0)
        looks.append(time.perf_counter() - began)
        checkpoint = run.snapshot.take(run.state)  # the loop takes it anyway, to make room for copies
        began = time.perf_counter()
        warn_of_little_room(state_bytes(checkpoint), run.checkpoints, num_epochs=12)
        disks.append(time.perf_counter() - began)
    count = sum(parameter.numel() for parameter in run.task.model.parameters())
    look, disk = (f"{1000 * statistics.median(times):.1f} ms ({1000 * max(times):.1f})" for times in (looks, disks))
    print(f"{model:22} {count / 1e6:5.1f} M parameters   gradients {look}   disk {disk}   median (most)", flush=True)


def built(model: str, folder: Path) -> Any:
    register_resolvers()
    with initialize_config_dir(str(REPOSITORY / "conf")):
        cfg = compose(
            "config",
            [f"model={model}", *MODELS[model], f"data.root={folder}/few", "data.num_train=16", "data.num_val=2"],
        )
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    return build(RunPlan.of(config, folder, {}, None, None), NullTracker(folder))


def time_preflight(model: str, folder: Path) -> None:
    own = [f"model={model}", *MODELS[model], f"data.root={folder}/{model}"]
    began = time.perf_counter()
    (stage,) = foretold(own, SECONDS, folder)["stages"]
    seconds, estimate = time.perf_counter() - began, stage["estimate"]
    print(
        f"{model:22} preflight {seconds:5.1f} s, its data drawn; foretells {estimate['seconds'] / 60:.0f} min for "
        f"{estimate['num_steps']} steps",
        flush=True,
    )


def compare_with_runs(overrides: list[str], turns: int, timed_seconds: float, folder: Path) -> None:
    """Compare by turns, as a shared machine is not equally fast all the time."""
    print(f"{' '.join(overrides)}: foretold, real")
    for turn in range(turns):
        report = foretold(overrides, timed_seconds, folder)
        seconds, bytes_held, file_size = real(overrides, folder, f"run_{turn}")
        stage = report["stages"][0]
        expected = stage["estimate"]["seconds"]
        memory = stage["memory"]["peak_bytes"] + stage["memory"]["copy_bytes"]
        size = stage["disk"]["checkpoint_bytes"]
        print(
            f"seconds {expected:6.1f} {seconds:6.1f} {expected / seconds - 1:+4.0%}   "
            f"peak memory MB {memory / 1e6:5.0f} {bytes_held / 1e6:5.0f} {memory / bytes_held - 1:+4.0%}   "
            f"checkpoint MB {size / 1e6:5.2f} {file_size / 1e6:5.2f} {size / file_size - 1:+4.0%}   "
            f"(preflight {report['seconds']:.0f} s)",
            flush=True,
        )


def foretold(overrides: list[str], timed_seconds: float, folder: Path) -> Any:
    preflight = "import sys; from winnow.commands.cli import main; sys.exit(main())"
    fixed = ["--config-path", str(REPOSITORY / "conf"), "--json", "report.json", f"--seconds={timed_seconds}"]
    command([sys.executable, "-c", preflight, "preflight", *fixed, *overrides], folder)
    return json.loads((folder / "report.json").read_text())


def real(overrides: list[str], folder: Path, name: str) -> tuple[float, int, int]:
    """Return seconds of training and evaluation, bytes held at most, size of the last checkpoint."""
    peak = command([sys.executable, str(REPOSITORY / "train.py"), f"hydra.run.dir={name}", *overrides], folder)
    result = json.loads((folder / name / "result.json").read_text())
    return result["cost"]["seconds"], peak, (folder / name / "checkpoints/last.pth").stat().st_size


def command(arguments: list[str], folder: Path) -> int:
    """Run it in ``folder``; the most memory in bytes that its process held."""
    path = {"PYTHONPATH": os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])}
    with (folder / "output.txt").open("w") as output:
        process = subprocess.Popen(arguments, cwd=folder, env=os.environ | path, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError(f"{' '.join(arguments)} ended with {status}:\n{(folder / 'output.txt').read_text()}")
    return usage.ru_maxrss * 1024


if __name__ == "__main__":
    main()
