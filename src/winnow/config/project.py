"""Which project a command belongs to: the folder conf/ of the working folder, or what winnow brings along where there is none."""

from __future__ import annotations

import sys
from pathlib import Path

from winnow.errors import ConfigError

SHIPPED = "pkg://winnow.conf"
"""The config groups of winnow itself, as Hydra names the place. In a clone of the repository that is its folder conf/."""


def project_conf(folder: Path | None = None) -> str:
    """Return where Hydra finds ``config.yaml``: in ``folder``, or in conf/ of the working folder, or else in ``SHIPPED``.

    Modules beside a project's conf/ can be imported from here on, as from its train.py. Raises ConfigError where ``folder`` is
    given and holds no config.yaml.
    """
    conf = (Path("conf") if folder is None else folder).absolute()
    if (conf / "config.yaml").is_file():
        if str(conf.parent) not in sys.path:
            sys.path.insert(0, str(conf.parent))
        return str(conf)
    if folder is not None:
        raise ConfigError(
            f"{conf}/config.yaml does not exist; name the folder that holds it, or none: then it is conf/ of the working "
            "folder, or what winnow brings along"
        )
    return SHIPPED


def search_path(folder: Path | None = None, added: Path | None = None) -> list[str]:
    """Return the places in which Hydra looks for config groups, in order: the project's, then ``added``. Raises ConfigError for
    a folder that is not there."""
    conf = project_conf(folder)
    places = [conf if conf == SHIPPED else f"file://{conf}"]
    if added is not None:
        if not added.is_dir():
            raise ConfigError(f"--config-dir {added}: there is no such folder")
        places.append(f"file://{added.absolute()}")
    return places
