"""The config that a checkpoint or a pipeline recorded, and the command line's single values on top of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from winnow.config.flat import flat
from winnow.config.from_file import TRUSTED, require_trusted
from winnow.config.lookups import without_absent
from winnow.config.moved import with_added_keys, with_moved_choices, with_moved_targets
from winnow.config.plain import Config, choice_text, plain_config
from winnow.errors import ConfigError
from winnow.masking import usable_tree
from winnow.reading import reason


def resumed_config(
    checkpoint: Mapping[str, Any], composed: Config, overrides: list[str], source: str = "the checkpoint"
) -> Config:
    """Return the config that ``checkpoint`` recorded with the command line's single values on top; where a run is tracked and
    which packages are trusted is taken from ``composed``.

    So the command that began a run also resumes it. A recorded address without its secret is the command's own, where that is
    the same; what was ``***`` altogether is whatever the command says. Raises ConfigError for an override that chooses another
    group than then: what the old one held is in the checkpoint, and a mixture of the two would be neither; for what can't change
    within a run; and for a config that no run recorded. ``source`` names the file.
    """
    require_recorded(checkpoint, composed, source)
    recorded = with_added_keys(checkpoint["config"])
    require_plain_values(recorded, source)
    require_trusted(recorded["trusted_targets"], composed["trusted_targets"], f"the config of {source}")
    recorded = usable_tree(recorded, composed)
    # What these may say has grown since the first checkpoints.
    grown = {key: {**composed[key], **recorded.get(key, {})} for key in ("stage", "training")}
    try:
        config = OmegaConf.create({**recorded, **grown})
    except OmegaConfBaseException as error:
        raise ConfigError(f"{source} holds no config of a run: {reason(error)}") from error
    if "_target_" not in config.evaluation:  # recorded when detection was all there was
        config.evaluation._target_ = "winnow.families.detection.evaluation.box_evaluation"
    began = plain_config(config)
    choices = with_moved_choices(checkpoint["metadata"].get("choices", {}), recorded)
    for override in OverridesParser.create().parse_overrides(overrides):
        key = override.get_key_element().lstrip("+~")
        if key == "tracking":
            config.tracking = composed["tracking"]
        elif key in choices or _is_group(key, override, config, composed):
            chosen = with_moved_choices({key: choice_text(override.value())}, recorded)
            if choices.get(key) != chosen[key]:
                raise ConfigError(
                    f"{override.input_line}: the run began with {key}={choices.get(key)}, and a resumed run keeps its groups; "
                    "give single values, as training.max_epochs=20"
                )
        else:
            _apply(config, key, override)
    config.training.resume = None
    config.trusted_targets = composed["trusted_targets"]
    if config.training.get("seed") is None:  # the command that began the run had one drawn
        config.training.seed = began["training"].get("seed")
    resumed = with_moved_targets(plain_config(without_absent(config)))
    for keys, why in _FIXED.items():
        old, new = (_value(values, keys) for values in (began, resumed))
        if old != new:
            raise ConfigError(f"{'.'.join(keys)}={new!r}: the run began with {old!r}, and {why}")
    return resumed


def followed_config(content: Mapping[str, Any], trusted: list[str], source: str) -> Config:
    """Return the config that a checkpoint recorded, under today's names, for whoever uses its model. Raises ConfigError where it
    needs more than the packages ``trusted``, or is no config of a run. ``source`` names the file."""
    require_recorded(content, {}, source)
    recorded = with_added_keys(content["config"])
    require_plain_values(recorded, source)
    require_trusted(recorded[TRUSTED], trusted, f"the config of {source}")
    evaluation = {"_target_": "winnow.families.detection.evaluation.box_evaluation", **recorded["evaluation"]}
    return dict(with_moved_targets({**recorded, "evaluation": evaluation, TRUSTED: trusted}))


def with_values(config: Config, overrides: list[str]) -> Config:
    """Return ``config`` with the single values that ``overrides`` give. Raises ConfigError for one that can't be read, or whose
    key is not there."""
    try:
        changed = OmegaConf.create(config)
        for override in OverridesParser.create().parse_overrides(overrides):
            _apply(changed, override.get_key_element().lstrip("+~"), override)
    except HydraException as error:
        raise ConfigError(str(error)) from error
    except OmegaConfBaseException as error:
        raise ConfigError(f"that is no config of a run: {reason(error)}") from error
    return plain_config(changed)


def require_recorded(content: Mapping[str, Any], composed: Config, source: str) -> None:
    """Raise ConfigError where the config or the choices that a file recorded are not laid out as those of a run."""
    config, metadata = content.get("config"), content.get("metadata")
    odd = []
    if not isinstance(config, Mapping) or not _is_mapping_by_name(config):
        odd.append(f"config is {_kind(config)}")
    else:
        asked = [key for key, value in composed.items() if isinstance(value, Mapping)]  # may be the record itself
        nodes = [key for key in dict.fromkeys([*asked, *_READ]) if key in config or key not in _CAME_LATER]
        odd += [
            f"config.{key} is {_kind(config.get(key))}" for key in nodes if not _is_mapping_by_name(config.get(key))
        ]
        trusted = config.get(TRUSTED)
        if not isinstance(trusted, list) or not all(isinstance(name, str) for name in trusted):
            odd.append(f"config.{TRUSTED} is {trusted!r:.60}, not a list of names")
    choices = metadata.get("choices", {}) if isinstance(metadata, Mapping) else None
    if not isinstance(choices, Mapping) or not all(isinstance(text, str) for pair in choices.items() for text in pair):
        odd.append("metadata.choices are no texts by name")
    if odd:
        raise ConfigError(f"{source} holds no config of a run: {'; '.join(odd[:10])}")


def require_plain_values(recorded: Mapping[str, Any], source: str = "the checkpoint") -> None:
    """Raise ConfigError for a recorded value that would be looked up anew, as ``${oc.env:TOKEN}``: runs record what it came to,
    and a file must not be able to read this machine's environment."""
    for key, value in flat(recorded).items():
        if "${" in str(value):
            raise ConfigError(
                f"the config of {source} holds {key}={value!r:.100}, and no run records what is still to be looked up"
            )


def _is_mapping_by_name(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _kind(value: Any) -> str:
    return "absent" if value is None else f"a {type(value).__name__}, not values by name"


def _is_group(key: str, override: Override, config: DictConfig, composed: Config) -> bool:
    """Tell whether an override chooses a file of conf/: one that sets values all over, ``+experiment=…``, leaves no key of its
    own."""
    if "/" in key or "@" in key:
        return True
    return "." not in key and (OmegaConf.is_dict(config.get(key)) or (override.is_add() and key not in composed))


def _apply(config: DictConfig, key: str, override: Override) -> None:
    if override.is_delete():
        raise ConfigError(f"{override.input_line}: a key can't be deleted on resume")
    known = OmegaConf.select(config, key, default=_ABSENT) is not _ABSENT
    if not known and not override.is_add():
        raise ConfigError(f"{key} is not a key of the checkpoint's config; use +{override.input_line} to add it")
    OmegaConf.update(config, key, override.value(), merge=True, force_add=True)


def _value(config: Config, keys: tuple[str, ...]) -> Any:
    node: Any = config
    for key in keys:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node


_ELSEWHERE = "; start another run from these weights with training.init_from"

_FIXED = {
    ("training", "seed"): f"the rest of the epoch would be another order of samples{_ELSEWHERE}",
    ("training", "overfit"): f"the rest of the epoch would be other samples{_ELSEWHERE}",
    ("training", "optimizer", "_target_"): f"another optimizer can't go on with its moments{_ELSEWHERE}",
}
"""What a resumed run keeps, and why."""

_READ = ("evaluation", "model", "stage", "training")
_CAME_LATER = ("stage",)
"""Nodes that the first checkpoints lack."""

_ABSENT = object()
