"""``winnow verify`` and ``winnow reproduce``: their arguments, and what they print."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, PROBLEMS, ConfigError

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


def add_reproduce(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    reproduce = commands.add_parser(
        "reproduce",
        help="repeat a whole run and compare every checkpoint that it kept",
        description="Repeat a whole run from its beginning, and compare every checkpoint that it kept bit by bit. The same code, "
        "data, packages and device give the same bits; else what differs is named, and the run is repeated all the same. Nothing "
        "in the run folder changes. Exit code: 0 all the same, 1 something differs, 2 bad usage.",
    )
    _add_run(reproduce)
    reproduce.add_argument(
        "--output", type=Path, metavar="FOLDER", help="keep the repeated checkpoints there: new, or empty"
    )
    reproduce.set_defaults(run=_reproduce)


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
    way = f"{older.path.name} ({older.moment}) to {newer.path.name} ({newer.moment})"
    print(f"{way}: {verification.num_steps} steps, which took the run {verification.seconds:.0f} s", flush=True)
    if not faults:
        with tempfile.TemporaryDirectory(prefix="winnow-verify-") as scratch:
            faults = run_verification(verification, Path(scratch), _trusted(options))
    if faults:
        return _report(faults)
    tensors, others = verification.num_values
    print(f"the same to the last bit: {tensors} tensors, {others} other values")
    return CLEAN


def _reproduce(options: argparse.Namespace) -> int:
    from winnow.proof.reproduce import prepare, run_reproduction

    output = options.output
    if output is not None and output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ConfigError(f"--output {output} must be a new or an empty folder")
    original = prepare(options.folder)
    print(
        f"{original.last.moment.step} steps, to {original.last.moment}, which took the run {original.seconds:.0f} s",
        flush=True,
    )
    for line in original.others:
        print(f"not as then: {line}", flush=True)
    with tempfile.TemporaryDirectory(prefix="winnow-reproduce-") as scratch:
        found = run_reproduction(original, output or Path(scratch), _trusted(options))
    for saved, lines in found.differences:
        print(
            f"{saved.path.name} ({saved.moment}): {f'{len(lines)} differences' if lines else 'the same to the last bit'}"
        )
    first = next((lines for _, lines in found.differences if lines), ())
    return _report(list(first)) if first else CLEAN


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
