"""The list of full trainings: for each promoted trial the overrides that train its configuration in full."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from optuna.trial import FrozenTrial

from winnow.config.flat import flat
from winnow.config.from_file import TRUSTED, require_run_overrides
from winnow.config.moved import with_added_keys, with_moved_names, with_moved_targets
from winnow.config.values import override_text, parse_value
from winnow.errors import ConfigError
from winnow.masking import masked_tree
from winnow.reading import naming, read_yaml
from winnow.run_folder import PIPELINE_RECORD
from winnow.sweep.listed import content_of
from winnow.sweep.outcome import overrides_of
from winnow.sweep.promotion_command import composed_by, key_of

logger = logging.getLogger(__name__)

Entry = dict[str, str]
"""Key, with its prefix, → the text that stands after ``key=`` on a command line: it keeps each value's type."""

# What may differ between a trial's run and its full training without making another run of it.
_LENGTH = (
    "training.max_epochs",
    "training.max_iter",
    "training.resume",
    "training.save_interval",
    "training.keep_last_n",
    "training.frozen_weights",
    "training.frozen_source",
)
_NOT_THE_RUN = ("budget.", "tracking.", "hydra.", "model.attention")


def entry_of(
    trial: FrozenTrial, run: Path, chosen: Sequence[str], trust: Sequence[str], command: Sequence[str]
) -> Entry:
    """Return the explicit trial that trains the configuration of ``trial``, whose run lies in ``run``, in full: on from its own
    checkpoint where nothing but the length of the training differs, else afresh. ``trust`` is what this command says of
    ``trusted_targets``.
    """
    own = texts_of(trial)
    afresh = {**own, **as_entry(chosen)}
    last = run / "checkpoints" / "last.pth"
    if (run / PIPELINE_RECORD).exists():
        logger.warning(
            "trial %d is a pipeline: all of its stages are trained from the beginning, nothing of the search is gone on from",
            trial.number,
        )
        return afresh
    if not last.exists() or not (run / ".hydra" / "overrides.yaml").exists():
        logger.info("trial %d starts afresh: it left no checkpoint", trial.number)
        return afresh
    began, listed = run / "config.yaml", run / ".hydra" / "overrides.yaml"
    recorded = read_yaml(began, "the config of a run", ConfigError)
    said = read_yaml(listed, "the overrides of a run", ConfigError)
    if not isinstance(said, list) or not all(isinstance(text, str) for text in said):
        raise ConfigError(f"{listed} is damaged: it must be a list of overrides, not {said!r:.60}")
    with naming(began):
        old = flat(masked_tree(with_added_keys(with_moved_targets(recorded))))
        moved = with_moved_names(said, recorded)
    task = [
        text
        for text in moved
        if key_of(text) not in ("training.resume", TRUSTED) and not key_of(text).startswith("tracking.")
    ]
    require_run_overrides(task, str(listed))
    with naming(listed):
        new = flat(composed_by([*task, *chosen, *trust], command))
    changed = {
        key: value for key, value in new.items() if old.get(key, None) != value and not key.startswith(_NOT_THE_RUN)
    }
    another = sorted(set(changed) - set(_LENGTH))
    if another:
        shown = ", ".join(f"{key} {old.get(key)} → {changed[key]}" for key in another[:5])
        logger.info("trial %d starts afresh, for more than its length changes: %s", trial.number, shown)
        return afresh
    logger.info("trial %d goes on from %s", trial.number, last)
    lengths = {key: override_text(value) for key, value in changed.items() if key != "training.resume"}
    return {**own, **lengths, "training.resume": override_text(str(last))}


def texts_of(trial: FrozenTrial) -> Entry:
    """Return what a trial's own values are after ``key=``: a string in a study is the text of a value, all else is itself; the
    overrides of a listed trial are such texts too."""
    params = {name: _text(value) for name, value in trial.params.items()}
    return {**params, **as_entry(overrides_of(trial))}


def as_entry(overrides: Sequence[str]) -> Entry:
    """Return overrides by key. Raises ConfigError for one that gives no value, as ``~key``."""
    entry = {}
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or key.startswith("~"):
            raise ConfigError(f"{text!r} gives no value; allowed for promoted trials: key=value")
        entry[key] = value
    return entry


def list_text(entries: Sequence[Entry]) -> str:
    """Return the list as CSV, whose cells are read as after ``key=``: an empty one is no key."""
    keys = list(dict.fromkeys(key for entry in entries for key in entry))
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(keys)
    writer.writerows([entry.get(key, "") for key in keys] for entry in entries)
    return text.getvalue()


def content_of_entry(entry: Mapping[str, str]) -> str:
    """Return the content by which a study knows the trial of an entry, nothing being searched. Raises ConfigError for a text
    that is no value."""
    try:
        return content_of({}, [f"{key}={override_text(parse_value(text))}" for key, text in entry.items() if text])
    except ValueError as error:
        raise ConfigError(f"a promoted trial can't be written down: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        return override_text(value)
    try:
        parse_value(value)
    except ValueError:  # a custom_search_space suggested a string that Hydra can't read as it is
        return override_text(value)
    return value
