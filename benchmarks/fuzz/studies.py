"""Studies: the journal's records, what trials and the study hold as attributes, and the description beside them."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import yaml
from fuzz.labels import changed_json
from fuzz.mutations import RAW_JSON, json_text, mutated, mutated_bytes, odd_value
from fuzz.pool import Case, Kind
from fuzz.records import changed_yaml
from fuzz.weights import TINY
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._definition import Definition, accepted_changes
from hydra_plugins.winnow_sweeper._plan import Plan
from hydra_plugins.winnow_sweeper._study import CHANGES, DEFINITION, PARENTS, with_stored_choices
from hydra_plugins.winnow_sweeper._supply import Supply
from winnow.console import CONSOLE
from winnow.process import ProcessStamp
from winnow.sweep.claims import Claims
from winnow.sweep.listed import EXPLICIT, enqueue_listed
from winnow.sweep.outcome import OUTCOME, OVERRIDES, OWNER, RELEASED, STARTED, Outcome
from winnow.sweep.ownership import HEARTBEAT
from winnow.sweep.promoted_entries import list_text, texts_of
from winnow.sweep.promotion import best_configurations, compared, promotion_table
from winnow.sweep.promotion_command import fixed_overrides, kept_overrides
from winnow.sweep.report import StudyReport, study_lines
from winnow.sweep.storage import create_study_once, open_storage
from winnow.sweep.stored_study import DESCRIPTION, JOURNAL, StoredStudy
from winnow.tracking.null_tracker import NullTracker

NAME = "search"
DISTRIBUTIONS = {
    "training.optimizer.lr": FloatDistribution(1e-5, 1e-2, log=True),
    "training.batch_size": CategoricalDistribution([4, 8]),
}


def _prepare(folder: Path) -> Any:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = space_of(training__optimizer__lr="tag(log,interval(1e-5,1e-2))", training__batch_size="choice(4,8)")
    base = composer()(TINY)
    definition = Definition.of(space, base, ["maximize"], {"name": "median", "floor": 0.1}, None, None)
    storage = open_storage(str(folder / JOURNAL))
    study = create_study_once(storage, NAME, ["maximize"])
    for key, value in (
        (DEFINITION, definition.to_json()),
        (PARENTS, 1),
        (CHANGES, [["a: 1 in the study, 2 now"]]),
        (f"{HEARTBEAT}x-1-0", 3),
    ):
        study.set_user_attr(key, value)
    dead = replace(ProcessStamp.this_process(), pid=2**22 - 1, start_time="1")
    for number, status in enumerate(("completed", "completed", "completed", "pruned", "running", "released")):
        study.enqueue_trial(
            {"training.optimizer.lr": 1e-3, "training.batch_size": 4},
            user_attrs={EXPLICIT: number, OVERRIDES: ["training.seed=3"]},
        )
        trial = study.ask(DISTRIBUTIONS)
        trial.set_user_attr(OWNER, dead.to_json() if status != "released" else RELEASED)
        trial.set_user_attr(STARTED, True)
        for epoch in (1, 2):
            trial.report(0.1 * number + 0.01 * epoch, epoch)
        if status in ("completed", "pruned"):
            outcome = Outcome(
                status, (0.1 * number,), "at epoch 2" if status == "pruned" else None, 2, {"images": 10.0, "images_640": 1.5,
                "seconds": 3.0}, 3.0,
                0.1 * number, 0.1 * number, 1.5, 2 if status == "pruned" else None, None, f"study/{number}", "abc",
            )  # fmt: skip
            trial.set_user_attr(OUTCOME, outcome.to_json())
            study.tell(
                trial,
                0.1 * number if status == "completed" else None,
                TrialState.COMPLETE if status == "completed" else TrialState.PRUNED,
            )
    description = {
        "study_name": NAME, "storage": None, "metric": "val/map", "overrides": TINY,
        "hydra_overrides": ["hydra/sweeper=winnow", "hydra.sweeper.n_jobs=2"],
        "search_path": [], "definition": definition.plain(),
    }  # fmt: skip
    lines = (folder / JOURNAL).read_bytes().splitlines()
    return {"lines": lines, "description": description, "space": space, "base": base, "definition": definition}


def _readers(folder: Path, shared: Any) -> dict[str, Callable[[], object]]:
    journal = str(folder / JOURNAL)

    def study() -> None:
        for item in study_lines(StoredStudy.open(folder)):
            CONSOLE.print(item)

    def promote() -> None:
        source = StoredStudy.open(folder)
        kept_overrides(source, [])
        fixed_overrides(source)
        best = best_configurations(source, 3)
        trials = {trial.number: trial for trial in source.study.get_trials(deepcopy=False)}
        entries = [texts_of(trials[row.number]) for row in best]
        list_text(entries)
        if best:
            CONSOLE.print(promotion_table(compared(best, entries, source)))

    def sweep() -> None:
        storage = open_storage(journal, patience_seconds=1.0)
        study = create_study_once(storage, NAME, ["maximize"], sampler=optuna.samplers.RandomSampler(seed=0))
        plan = Plan(None, None, None, None, NAME, folder, shared["space"], shared["base"], (), None, None)  # type: ignore[arg-type]
        plan = with_stored_choices(plan, study)
        stored = study.user_attrs.get(DEFINITION)
        if stored is not None:
            accepted_changes(Definition.from_json(stored), shared["definition"], True)
        enqueue_listed(study, [({"training.batch_size": 4}, ["training.seed=5"])])
        claims = Claims(study, storage, ProcessStamp.this_process(), grace_seconds=0.0)
        supply = Supply(
            study, 12, plan.space.distributions, plan.space.overrides, None, claims, None, folder, lambda number: None,
            None, contextlib.nullcontext(),
        )  # fmt: skip
        supply.adopt_orphans(set(), lambda trial: False)
        for _ in range(3):
            supply.next()
        report = StudyReport(
            study, folder, 12, "val/map", lambda row: 6, lambda trial: False, NullTracker(folder), TINY, plots=False
        )
        report.open(has_console=False)
        report.conclude("all trials are done", [])
        report.close()

    return {"study": study, "promote": promote, "sweep": sweep}


def _case(folder: Path, shared: Any, lines: list[bytes], description: bytes) -> Case:
    (folder / JOURNAL).write_bytes(b"\n".join(lines) + b"\n")
    (folder / DESCRIPTION).write_bytes(description)
    return Case(_readers(folder, shared), (JOURNAL, DESCRIPTION, f"'{NAME}'"))


def _plain_description(shared: Any) -> bytes:
    return yaml.safe_dump(shared["description"], sort_keys=False).encode()


def _journal(rng: random.Random, shared: Any, folder: Path) -> Case:
    """Change records, whatever they hold."""
    lines = list(shared["lines"])
    kind = rng.choice(("one", "one", "one", "bytes", "order"))
    if kind == "one":
        for _ in range(rng.choice((1, 1, 2, 4))):
            at = rng.randrange(len(lines))
            lines[at] = b" ".join(changed_json(rng, json.loads(shared["lines"][at])).split(b"\n"))
    elif kind == "order":
        for _ in range(rng.choice((1, 2, 10))):
            line = lines.pop(rng.randrange(len(lines)))
            unknown = json.dumps({"op_code": rng.randint(-2, 12)}).encode()
            for other in rng.choice(([], [line], [line, line], [line, unknown])):
                lines.insert(rng.randrange(len(lines) + 1), other)
            lines = lines or [line]
    else:
        lines = mutated_bytes(rng, b"\n".join(lines)).split(b"\n")
    return _case(folder, shared, lines, _plain_description(shared))


def _attributes(rng: random.Random, shared: Any, folder: Path) -> Case:
    """Change what trials and the study hold as attributes, and their values and parameters, in good records."""
    lines = list(shared["lines"])
    for _ in range(rng.choice((1, 1, 2, 3))):
        at = rng.randrange(len(lines))
        record = json.loads(shared["lines"][at])
        inside = next((record[name] for name in ("user_attr", "system_attr") if record.get(name)), None)
        if not isinstance(inside, dict) or not inside:
            continue
        key, value = next(iter(inside.items()))
        is_json = isinstance(value, str) and value.startswith("{")
        if is_json and rng.random() < 0.8:
            inside[key] = changed_json(rng, json.loads(value)).decode("utf-8", "surrogateescape")
        else:
            inside[key] = mutated(rng, [value], partial(odd_value, rng, RAW_JSON))
            inside[key] = inside[key][0] if isinstance(inside[key], list) and len(inside[key]) == 1 else inside[key]
        try:
            lines[at] = json_text(record).replace("\n", " ").encode("utf-8", "surrogatepass")
        except (ValueError, TypeError, RecursionError):
            continue
    return _case(folder, shared, lines, _plain_description(shared))


def _description(rng: random.Random, shared: Any, folder: Path) -> Case:
    return _case(folder, shared, list(shared["lines"]), changed_yaml(rng, shared["description"]))


KINDS = (
    Kind("study journal", _prepare, _journal),
    Kind("study attributes", _prepare, _attributes),
    Kind("sweep.yaml", _prepare, _description),
)
