"""Gathers the wheels that must travel to the GPU machine: python benchmarks/gpu_parts/wheels.py FOLDER, by `make gpu-wheels`.

Nothing can be fetched there, so whatever winnow needs and that machine lacks is downloaded here for its Python (3.12, Linux,
x86-64), in the versions that are installed here, and must stay within 50 MB.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).resolve().parents[2]
THERE = Path(__file__).with_name("installed_there.txt")
MOST_BYTES = 50_000_000
NOT_USED = {
    "mlflow": "tracking=off",
    "plotly": "hydra.sweeper.plots=false",
}
"""What the check runs without, and by which setting."""
TARGET = {
    "python_version": "3.12", "python_full_version": "3.12.3", "sys_platform": "linux", "platform_system": "Linux",
    "platform_machine": "x86_64", "os_name": "posix", "implementation_name": "cpython",
    "platform_python_implementation": "CPython", "extra": "",
}  # fmt: skip
GLIBC = (39, 35, 34, 31, 28, 27, 24, 17)
"""pip matches the number in manylinux_2_N exactly."""


def main() -> int:
    folder = Path(sys.argv[1])
    wanted = lacking(declared(), installed_there())
    print(f"{len(wanted)} packages: {' '.join(wanted)}")
    shutil.rmtree(folder, ignore_errors=True)  # two versions of one would stop the whole installation
    subprocess.run([sys.executable, "-m", "pip", *download_arguments(wanted, folder)], check=True)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{size / 1e6:.1f} MB in {folder}")
    if size > MOST_BYTES:
        print(f"that is over {MOST_BYTES / 1e6:.0f} MB: leave something out", file=sys.stderr)
    return int(size > MOST_BYTES)


def declared() -> list[str]:
    """Return what winnow itself and its map models require."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["maps"]]


def installed_there() -> dict[str, str | None]:
    """Return package → version, None where it was not told."""
    lines = [line for line in THERE.read_text().splitlines() if line and not line.startswith("#")]
    pairs = [line.partition("==") for line in lines]
    return {canonicalize_name(name): version or None for name, _, version in pairs}


def lacking(requirements: Iterable[str], there: dict[str, str | None]) -> list[str]:
    """Return ``NAME==VERSION`` of all that is required, by what else is needed for that too, and is not there or there in a
    version that does not do. What is there is taken to have its own needs beside it."""
    wanted: dict[str, str] = {}
    queue = [Requirement(text) for text in requirements]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        if name in wanted or name in NOT_USED or not applies(requirement):
            continue
        if name in there and (
            there[name] is None or requirement.specifier.contains(there[name] or "", prereleases=True)
        ):
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError as error:
            raise SystemExit(f"{name} is required and not installed here: make setup") from error
        wanted[name] = f"{name}=={found.version}"
        queue += [Requirement(text) for text in found.requires or ()]
    return sorted(wanted.values())


def applies(requirement: Requirement) -> bool:
    """Return whether it is required on the GPU machine, without extras."""
    return requirement.marker is None or requirement.marker.evaluate(TARGET)


def download_arguments(wanted: Iterable[str], folder: Path) -> list[str]:
    platforms = [f"manylinux_2_{number}_x86_64" for number in GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    return [
        "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", "3.12", "--implementation", "cp",
        *(part for platform in platforms for part in ("--platform", platform)), "--dest", str(folder), *wanted,
    ]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
