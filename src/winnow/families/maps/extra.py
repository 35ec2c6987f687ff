"""What the extra ``maps`` brings, and a clear error without it."""

from __future__ import annotations

import importlib

from winnow.errors import ConfigError


def require_package(package: str, what: str) -> None:
    """Raise ConfigError where ``package`` of the extra can't be imported; ``what`` needs it, as ``model.llm=lora``."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise ConfigError(f"{what} needs the package {package} ({error}): pip install -e '.[maps]'") from error


def require_extra(what: str) -> None:
    """Raise ConfigError where shapely, at least 2, can't be imported; ``what`` needs it, as ``data=nuscenes_map``."""
    try:
        version = str(importlib.import_module("shapely").__version__)
    except ImportError as error:
        raise ConfigError(f"{what} needs the package shapely ({error}): pip install -e '.[maps]'") from error
    if int(version.split(".")[0]) < 2:
        raise ConfigError(f"{what} needs shapely 2, and {version} is installed: pip install -e '.[maps]'")
