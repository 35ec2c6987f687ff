"""The check of pages of your own: every annotation and every page is read, every line cut out, and each problem named."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from winnow.data.check import DataReport, Finding, Progress, SplitProgress, SplitReport
from winnow.data.image import ImageSizeError, read_grey
from winnow.errors import DataError
from winnow.families.ink.lines.cutting import cut_line
from winnow.families.ink.lines.pages import PageLine, pages_of, read_pages
from winnow.families.ink.lines.settings import InkLinesSettings, PagesSettings
from winnow.families.ink.lines.skeletons import label_pixels


def check_ink_lines(settings: InkLinesSettings, progress: SplitProgress) -> DataReport:
    """Check the pages of ``data.train`` and, where there are such, of ``data.val``, each line cut at ``data.image_size``, and
    whether a page is in both."""
    named = {"train": settings.train} | ({} if settings.val is None else {"val": settings.val})
    reports: dict[str, SplitReport] = {}
    hashes: dict[str, dict[str, str]] = {}
    for split, pages in named.items():
        reports[split], hashes[split] = _check_pages(pages, settings.image_size, partial(progress, split))
    between = []
    if len(named) == 2:
        train_page_of = {digest: name for name, digest in hashes["train"].items()}
        between = [
            Finding("same page in train and val", name, None, f"same content as {train_page_of[digest]} in train")
            for name, digest in hashes["val"].items()
            if digest in train_page_of
        ]
    return DataReport(reports, tuple(between))


def _check_pages(pages: PagesSettings, size: int, progress: Progress) -> tuple[SplitReport, dict[str, str]]:
    """Return the report and, by file name, each page's checksum."""
    found: list[Finding] = []

    def note(file: Path, line_id: str | None, error: DataError) -> None:
        found.append(
            Finding("unreadable file" if line_id is None else "malformed line", file.name, line_id, str(error))
        )

    lines = read_pages(Path(pages.annotations), Path(pages.images), note)
    if not lines:
        found.append(Finding("no text line", Path(pages.annotations).name, None, "nothing is left to train on"))
    on_pages, hashes = pages_of(lines), {}
    for done, (path, on_page) in enumerate(on_pages.items(), start=1):
        found += _check_page(path, on_page, size)
        with contextlib.suppress(OSError):  # it is named above as unreadable
            hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        progress(done, len(on_pages))
    return SplitReport(pages.annotations, len(on_pages), len(lines), tuple(found)), hashes


def _check_page(path: Path, lines: Sequence[PageLine], size: int) -> list[Finding]:
    found = []
    sizes = {line.page_size for line in lines}
    if len(sizes) > 1:
        detail = f"its lines were drawn on pages of {', '.join(f'{w}×{h}' for w, h in sorted(sizes))} px"
        found.append(Finding("sizes differ", path.name, None, detail))
    try:
        page = read_grey(path, *lines[0].page_size)
    except ImageSizeError as error:
        return [*found, Finding("size mismatch", path.name, None, str(error))]
    except DataError as error:
        return [*found, Finding("unreadable image", path.name, None, str(error))]
    for line in lines:
        width, height = line.page_size
        outside = line.polygon[((line.polygon < 0) | (line.polygon > np.array([width, height]))).any(axis=1)]
        if len(outside):
            detail = f"point ({outside[0, 0]:g}, {outside[0, 1]:g}) on a page of {width}×{height} px"
            found.append(Finding("line partly outside the page", path.name, line.line_id, detail))
        strip = cut_line(page, line, size)
        if strip is None:
            detail = "less than a few px high or wide; training leaves it out"
            found.append(Finding("line too small", path.name, line.line_id, detail, is_problem=False))
        elif not len(label_pixels(strip.is_ink).row):
            detail = "training leaves it out"
            found.append(Finding("line without ink", path.name, line.line_id, detail, is_problem=False))
    return found
