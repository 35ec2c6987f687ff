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


@pytest.mark.parametrize(("file", "line"), [
    ("engine/step.py", "import mlflow"),
    ("checkpoints/seal.py", "import optuna"),
    ("families/detection/formats/coco.py", "import omegaconf"),
    ("families/detection/metrics/coco_ap.py", "import winnow.run.training"),
    ("families/detection/models/fcos.py", "import winnow.engine.loop"),
    ("families/ink/batch.py", "import winnow.families.detection.batch"),
    ("families/maps/batch.py", "import winnow.families.ink.batch"),
    ("config/plain.py", "import winnow.run.training"),
    ("../hydra_plugins/winnow_sweeper/_loop.py", "import winnow.engine.loop"),
])  # fmt: skip
def test_a_forbidden_import_is_noticed(copy, file, line):
    target = copy / "src" / "winnow" / file
    target.write_text(f"{target.read_text()}\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode == 1
    assert "BROKEN" in result.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY / "src")))
def test_a_module_says_what_it_owns_and_is_named_for_it(path):
    tree = ast.parse(path.read_text())
    if path.name == "__init__.py" and path.parent.name != "winnow":  # that one holds the public names
        assert not tree.body
        return
    assert ast.get_docstring(tree)
    assert path.stem not in OWNS_NOTHING


def test_nothing_exits_or_catches_everything_silently():
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.ExceptHandler) and node.type is None), path
            assert not (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.exit"), path


def test_a_sweep_of_another_program_waits_for_no_torch():
    names = ["_sweep", "_worker", "_trial_task", "_cluster_task"]
    imports = "; ".join(f"import hydra_plugins.winnow_sweeper.{name}" for name in names)
    loaded = subprocess.check_output(
        [sys.executable, "-c", f"{imports}; import sys; print(*sys.modules)"], text=True
    ).split()
    assert "hydra_plugins.winnow_sweeper._sweep" in loaded
    assert "torch" not in loaded
