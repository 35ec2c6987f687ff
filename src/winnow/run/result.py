"""``result.json``: how a run ended, for scripts and for people."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from winnow.masking import masked_output
from winnow.reading import UnreadableError, parse_json
from winnow.run_folder import write_whole


@dataclass
class RunResult:
    """``status`` is completed, early_stopped, interrupted, pruned, diverged, out_of_memory or failed; ``objective`` the best
    value reached; ``metrics`` are the last evaluation's, ``best_metrics`` those of the best epoch; ``reason`` says why a run did
    not complete; ``stages`` holds the results of a pipeline's by name."""

    status: str
    objective: float | None = None
    metrics: dict[str, int | float] = field(default_factory=dict)
    best_metrics: dict[str, int | float] = field(default_factory=dict)
    best: dict[str, Any] | None = None
    epochs: int = 0
    steps: int = 0
    cost: dict[str, int | float] = field(default_factory=dict)
    checkpoint_best: str | None = None
    checkpoint_last: str | None = None
    mlflow_run_id: str | None = None
    seconds: float = 0.0
    reason: str | None = None
    stages: dict[str, Any] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``folder``/result.json, atomically; numbers that JSON lacks (NaN, ±∞) become null."""
        content = asdict(self) | {"reason": self.reason and masked_output(self.reason)}
        write_whole(folder / "result.json", json.dumps(_finite(content), indent=2) + "\n")


def is_concluded(folder: Path) -> bool:
    """Tell whether the run of ``folder`` came to its end and wrote down how. A file that was torn, as by a power cut, says
    nothing."""
    try:
        content = parse_json((folder / "result.json").read_bytes())
    except (OSError, UnreadableError):
        return False
    return isinstance(content, dict) and content.get("status") in ("completed", "early_stopped")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value
