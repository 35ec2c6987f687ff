"""``winnow verify`` and ``winnow reproduce``: their arguments, and what they print."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, PROBLEMS

_SHOWN = 20


def add_verify(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    verify = commands.add_parser(
        "verify",
        help="repeat the steps between a run's newest two checkpoints and compare every bit",
        description="Repeat the steps between the newest two checkpoints of a run in a scratch folder, and compare every tensor, "
        "counter and random state with the newer one. Nothing in the run folder changes. Exit code: 0 all the same, 1 something "
        "differs, 2 nothing can be repeated.",
    )
    _add_run(verify)
    verify.set_defaults(run=_verify)


def _add_run(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", metavar="RUN", type=Path, help="a run folder, as outputs/…; of a pipeline a stage's")
    parser.add_argument(
        "--trusted-targets",
        default="",
        metavar="A,B",
        help="packages of your own that the run needs; those that the project's conf/ trusts need not be named",
    )


def _verify(options: argparse.Namespace) -> int:
    from winnow.proof.verify import prepare, run_verification

    verification = prepare(options.folder)
    older, newer = verification.older, verification.newer
    faults = list(verification.faults)
    print(
        f"{older.path.name} ({older.moment}) to {newer.path.name} ({newer.moment}): {verification.num_steps} steps, which took the run "
        f"{verification.seconds:.0f} s",
        flush=True,
    )
    if not faults:
        with tempfile.TemporaryDirectory(prefix="winnow-verify-") as scratch:
            faults = run_verification(verification, Path(scratch), _trusted(options))
    if faults:
        return _report(faults)
    tensors, others = verification.num_values
    print(f"the same to the last bit: {tensors} tensors, {others} other values")
    return CLEAN


def _report(faults: list[str]) -> int:
    print(f"{len(faults)} differences:")
    for line in faults[:_SHOWN]:
        print(f"  {line}")
    if len(faults) > _SHOWN:
        print(f"  … and {len(faults) - _SHOWN} more")
    return PROBLEMS


def _trusted(options: argparse.Namespace) -> list[str]:
    from winnow.config.compose import compose_command_line

    named = [name for name in options.trusted_targets.split(",") if name]
    return [*compose_command_line(None, []).config["trusted_targets"], *named]
