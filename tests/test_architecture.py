"""The house rules hold, and breaking one is noticed."""

import ast
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from composed import REPOSITORY

SOURCES = sorted((REPOSITORY / "src").rglob("*.py"))
OWNS_NOTHING = {"utils", "util", "common", "misc", "helpers", "base", "core", "manager"}


def lint_imports(folder):
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    environment = {"PYTHONPATH": str(folder / "src"), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path):
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


FORBIDDEN = [
    ("winnow.engine.step", "mlflow"),
    ("winnow.checkpoints.seal", "optuna"),
    ("winnow.families.detection.formats.coco", "omegaconf"),
    ("winnow.families.detection.metrics.coco_ap", "winnow.run.training"),
    ("winnow.families.detection.models.fcos", "winnow.engine.loop"),
    ("winnow.families.ink.batch", "winnow.families.detection.batch"),
    ("winnow.families.maps.batch", "winnow.families.ink.batch"),
    ("winnow.config.plain", "winnow.run.training"),
    ("hydra_plugins.winnow_sweeper._loop", "winnow.engine.loop"),
]


def test_each_forbidden_import_is_noticed(copy):
    for importer, imported in FORBIDDEN:
        target = copy / "src" / f"{importer.replace('.', '/')}.py"
        target.write_text(f"{target.read_text()}\nimport {imported}\n")
    result = lint_imports(copy)
    assert result.returncode == 1
    broken = result.stdout.partition("Broken contracts")[2]
    assert [line for line in FORBIDDEN if " -> ".join(line) not in broken] == []


@pytest.fixture(scope="module")
def trees():
    """Return path in src/ → what Python reads there."""
    return {path.relative_to(REPOSITORY / "src"): ast.parse(path.read_text()) for path in SOURCES}


def test_each_module_says_what_it_owns_and_is_named_for_it(trees):
    # Nothing lies in an __init__.py but the public names, in the package's own.
    empty = {path for path in trees if path.name == "__init__.py" and path.parent.name != "winnow"}
    assert [str(path) for path in empty if trees[path].body] == []
    owning = trees.keys() - empty
    assert len(owning) > 200
    assert [str(path) for path in owning if not ast.get_docstring(trees[path])] == []
    assert [str(path) for path in owning if path.stem in OWNS_NOTHING] == []


def test_nothing_exits_or_catches_everything_silently(trees):
    for path, tree in trees.items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), path
            is_exit = isinstance(node, ast.Attribute) and node.attr == "exit" and ast.unparse(node.value) == "sys"
            assert not is_exit, path


def test_a_sweep_of_another_program_waits_for_no_torch():
    names = ["_sweep", "_worker", "_trial_task", "_cluster_task"]
    imports = "; ".join(f"import hydra_plugins.winnow_sweeper.{name}" for name in names)
    loaded = subprocess.check_output(
        [sys.executable, "-c", f"{imports}; import sys; print(*sys.modules)"], text=True
    ).split()
    assert "hydra_plugins.winnow_sweeper._sweep" in loaded
    assert "torch" not in loaded
