"""What runs leave behind and read again: results, records of pipelines and sweeps, outboxes, lists of trials."""

from __future__ import annotations

import copy
import csv
import io
import json
import random
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from composed import REPOSITORY
from fuzz.labels import changed_json
from fuzz.mutations import RAW_YAML, TEXTS, encoded, mutated, mutated_bytes, odd_value, yaml_text
from fuzz.pool import Case, Kind
from fuzz.weights import TINY
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._notes import Notes, clear_up, recall
from hydra_plugins.winnow_sweeper._trials_file import read_trials
from winnow.config.compose import compose_command_line
from winnow.errors import WinnowError
from winnow.process import ProcessStamp
from winnow.run.pipeline import read_result
from winnow.run.pipeline_record import read_record, write_record
from winnow.run.plan import RunPlan
from winnow.run.resolve import resolve
from winnow.run.result import RunResult, is_concluded
from winnow.run_folder import _who
from winnow.sweep import promoted_entries
from winnow.sweep.outcome import Outcome
from winnow.sweep.trial import _read as reported
from winnow.tracking.folder import RunState, TrackingFolder, UploadSettings
from winnow.tracking.history import Entry, History
from winnow.tracking.outbox import OutboxFile, read_events, read_last_event
from winnow.tracking.uploader import Uploader


def changed_yaml(rng: random.Random, tree: Any) -> bytes:
    """Return a YAML file of ``tree`` after changes: of its nodes, or of its bytes."""
    if rng.random() < 0.25:
        return mutated_bytes(rng, yaml.safe_dump(tree, sort_keys=False).encode())
    while True:
        try:
            return encoded(rng, yaml_text(mutated(rng, copy.deepcopy(tree), partial(odd_value, rng, RAW_YAML))))
        except (ArithmeticError, ValueError, RecursionError, TypeError, AttributeError, yaml.YAMLError):
            continue


# What a pipeline recorded


def _prepare_pipeline(folder: Path) -> Any:
    command = compose_command_line(
        REPOSITORY / "conf",
        ["stage=ink/all", "model=inktrace", "data=ink_strokes", "tracking=off", "training.resume=auto"],
    )
    stages = [command.compose_stage(name) for name in command.config["stage"]["stages"]]
    plans = [RunPlan.of(stage.config, folder, stage.choices, None, None) for stage in stages]
    write_record(plans, folder)
    return command, yaml.safe_load((folder / "pipeline.yaml").read_text())


def _pipeline(rng: random.Random, shared: Any, folder: Path) -> Case:
    command, tree = shared
    (folder / "pipeline.yaml").write_bytes(changed_yaml(rng, tree))
    if rng.random() < 0.5:  # what a command without stage= asks for
        config = {**command.config, "stage": {**command.config["stage"], "name": "single", "stages": None}}
        command = replace(command, config=config, choices={**command.choices, "stage": "single"})

    def resume() -> None:
        resolve(replace(command, run_folder=folder, overrides=[]))

    return Case({"read": lambda: read_record(folder), "resume": resume}, ("pipeline.yaml", "stage=", "stage.stages"))


# What single runs left


_RESULT = RunResult(
    "completed", 0.5, {"val/map": 0.5, "train/loss": 1.0}, {"val/map": 0.5},
    {"metric": "val/map", "value": 0.5, "epoch": 1, "step": 3}, 1, 3, {"images": 12, "images_640": 0.5, "seconds": 3.5},
    "best.pth", "last.pth", "abc", 3.5, None, {},
)  # fmt: skip


def _result(rng: random.Random, shared: Any, folder: Path) -> Case:
    (folder / "result.json").write_bytes(changed_json(rng, asdict(_RESULT)))
    (folder / ".owner.json").write_bytes(changed_json(rng, asdict(ProcessStamp.this_process())))
    outcome = replace(Outcome("interrupted"), seed=1)
    (folder / "outcome.json").write_bytes(changed_json(rng, asdict(outcome)))
    notes = Notes(folder / ".jobs-x")
    notes.folder.mkdir()
    (notes.folder / "3.submitted").write_bytes(mutated_bytes(rng, b"") if rng.random() < 0.3 else b"")
    for name, content in (
        ("3.started", {"pid": 1, "host": "x"}),
        ("3.ended", asdict(outcome)),
        ("owner.json", asdict(ProcessStamp.this_process())),
    ):
        (notes.folder / name).write_bytes(changed_json(rng, content))
    return Case({
        "concluded": lambda: is_concluded(folder), "stage": lambda: read_result(folder),
        "owner": lambda: _who(folder / ".owner.json"),
        "reports": lambda: reported(folder / "result.json"), "notes": lambda: (notes.outcome("3"), notes.pid_here("3")),
        "recall": lambda: recall(folder, 3), "clear up": lambda: clear_up(folder),
    })  # fmt: skip


def _prepare_promoted(folder: Path) -> Any:
    def composed(overrides: Any, command: Any) -> Any:
        return compose_command_line(REPOSITORY / "conf", overrides).config

    promoted_entries.composed_by = composed  # the same in this process: a new one per case would take most of the time
    overrides = [*TINY, "training.optimizer.lr=1e-3"]
    config = compose_command_line(REPOSITORY / "conf", overrides).config
    return config, overrides


def _promoted(rng: random.Random, shared: Any, folder: Path) -> Case:
    config, overrides = shared
    (folder / ".hydra").mkdir()
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "last.pth").touch()
    is_first = rng.random() < 0.5
    (folder / "config.yaml").write_bytes(changed_yaml(rng, config) if is_first else yaml.safe_dump(config).encode())
    listed = yaml.safe_dump(overrides).encode() if is_first and rng.random() < 0.8 else changed_yaml(rng, overrides)
    (folder / ".hydra" / "overrides.yaml").write_bytes(listed)
    trial = create_trial(
        value=0.5,
        params={"training.optimizer.lr": 1e-3},
        distributions={"training.optimizer.lr": FloatDistribution(1e-5, 1)},
    )
    return Case(
        {"promote": lambda: promoted_entries.entry_of(trial, folder, ["budget=full"], [], ["train.py"])},
        ("config.yaml", "overrides.yaml"),
    )


# Tracking


def _events() -> list[dict[str, Any]]:
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("start", {}), ("params", {"training.lr": "0.1", "model": "x"}), ("tags", {"a": "b"}),
        *(("metrics", {"step": step, "values": {"train/loss": 1.0 / (step + 1), "val/map": "nan"}}) for step in range(4)),
        ("artifact", {"path": "/x/config.yaml", "folder": ""}), ("finish", {"status": "completed"}),
    ]  # fmt: skip
    return [
        {"sequence": number, "time_ms": 10**12 + number, "kind": kind, "payload": payload}
        for number, (kind, payload) in enumerate(kinds, 1)
    ]


def _outbox(rng: random.Random, shared: Any, folder: Path) -> Case:
    tracking = TrackingFolder.of_run(folder)
    tracking.path.mkdir()
    lines = []
    events = _events()
    for index, event in enumerate(events):
        is_changed = rng.random() < 0.3 or index == len(events) - 1
        line = changed_json(rng, event) if is_changed else json.dumps(event).encode()
        lines.append(b" ".join(line.split(b"\n")))
    if rng.random() < 0.2:
        rng.shuffle(lines)
    data = b"\n".join(lines) + rng.choice((b"\n", b"\n", b"\n", b""))
    tracking.outbox.write_bytes(mutated_bytes(rng, data) if rng.random() < 0.3 else data)
    state, settings = (
        RunState("sqlite:///x.db", "abc", 3, [["/x", ""]], False, False),
        UploadSettings("key", 10**12, ProcessStamp.this_process(), "sqlite:///x.db", "experiment", "run"),
    )
    is_settings = rng.random() < 0.4
    tracking.state.write_bytes(
        changed_json(rng, asdict(state)) if rng.random() < 0.5 else json.dumps(asdict(state)).encode()
    )
    tracking.settings.write_bytes(
        changed_json(rng, asdict(settings)) if is_settings else json.dumps(asdict(settings)).encode()
    )

    def go_on() -> None:
        history = History.read(tracking.outbox)
        for kind, payload in (
            ("params", {"training.lr": "0.2", "x": "y"}), ("metrics", {"step": 2, "values": {"train/loss": 0.3}}),
            ("metrics", {"step": 9, "values": {"train/loss": float("nan"), "new": 1.0}}), ("finish", {"status": "completed"}),
        ):  # fmt: skip
            for event in history.events(Entry(10**12, kind, payload)):  # type: ignore[arg-type]
                event.encode()
        file = OutboxFile(tracking.outbox)
        file.open()
        file.close()

    def upload() -> None:
        try:
            UploadSettings.read(tracking.settings)
        except ValueError as error:  # as winnow sync does
            raise WinnowError(str(error)) from None
        uploader = Uploader(tracking, lambda: False, 0.0, follows=False)
        uploader._remote = _Server()  # type: ignore[assignment]
        for _ in range(50):
            if not uploader._advance(is_over=True):
                break
        read_last_event(tracking.outbox)

    return Case(
        {"read": lambda: list(read_events(tracking.outbox)), "go on": go_on, "upload": upload}, ("settings.json",)
    )


class _Server:
    """Takes what an uploader sends as MLflow's client does: names are texts, values and steps numbers."""

    run_id = "abc"
    experiment_id = "1"
    view = ""

    def send(self, events: Any) -> None:
        from winnow.tracking.experiment_view import VIEW_TAG, data_set_in, experiment_tag
        from winnow.tracking.outbox import decode_values

        for event in events:
            if event.kind == "metrics":
                assert all(type(value) is float for value in decode_values(event.payload["values"]).values())
                int(event.payload["step"])
            elif event.kind in ("params", "tags"):
                assert all(isinstance(word, str) for pair in event.payload.items() for word in pair)
                data_set_in(event.payload)
                if VIEW_TAG in event.payload:
                    experiment_tag(event.payload[VIEW_TAG])
            elif event.kind == "finish":
                str(event.payload["status"])

    def upload(self, path: Path, folder: str) -> None:
        assert isinstance(folder, str)

    def send_samples(self, samples: Any) -> None:
        raise AssertionError("no samples were taken")


# Lists of trials


def _prepare_trials(folder: Path) -> Any:
    space = space_of(
        training__optimizer__lr="tag(log,interval(1e-5,1e-2))", training__batch_size="choice(4,8)",
        model__channels="choice([8,16],[16,32])",
        training__max_epochs="range(1,9)",
    )  # fmt: skip
    rows = [
        {"training.optimizer.lr": 1e-4, "training.batch_size": 4, "model.channels": [8, 16], "training.max_epochs": 3},
        {"training.optimizer.lr": 1e-3, "training.weight_decay": 0.1, "model.head_channels": 32},
        {"training.freeze": ["backbone"]},
    ]  # fmt: skip
    return space, composer(), rows


def _trials(rng: random.Random, shared: Any, folder: Path) -> Case:
    space, compose, rows = shared
    kind = rng.choice(("json", "yaml", "csv"))
    path = folder / f"trials.{kind}"
    if kind == "csv":
        path.write_bytes(_changed_csv(rng))
    else:
        path.write_bytes((changed_json if kind == "json" else changed_yaml)(rng, rows))
    return Case({"read": lambda: read_trials(path, space, compose)}, (path.name,))


def _changed_csv(rng: random.Random) -> bytes:
    table = [["training.optimizer.lr", "training.batch_size", "model.channels", "training.freeze"],
             ["1e-4", "4", "[8,16]", ""], ["0.001", "8", "[16,32]", "[backbone]"], ["", "4", "", "[]"]]  # fmt: skip
    for _ in range(rng.choice((1, 1, 2, 3))):
        row = rng.choice(table)
        row[rng.randrange(len(row))] = rng.choice(
            (rng.choice(TEXTS), "[" * 3000, "{a:" * 500, "9" * 400, "choice(1,2)", "x" * 200_000)
        )
        if rng.random() < 0.2:
            row.append(rng.choice(TEXTS))
        if rng.random() < 0.2:
            table.append(list(row))
    file = io.StringIO()
    csv.writer(
        file, quoting=rng.choice((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)), lineterminator=rng.choice(("\n", "\r\n", "\r"))
    ).writerows(table)
    data = encoded(rng, file.getvalue())
    return mutated_bytes(rng, data) if rng.random() < 0.3 else data


def _nothing(folder: Path) -> None:
    return None


KINDS = (
    Kind("pipeline.yaml", _prepare_pipeline, _pipeline), Kind("result.json", _nothing, _result), Kind("promoted",
    _prepare_promoted, _promoted),
    Kind("outbox", _nothing, _outbox), Kind("trials file", _prepare_trials, _trials),
)  # fmt: skip
