"""Words of a command line."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

from composed import REPOSITORY
from fuzz.mutations import CANARY, NUMBERS, TEXTS, mutated_bytes
from fuzz.pool import Case, Kind

from winnow.config.compose import compose_command_line
from winnow.config.from_file import decides_what_runs, trusted_by
from winnow.run.resolve import resolve

_OVERRIDES = (
    "training.max_epochs=3", "training.optimizer.lr=1e-4", "model=fcos_tiny", "data=digits", "training.freeze=[backbone]",
    "+experiment=ink_small",
    "training.optimizer={_target_:torch.optim.SGD,lr:0.1}", "training.resize_schedule=[[1,320],[5,640]]", "stage=ink/all",
    "tracking=off",
    "training.param_groups={backbone:{lr:0.1}}", "~training.ema", "++training.more=1", "budget=search",
    "trusted_targets=[mine]",
    "training.resume=null", "training.init_from=null", "model.channels=[8,8,16,16]", "training=overfit",
    "objective.metric=val/map",
    "data.train={images:a,annotations:b}", "evaluation._target_=winnow.families.detection.evaluation.box_evaluation",
    "training.seed=7",
)  # fmt: skip


def _override(rng: random.Random) -> str:
    text = rng.choice(_OVERRIDES)
    key, _, value = text.partition("=")
    kind = rng.choice(("as it is", "value", "value", "value", "number", "key", "characters", "node", "more"))
    if kind == "value":
        return f"{key}={rng.choice(TEXTS)}"
    if kind == "number":
        return f"{key}={rng.choice(NUMBERS)}"
    if kind == "key":
        return f"{rng.choice(('+', '++', '~', '', key + '.'))}{rng.choice((key, *TEXTS))}={value}"
    if kind == "characters":
        return mutated_bytes(rng, text.encode())[:5000].decode("utf-8", "replace").replace("\x00", "") or "x"
    if kind == "node":
        node = rng.choice((key, "model", "data", "evaluation.x", "training.optimizer", "tracking"))
        return f"{rng.choice(('', '+'))}{node}={{_target_:os.mkdir,path:{CANARY}}}"
    if kind == "more":
        return f"{key}={'[' * (depth := rng.choice((3, 200, 3000)))}1{']' * depth}"
    return text


def _overrides(rng: random.Random, shared: Any, folder: Path) -> Case:
    given = [_override(rng) for _ in range(rng.choice((1, 1, 2, 3)))]

    def run() -> None:
        resolve(replace(compose_command_line(REPOSITORY / "conf", given), run_folder=folder))

    def judged() -> None:
        for text in given:
            decides_what_runs(text)
        trusted_by(given)

    return Case({"run": run, "judge": judged})


KINDS = (Kind("overrides", lambda folder: None, _overrides),)
