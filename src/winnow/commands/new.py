"""``winnow new``: a project of one's own, which trains at once."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, ConfigError

PROJECT = Path(__file__).parent / "project"


def add_new(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    new = commands.add_parser(
        "new",
        help="begin a project of your own",
        description="Write a project that trains at once: train.py, a data set, a model and a search of its own, a README.",
    )
    new.add_argument("folder", type=Path, help="the project's folder, new or empty")
    new.set_defaults(run=_new)


def _new(options: argparse.Namespace) -> int:
    write_project(options.folder)
    print(f"{options.folder} is a project; try:  cd {options.folder} && python train.py\nThen see its README.md.")
    return CLEAN


def write_project(folder: Path) -> None:
    """Write the files of a new project into ``folder``. Raises ConfigError if something lies there, or it can't be written."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(f"{folder} is not empty; name a folder that is new")
        shutil.copytree(PROJECT, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "conf" / "sweep").symlink_to(Path("..") / "sweeps", target_is_directory=True)
    except (OSError, shutil.Error) as error:
        raise ConfigError(f"{folder} can't be written: {error}") from error
