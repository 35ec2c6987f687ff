"""``pipeline.yaml`` as anybody may have written it."""

import pytest
import yaml

from winnow.errors import ConfigError
from winnow.run.pipeline_record import read_record

STAGE = {"name": "dense", "choices": {"model": "x"}, "config": {"stage": {"name": "dense", "stages": None}}}


@pytest.mark.parametrize(("content", "reason"), [
    ({"stages": [STAGE | {"name": 3}]}, "stages.0.name"), ({"stages": 3}, "stages: "), ([], "it: "), ({}, "stages: "),
    ({"stages": [STAGE | {"choices": {"model": None}}]}, "stages.0.choices.model"),
    ({"stages": [STAGE | {"config": []}]}, "stages.0.config"),
    ({"stages": [STAGE | {"config": {"stage": "x"}}]}, "the config of 'dense' says stage='x'"),
    ({"stages": [STAGE | {"config": {}}]}, "says stage=None"),
    ({"stages": [STAGE | {"name": "other"}]}, "the config of 'other' says"),
])  # fmt: skip
def test_what_is_no_record_of_stages_is_named(tmp_path, content, reason):
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump({"stages": [STAGE]}))
    assert [stage.name for stage in read_record(tmp_path)] == ["dense"]
    (tmp_path / "pipeline.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=f"pipeline.yaml is damaged: .*{reason}"):
        read_record(tmp_path)
