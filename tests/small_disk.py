"""A small disk of our own, for tests that fill it; skipped where none may be mounted."""

import contextlib
import shutil
import subprocess

import pytest


@contextlib.contextmanager
def small_disk(place, size="1m"):
    """Give the folder ``place`` on a file system of ``size``."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("not allowed to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill(place):
    """Leave no room on the disk of ``place``; return the file that takes it."""
    path = place / "filler"
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return path
