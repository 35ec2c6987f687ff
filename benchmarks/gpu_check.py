"""Checks and measures winnow on a GPU: python benchmarks/gpu_check.py [--only PART …] [--smoke] [--out FOLDER].

One command, at most five minutes: the parts run in the order of their worth, each in a process of its own with a time limit of
its own, and after each the results are written to FOLDER as ``results.json``, ``results.md`` (a table) and ``log.txt``. When the
time is over the script stops by itself and says which parts are missing; ``--only`` runs these. It needs embedded data only and
no network. A part whose package, kernel or device is not there is "skipped", never "passed". ``--smoke`` rehearses everything
on a CPU with tiny models; its figures mean nothing and are called "rehearsed". docs/gpu.md says more.

Exit code: 0, or 1 where a part failed, was stopped or is missing. An aim that was missed is a result, not a failure.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BEGAN = time.monotonic()  # what is imported below counts
REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY / "src"))  # winnow is not installed on that machine
# A fork of a process that has asked CUDA itself can't use it, and what is imported below may ask.
os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"

import torch  # noqa: E402
from gpu_parts import leases, race, runs, speed, work  # noqa: E402
from gpu_parts.forked import start  # noqa: E402
from gpu_parts.outcome import UNDONE, Outcome, Part, Place  # noqa: E402
from gpu_parts.report import table, write_results  # noqa: E402
from gpu_parts.schedule import closing_words, fill_in, run_parts  # noqa: E402

MOST_SECONDS = 300.0
PARTS = (
    Part("tests", 60, runs.marked_tests),
    Part("runs", 45, runs.one_of_each),
    Part("resume", 90, runs.resume),
    Part("precision", 60, speed.precisions),
    Part("race", 120, race.race),
    Part("waits", 40, speed.waits),
    Part("data", 40, work.waiting),
    Part("evaluation", 45, work.evaluation),
    Part("checkpoint", 30, work.checkpoint),
    Part("preflight", 60, work.foretold),
    Part("leases", 75, leases.leases),
    Part("attention", 30, speed.attention),
    Part("compiled", 120, speed.compiled),
)
USED_LATER = (
    "torch._dynamo", "matplotlib.backends.backend_agg", "sklearn.datasets", "hydra_plugins.winnow_sweeper._sweep",
    "winnow.run.pipeline",
)  # fmt: skip


def main() -> int:
    """Run the parts that are asked for; the exit code."""
    options = arguments()
    if options.child is not None:
        return child(json.loads(options.child))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(REPOSITORY / "src"), os.environ.get("PYTHONPATH", "")])
    deadline = BEGAN + options.seconds
    wanted = [part for part in PARTS if options.only is None or part.name in options.only]
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "log.txt").unlink(missing_ok=True)
    if not options.cold:
        import_ahead()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as temporary:  # a killed part's may still write
        folder = Path(temporary)
        card, is_warm = find_card(folder)
        is_warm = is_warm and not options.cold
        machine = describe(card, options.smoke, is_warm)
        device = "cuda" if card and not options.smoke else "cpu"
        place = Place(folder, folder / "data", device, options.smoke, is_warm)
        if not card and not options.smoke:
            outcomes = [Outcome(part.name, ended="skipped", reason="no CUDA device") for part in wanted]
            write_results(options.out, machine, outcomes)
        else:
            outcomes = run_parts(
                wanted,
                place,
                deadline,
                lambda found: write_and_tell(options.out, machine, found),
                options.out / "log.txt",
            )
    print(f"\n{'; '.join(f'{name} {value}' for name, value in machine.items())}\n{table(outcomes)}")
    print(f"{time.monotonic() - BEGAN:.0f} s: {closing_words(outcomes)}; results in {options.out}", flush=True)
    return int(any(outcome.verdict in UNDONE for outcome in outcomes))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = "; ".join(f"{part.name}: {part.what}" for part in PARTS)
    parser.add_argument("--only", nargs="+", choices=[part.name for part in PARTS], metavar="PART", help=parts)
    parser.add_argument("--smoke", action="store_true", help="rehearse on the CPU with tiny models")
    parser.add_argument("--out", type=Path, default=Path("outputs/gpu_check"), metavar="FOLDER", help="for the results")
    parser.add_argument(
        "--seconds", type=float, default=MOST_SECONDS, help="after which the script stops; default: 300"
    )
    parser.add_argument(
        "--cold", action="store_true", help="no forks: each process makes its own imports, which takes longer"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(told: dict[str, Any]) -> int:
    """Run one part in this process: where a fork can't use the device."""
    place, (part,) = told["place"], [part for part in PARTS if part.name == told["part"]]
    own = Place(Path(place["folder"]), Path(place["data"]), place["device"], place["smoke"] == "True", is_warm=False)
    fill_in(part, own, own.folder / "found.json")
    return 0


def import_ahead() -> None:
    """Import what the parts' processes need, so that each need not. What is missing is told of, and its parts will fail."""
    import winnow.families

    families = [module.name for module in pkgutil.walk_packages(winnow.families.__path__, "winnow.families.")]
    for name in (*USED_LATER, *families):
        try:
            importlib.import_module(name)
        except ImportError as error:
            print(f"can't import {name}: {error}", flush=True)


def find_card(folder: Path) -> tuple[str, bool]:
    """Return the card's name, empty where there is none, and whether a fork of this process can use it."""
    found = folder / "card.txt"

    def ask() -> None:
        if torch.cuda.is_available():
            torch.ones(8, device="cuda").sum().item()
            found.write_text(torch.cuda.get_device_name())

    process = start(ask, folder / "card.log")
    code = process.wait(60)
    process.kill()
    if code == 0:
        return (found.read_text() if found.exists() else ""), True
    command = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    cold = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, timeout=120)
    return cold.stdout.strip(), False


def describe(card: str, is_rehearsal: bool, is_warm: bool) -> dict[str, Any]:
    """Return what the figures were measured on."""
    import transformers

    git = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True)
    return {
        "card": card or "none",
        "rehearsal": is_rehearsal,
        "torch": torch.__version__,
        "cuda": torch.version.cuda or "none",
        "transformers": transformers.__version__,
        "python": platform.python_version(),
        "commit": git.stdout.strip() or "unknown",
        "processes": "forked" if is_warm else "cold",
        "driver": driver_version(),
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


def driver_version() -> str:
    program = shutil.which("nvidia-smi")
    if program is None:
        return "unknown"
    command = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30).stdout.strip() or "unknown"


def write_and_tell(out: Path, machine: dict[str, Any], outcomes: list[Outcome]) -> None:
    """Write the results, and print a line on the part that just ended."""
    write_results(out, machine, outcomes)
    done = [outcome for outcome in outcomes if outcome.seconds]
    if done:
        last = done[-1]
        print(
            f"[{time.monotonic() - BEGAN:3.0f} s] {last.part}: {last.verdict} ({last.seconds:.0f} s) {last.reason}",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
