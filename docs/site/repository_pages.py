"""Pages of the site that lie outside of docs/, and links that lead there: a hook of mkdocs."""

from __future__ import annotations

import os
import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).parent.parent.parent
PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "benchmarks/README.md": "measured.md"}
"""Files of the repository → the pages that they become."""
WIDE = {"peers.md", "settings.md"}
"""Pages whose tables take the room of the navigation."""
_LINK = re.compile(r"(?<!!)\[([^\]\n]+)\]\(([^)#\s]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    for source, page in PAGES.items():
        files.append(File.generated(config, page, content=(REPOSITORY / source).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:
    """Return the page with links that lead to the site's pages, wherever in the repository their targets lie. A link to a file
    that is no page becomes its words."""
    origins = {target: source for source, target in PAGES.items()}
    own = page.file.src_uri
    if own in WIDE:
        page.meta["hide"] = ["navigation", "toc"]
    folder = "notebooks" if own.startswith("notebooks/") else posixpath.dirname(origins.get(own, f"docs/{own}"))

    def in_site(match: re.Match[str]) -> str:
        words, target, anchor = match[1], match[2], match[3] or ""
        if ":" in target:
            return match[0]
        place = posixpath.normpath(posixpath.join(folder, target))
        goal = _page_of(place)
        if files.get_file_from_path(goal) is not None:
            return f"[{words}]({os.path.relpath(goal, posixpath.dirname(own) or '.')}{anchor})"
        return words if (REPOSITORY / place).exists() else match[0]

    return _LINK.sub(in_site, markdown)


def _page_of(place: str) -> str:
    if place == "README.md":
        return "README.md"
    if place.startswith("notebooks/"):
        return place.replace(".ipynb", ".md")
    return PAGES.get(place, place.removeprefix("docs/"))
