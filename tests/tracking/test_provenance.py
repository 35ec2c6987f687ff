from __future__ import annotations

import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from winnow.tracking import provenance


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("one\n")
    who = ["-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    return tmp_path


def test_a_clean_repository_has_a_commit_and_no_diff(repository: Path):
    state = provenance.git_state(repository)
    assert state is not None
    assert len(state.commit) == 40
    assert not state.is_dirty


def test_changes_and_new_files_are_seen(repository: Path):
    (repository / "a.txt").write_text("two\n")
    (repository / "b.txt").write_text("new\n")
    state = provenance.git_state(repository)
    assert state is not None
    assert "+two" in state.diff
    assert state.untracked == ("b.txt",)
    assert provenance.source_tags(state)["winnow.git_dirty"] == "true"


def test_a_huge_diff_is_cut(repository: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "DIFF_CHARACTERS", 1000)
    (repository / "a.txt").write_text("line\n" * 10_000)
    state = provenance.git_state(repository)
    assert state is not None
    assert len(state.diff) < 1100
    assert "cut" in state.diff


def test_outside_of_a_repository_and_without_git_there_is_no_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert provenance.git_state(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.git_state(tmp_path) is None


def test_the_environment_names_python_machine_and_packages_quickly():
    facts, seconds = provenance.environment(), []
    for _ in range(5):
        start = time.perf_counter()
        provenance.environment()
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
    assert facts["python"] == ".".join(map(str, sys.version_info[:3]))
    assert {"host", "cpu", "memory_gb", "package.mlflow"} <= facts.keys()


def test_the_command_line_is_that_of_this_process():
    code = "from winnow.tracking import provenance; print(provenance.command_line())"
    command = [sys.executable, "-c", code, "data.root=my data"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == shlex.join([Path(sys.executable).name, *command[1:]])
