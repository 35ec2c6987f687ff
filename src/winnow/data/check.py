"""What a data set's own check gives to ``winnow data check``: per split how much was read, and what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Progress = Callable[[int, int], None]
"""Called with (done, in all)."""
SplitProgress = Callable[[str, int, int], None]
"""Called with (split, done, in all)."""
DataCheck = Callable[[Any, SplitProgress], "DataReport"]
"""``check(settings, progress)``: ``settings`` of the builder's settings class, or the data node as a dict where it has none."""


@dataclass(frozen=True)
class Finding:
    """One thing about one file or annotation; ``is_problem`` is false for what is only worth knowing.

    ``annotation`` is the annotation's own id, None where the finding is about a file as a whole.
    """

    kind: str
    file: str
    annotation: Any
    detail: str
    is_problem: bool = True


@dataclass(frozen=True, eq=False)
class SplitReport:
    """What was read of a split: ``annotations`` says where they lie, ``num_images`` and ``num_annotations`` count what was read
    of them, whatever an image or an annotation of the family is; findings in the order of the files."""

    annotations: Path | str
    num_images: int
    num_annotations: int
    findings: tuple[Finding, ...]

    @property
    def is_clean(self) -> bool:
        return not any(finding.is_problem for finding in self.findings)

    @property
    def counts(self) -> dict[str, int]:
        """Count the findings of each kind."""
        return dict(Counter(finding.kind for finding in self.findings))


@dataclass(frozen=True, eq=False)
class DataReport:
    """The splits by name, what is wrong ``between`` them, as an image that is in both, and how many ``objects`` each class has in
    what is trained on and in what is validated on, where the family has classes."""

    splits: Mapping[str, SplitReport]
    between: tuple[Finding, ...] = field(default=())
    objects: Mapping[str, Mapping[str, int]] = field(default_factory=dict)

    def findings(self) -> list[tuple[str, Finding]]:
        """Return all of them as (split, finding), those between splits as ``both``."""
        own = [(split, finding) for split, report in self.splits.items() for finding in report.findings]
        return own + [("both", finding) for finding in self.between]
