"""A study's description as ``winnow study`` and ``winnow promote`` read it."""

import pytest
import yaml

from winnow.errors import ConfigError
from winnow.sweep.stored_study import KEYS, StoredStudy

WHOLE = {
    "study_name": "study", "storage": None, "metric": "x", "overrides": ["a=1"], "hydra_overrides": [], "search_path": [],
    "definition": {"base": {"a": 1}, "search_space": {}, "directions": ["maximize"], "pruner": None},
}  # fmt: skip
assert tuple(WHOLE) == KEYS


@pytest.mark.parametrize(("text", "message"), [
    ("study_name: study\nmetric: x\n", r"sweep.yaml lacks .*storage.*the sweep's own command writes it anew"),
    ("", r"sweep.yaml lacks study_name, storage"),
    ("definition: {a: [", r"sweep.yaml can't be read as a study's description, which the sweep's own command writes anew"),
    (yaml.safe_dump({key: value for key, value in WHOLE.items() if key != "search_path"}), r"lacks search_path: it is torn"),
    (yaml.safe_dump(WHOLE), r"study.journal holds no study named 'study'"),
    *((yaml.safe_dump(WHOLE | {key: value}), rf"sweep.yaml is damaged, no _Description: {place}: .*writes it anew")
      for key, value, place in [
        ("overrides", [3], "overrides.0"), ("hydra_overrides", "x", "hydra_overrides"), ("definition", "x", "definition"),
        ("definition", {"base": {}, "directions": ["x"]}, "definition.search_space"), ("storage", 3, "storage"),
        ("metric", [], "metric"),
        ("definition", WHOLE["definition"] | {"pruner": {"floor": "high"}}, "definition.pruner.floor"),
        ("definition", WHOLE["definition"] | {"pruner": {"floor": ".3"}}, "definition.pruner.floor"),
        ("definition", WHOLE["definition"] | {"pruner": [1]}, "definition.pruner"),
    ]),
    (yaml.safe_dump(WHOLE | {"storage": "elsewhere"}), r"sweep.yaml: storage: storage 'elsewhere' is unknown"),
])  # fmt: skip
def test_what_is_not_whole_is_named(tmp_path, text, message):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        StoredStudy.open(tmp_path)


def test_looking_for_a_study_makes_no_storage(tmp_path):
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(WHOLE))
    for storage in (None, f"sqlite:///{tmp_path}/new/study.db", f"{tmp_path}/new/study.journal"):
        with pytest.raises(ConfigError, match="holds no study named 'study': there is no such file"):
            StoredStudy.open(tmp_path, storage)
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.yaml"]
