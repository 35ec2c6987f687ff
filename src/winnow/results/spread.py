"""What is known of the spread between seeds where two runs are compared, and from whose repeats, the nearest first."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files

from winnow.odds.verdict import Spread, pooled
from winnow.reading import UnreadableError, parse_json, parse_record
from winnow.results.measured import MeasuredRun, repeats_beside, values_of
from winnow.run_folder import write_whole

logger = logging.getLogger(__name__)

FILE = "spread.json"
"""What ``compare --group`` writes beside the runs."""
SHIPPED = "spreads.json"


@dataclass(frozen=True)
class WrittenSpread:
    """What a comparison of groups found out: the spread of ``metric`` between seeds, and of how many runs."""

    metric: str
    sigma: float
    degrees: int
    runs: int


def known_spread(first: Sequence[MeasuredRun], second: Sequence[MeasuredRun]) -> Spread | None:
    """Return the spread between seeds as the nearest source has it: repeats of the same configurations in their studies or
    folders, what ``compare --group`` last wrote beside these runs, or what winnow ships for its embedded data sets; None without
    any. The runs that are compared themselves are left out."""
    return _of_repeats(first, second) or _written([*first, *second]) or shipped_spread(first[0])


def write_spread(groups: Sequence[Sequence[MeasuredRun]]) -> None:
    """Write the spread within ``groups`` beside their runs, if they have one. A folder that can't be written is a warning."""
    spread = pooled([values_of(group) for group in groups])
    if spread is None:
        return
    written = WrittenSpread(groups[0][0].metric, spread.sigma, spread.degrees, sum(map(len, groups)))
    for folder in {run.folder.absolute().parent for group in groups for run in group}:
        try:
            write_whole(folder / FILE, json.dumps(asdict(written), indent=2) + "\n")
        except OSError as error:
            logger.warning("the spread is not kept for later comparisons: %s", error)


def shipped_spread(run: MeasuredRun) -> Spread | None:
    """Return what winnow knows of the data set of ``run``; None for a data set that it does not bring along."""
    shipped = files("winnow.results").joinpath(SHIPPED)
    known = parse_json(shipped.read_bytes()) if shipped.is_file() else {}
    entry = known.get(str(json.loads(run.config).get("data._target_")), {}).get(run.metric)
    if entry is None:
        return None
    source = f"winnow's own {entry['degrees'] + 1} repeats on {entry['set']}, of another configuration"
    return Spread(float(entry["sigma"]), int(entry["degrees"]), source)


def _of_repeats(first: Sequence[MeasuredRun], second: Sequence[MeasuredRun]) -> Spread | None:
    compared = {run.folder.absolute() for run in (*first, *second)}
    groups = {
        run.config: [other for other in repeats_beside(run) if other.folder.absolute() not in compared]
        for run in (first[0], second[0])
    }
    spread = pooled([values_of(group) for group in groups.values()])
    if spread is None:
        return None
    number = sum(map(len, groups.values()))
    places = sorted({str(run.folder.parent) for group in groups.values() for run in group})
    source = f"{number} repeats of the same configurations in {', '.join(places[:2])}"
    return Spread(spread.sigma, spread.degrees, source)


def _written(runs: Sequence[MeasuredRun]) -> Spread | None:
    for folder in dict.fromkeys(run.folder.absolute().parent for run in runs):
        path = folder / FILE
        try:
            written = parse_record(WrittenSpread, path.read_bytes())
        except (OSError, UnreadableError):
            continue
        if written.metric == runs[0].metric and written.degrees > 0 and written.sigma >= 0:
            return Spread(written.sigma, written.degrees, f"{path}, {written.runs} runs")
    return None
