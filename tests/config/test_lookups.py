"""What the environment gave of ``tracking``, and a config as it is recorded."""

import pytest
from composed import REPOSITORY
from omegaconf import OmegaConf

from winnow import masking
from winnow.config.compose import compose_command_line
from winnow.config.lookups import is_looked_up, looked_up, recorded_config, without_absent
from winnow.config.recorded import resumed_config
from winnow.errors import ConfigError
from winnow.run.plan import RunPlan
from winnow.run.resolve import require_secrets, resolve_single

ADDRESS = "http://me:s3cret-Word@host:5000"


@pytest.fixture(autouse=True)
def _own_memory(monkeypatch):
    monkeypatch.setattr(masking, "_words", {})
    monkeypatch.setattr(masking, "_looked_up", set())


def config(**tracking):
    return OmegaConf.create({"tracking": tracking, "mine": {"place": "${oc.env:PLACE}"}, "training": {"resume": None}})


def test_what_the_environment_had_a_part_in_is_told_from_the_rest(monkeypatch):
    monkeypatch.setenv("PLACE", "host")
    monkeypatch.setenv("COUNT", "3")
    monkeypatch.setenv("WINNOW_SECRET_7", ADDRESS)
    found = looked_up(config(
        uri="http://${oc.env:PLACE}:5000", plain="host", through="${mine.place}", number="${oc.decode:${oc.env:COUNT}}",
        default="${oc.env:NOWHERE,x}", absent="${oc.env:NOWHERE}", tags={"deep": "${oc.env:PLACE}", "own": "y"},
        several=["${oc.env:PLACE}", 1], moved_by_winnow="${oc.env:WINNOW_SECRET_7}", empty=None,
    ))  # fmt: skip
    assert found == {
        "uri": "http://host:5000", "through": "host", "number": 3, "default": "x", "tags.deep": "host", "several": ["host", 1],
    }  # fmt: skip
    assert is_looked_up(config(uri="${oc.env:PLACE}"), "tracking.uri")
    assert not is_looked_up(config(uri="host"), "tracking.uri")
    assert OmegaConf.create({"x": "${oc.env:PLACE}"}).x == "host"  # the resolver is as it was


def test_a_config_is_recorded_without_its_secrets_and_without_what_the_environment_gave():
    whole = {
        "data": {"root": "https://me:s3cret-Word@host/x", "size": 64},
        "tracking": {
            "uri": ADDRESS, "experiment": "e", "api_key": "abc", "tags": {"team": "falcons", "x": "y"}, "run_name": None,
        },
    }  # fmt: skip
    given = {"experiment": "e", "tags.team": "falcons", "tags.x": "another now", "gone.key": 1}
    assert recorded_config(whole, given) == {
        "data": {"root": "https://me:***@host/x", "size": 64},
        "tracking": {
            "uri": "http://me:***@host:5000", "experiment": "***", "api_key": "***", "tags": {"team": "***", "x": "y"},
            "run_name": None,
        },
    }  # fmt: skip
    assert whole["tracking"]["uri"] == ADDRESS


def test_what_the_environment_lacks_is_left_open_for_a_run_that_goes_on(monkeypatch):
    monkeypatch.delenv("PRIVATE", raising=False)
    cfg = config(uri="${oc.env:PRIVATE}", experiment="e")
    assert without_absent(cfg).tracking == {"uri": "***", "experiment": "e"}
    assert without_absent(config(uri="x")).tracking.uri == "x"


def command(*overrides):
    return compose_command_line(REPOSITORY / "conf", overrides)


def test_a_command_whose_address_is_not_there_is_refused_where_it_begins_and_not_where_it_resumes(
    monkeypatch, tmp_path
):
    monkeypatch.delenv("PRIVATE", raising=False)
    uri = "tracking.uri=${oc.env:PRIVATE}"
    with pytest.raises(ConfigError, match="PRIVATE"):
        command(uri)
    assert command(uri, "training.resume=auto").config["tracking"]["uri"] == "***"
    monkeypatch.setenv("PRIVATE", ADDRESS)
    plan = resolve_single(command(uri, f"hydra.run.dir={tmp_path}"))
    assert plan.config["tracking"]["uri"] == ADDRESS
    assert plan.recorded["tracking"]["uri"] == "***"
    assert plan.recorded["tracking"]["experiment"] == "winnow"
    assert "s3cret" not in repr(plan)


def test_a_plan_keeps_what_it_records_when_values_change(tmp_path):
    plan = resolve_single(command(f"tracking.uri={ADDRESS}", f"hydra.run.dir={tmp_path}"))
    other = plan.with_values("tracking", parent_run_id="a")
    assert other.config["tracking"]["uri"] == ADDRESS
    assert other.recorded["tracking"] == {**plan.recorded["tracking"], "parent_run_id": "a"}
    assert other.recorded["tracking"]["uri"] == "http://me:***@host:5000"
    assert masking.masked_output("alone: s3cret-Word") == "alone: ***"


def test_a_run_that_begins_refuses_an_address_as_it_is_recorded(tmp_path):
    plan = RunPlan.of(command("tracking.uri=http://me:***@host:5000").config, tmp_path, {}, None, None)
    with pytest.raises(ConfigError, match=r"tracking.uri=http://me:\*\*\*@host:5000 stands without its secret"):
        require_secrets([plan])


@pytest.mark.parametrize(("recorded", "overrides", "environment", "used"), [
    ("http://me:***@host:5000", [f"tracking.uri={ADDRESS}"], {}, ADDRESS),
    ("http://me:***@host:5000", ["tracking.uri=http://me:new-pass@host:5000"], {}, "http://me:new-pass@host:5000"),
    ("http://me:***@host:5000", [], {"MLFLOW_TRACKING_USERNAME": "me", "MLFLOW_TRACKING_PASSWORD": "x"}, "http://host:5000"),
    ("http://me:***@host:5000", [], {}, "http://me:***@host:5000"),
    ("***", ["tracking.uri=${oc.env:PRIVATE}"], {"PRIVATE": ADDRESS}, ADDRESS),
    ("***", [], {}, "sqlite:///mlflow.db"),
    ("***", ["tracking.uri=${oc.env:PRIVATE}"], {}, "***"),
    ("sqlite:///own.db", [], {}, "sqlite:///own.db"),
    ("http://old:secret@host:5000", [], {}, "http://old:secret@host:5000"),
])  # fmt: skip
def test_a_resumed_run_takes_its_secret_from_its_own_command_or_environment(
    recorded, overrides, environment, used, monkeypatch
):
    for name in ("PRIVATE", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    began = command(f"tracking.uri={ADDRESS}").config
    began["tracking"]["uri"] = recorded
    overrides = [*overrides, "training.resume=auto"]
    found = resumed_config({"config": began, "metadata": {"choices": {}}}, command(*overrides).config, overrides)
    assert found["tracking"] == {**began["tracking"], "uri": used}


def test_a_file_that_looks_something_up_itself_is_refused_still():
    began = command().config
    began["tracking"]["uri"] = "${oc.env:HOME}"
    with pytest.raises(ConfigError, match="no run records what is still to be looked up"):
        resumed_config({"config": began, "metadata": {}}, command().config, [])
