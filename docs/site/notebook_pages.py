"""Notebooks as pages, with their outputs where `make docs` or the tests have run them: a hook of mkdocs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files
from nbconvert import MarkdownExporter

logger = logging.getLogger("mkdocs.hooks.notebooks")

REPOSITORY = Path(__file__).parent.parent.parent
SOURCES, EXECUTED = REPOSITORY / "notebooks", REPOSITORY / "build" / "notebooks"


def on_files(files: Files, config: Any) -> Files:
    for source in sorted(SOURCES.glob("*.ipynb")):
        markdown, pictures = page_of(newest(source))
        files.append(File.generated(config, f"notebooks/{source.stem}.md", content=markdown))
        for name, content in pictures.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def newest(source: Path) -> nbformat.NotebookNode:
    """Return the notebook as it was run, if it was run as it stands; else as it stands."""
    notebook = nbformat.read(source, as_version=4)
    path = EXECUTED / source.name
    if path.exists():
        executed = nbformat.read(path, as_version=4)
        if [cell.source for cell in executed.cells] == [cell.source for cell in notebook.cells]:
            return executed
    logger.info("%s was not run: its page has no outputs (make docs runs it)", source.name)
    return notebook


def page_of(notebook: nbformat.NotebookNode) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by file name."""
    for cell in notebook.cells:
        cell["outputs"] = [output for output in cell.get("outputs", []) if not _is_noise(output)]
    resources = {"unique_key": notebook.cells[0].source.splitlines()[0].strip("# ").replace(" ", "_").lower()}
    markdown, found = MarkdownExporter().from_notebook_node(notebook, resources)
    return markdown, dict(found["outputs"])


def _is_noise(output: nbformat.NotebookNode) -> bool:
    """Tell whether an output is what tqdm says of a kernel without widgets."""
    return output.output_type == "stream" and output.name == "stderr" and "IProgress" in output.text
