"""A study's description as ``winnow study`` and ``winnow promote`` read it."""

import pytest
import yaml

from winnow.errors import ConfigError
from winnow.sweep.stored_study import KEYS, StoredStudy

WHOLE = dict.fromkeys(KEYS, "x") | {"storage": None, "study_name": "study"}


@pytest.mark.parametrize(("text", "message"), [
    (yaml.safe_dump(WHOLE)[:40], r"sweep.yaml lacks .*storage.*the sweep's own command writes it anew"),
    ("", r"sweep.yaml lacks study_name, storage"),
    ("definition: {a: [", r"sweep.yaml can't be read as a study's description, which the sweep's own command writes anew"),
    (yaml.safe_dump({key: value for key, value in WHOLE.items() if key != "search_path"}), r"lacks search_path: it is torn"),
    (yaml.safe_dump(WHOLE), r"study.journal holds no study named 'study'"),
])  # fmt: skip
def test_what_is_not_whole_is_named(tmp_path, text, message):
    (tmp_path / "sweep.yaml").write_text(text)
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        StoredStudy.open(tmp_path)
