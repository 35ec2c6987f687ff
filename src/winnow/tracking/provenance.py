"""A run's origin: code, machine, software, command. Imports neither MLflow nor anything heavy."""

from __future__ import annotations

import getpass
import importlib.metadata
import logging
import os
import platform
import shlex
import socket
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from winnow.masking import masked_output

logger = logging.getLogger(__name__)

GIT_SECONDS = 10
DIFF_CHARACTERS = 1_000_000
PACKAGES = (
    "winnow",
    "torch",
    "torchvision",
    "transformers",
    "numpy",
    "hydra-core",
    "optuna",
    "mlflow",
    "hotcoco",
)


@dataclass(frozen=True)
class GitState:
    """``diff`` is what ``git diff HEAD`` says, cut at 1,000,000 characters and masked; ``untracked`` files git does not know."""

    commit: str
    branch: str
    diff: str
    untracked: tuple[str, ...]

    @property
    def is_dirty(self) -> bool:
        return bool(self.diff or self.untracked)


def git_state(folder: Path) -> GitState | None:
    """Return the state of the repository around ``folder``; None outside of one, before its first commit, or without git."""
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return None
    diff = _git(folder, "diff", "--no-ext-diff", "--no-color", "HEAD") or ""
    if len(diff) > DIFF_CHARACTERS:
        diff = f"{diff[:DIFF_CHARACTERS]}\n… cut: {len(diff)} characters in all\n"
    untracked = _git(folder, "ls-files", "--others", "--exclude-standard") or ""
    branch = _git(folder, "rev-parse", "--abbrev-ref", "HEAD") or ""
    return GitState(commit.strip(), branch.strip(), masked_output(diff), tuple(untracked.splitlines()))


def environment() -> dict[str, str]:
    """Return name → text for Python, platform, host, processors, memory, GPUs and, as ``package.NAME``, key packages."""
    facts = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpu": _cpu_name(),
        "cpu_count": str(
            len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count()
        ),
        "memory_gb": f"{psutil.virtual_memory().total / 1e9:.1f}",
    }
    for package in PACKAGES:
        try:
            facts[f"package.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return facts | _cuda()


def command_line() -> str:
    """Return the command that started this process, ready to be pasted into a shell but for its secrets."""
    return masked_output(shlex.join([Path(sys.executable).name, *(sys.orig_argv[1:] or sys.argv)]))


def user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user without a name
        return str(os.getuid()) if hasattr(os, "getuid") else "unknown"


def source_tags(git: GitState | None) -> dict[str, str]:
    """Return tags under the names that MLflow's pages show: user, source, and commit when there is one."""
    tags = {"mlflow.user": user(), "mlflow.source.name": sys.argv[0] or "python", "mlflow.source.type": "LOCAL"}
    if git is not None:
        tags |= {"mlflow.source.git.commit": git.commit, "mlflow.source.git.branch": git.branch}
        tags["winnow.git_dirty"] = str(git.is_dirty).lower()
    return tags


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, timeout=GIT_SECONDS, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        logger.debug("git %s in %s: %s", arguments[0], folder, error)
        return None
    return done.stdout.decode(errors="replace")


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _cuda() -> dict[str, str]:
    """Ask torch only if it is imported already, since importing it takes seconds."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return {}
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cuda": str(torch.version.cuda), "gpu": ", ".join(names)}
