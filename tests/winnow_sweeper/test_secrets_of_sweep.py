"""A sweep's secrets: by the environment to its jobs, never into what is recorded; a masked address is the same as a whole one."""

import os

import pytest
import yaml
from omegaconf import OmegaConf
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._definition import Definition
from hydra_plugins.winnow_sweeper._secrets import (
    by_reference,
    environment_of_jobs,
    require_secrets,
    shown_storage,
    storage_reference,
)
from hydra_plugins.winnow_sweeper._trials_file import read_trials
from winnow.errors import ConfigError
from winnow.masking import VARIABLE, masked, referred_to
from winnow.sweep.outcome import Outcome
from winnow.sweep.promotion_command import usable_overrides
from winnow.sweep.stored_study import KEYS, StoredStudy

SECRET = "s3cret-Word"
STORAGE, URI = f"postgresql://me:{SECRET}@host/db", f"http://me:{SECRET}@host:5000"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for name in [*os.environ]:
        if name.startswith((VARIABLE, "MLFLOW_", "PG")):
            monkeypatch.delenv(name)
    for number in range(9):  # set once, so that they go with the test
        monkeypatch.setenv(f"{VARIABLE}{number}", "x")
        monkeypatch.delenv(f"{VARIABLE}{number}")


def test_an_override_with_a_secret_becomes_a_reference_and_one_that_looks_it_up_stays():
    assert by_reference("x=1") == "x=1"
    assert by_reference("+tracking.uri=${oc.env:MINE}") == "+tracking.uri=${oc.env:MINE}"
    assert by_reference(f"++tracking.uri='{URI}?a=b'") == "++tracking.uri=${oc.env:WINNOW_SECRET_0}"
    assert by_reference("uri='http://me:it\\'s@host'") == "uri=${oc.env:WINNOW_SECRET_1}"
    assert by_reference("~x.y=http://host") == "~x.y=http://host"
    assert by_reference("x=choice('http://a','http://b')") == "x=choice('http://a','http://b')"
    assert by_reference(f"x=[a,'{URI}',3]") == "x=[a,'${oc.env:WINNOW_SECRET_2}',3]"
    assert list(environment_of_jobs().values()) == [f"{URI}?a=b", "http://me:it's@host", URI]
    with pytest.raises(ConfigError, match=r"tracking.uri=choice\(.*\*\*\*@.*: a secret can't be searched"):
        by_reference(f"tracking.uri=choice('{URI}',a)")


@pytest.mark.parametrize(("storage", "shown", "travels"), [
    ("study.journal", "study.journal", False),
    (STORAGE, "postgresql://me:***@host/db", True),
    ("${oc.env:MINE}", "***", True),
])  # fmt: skip
def test_a_study_is_recorded_and_handed_to_jobs_without_its_secret(storage, shown, travels, monkeypatch):
    monkeypatch.setenv("MINE", "postgresql://host/db")
    config = OmegaConf.create({"hydra": {"sweeper": {"storage": storage}}})
    address = config.hydra.sweeper.storage
    assert shown_storage(config, address) == shown
    assert shown_storage(config, None) is None
    reference = storage_reference(config, address)
    assert (reference != address) == travels
    assert referred_to(reference) == address
    monkeypatch.delenv("WINNOW_SECRET_0", raising=False)
    if travels:
        with pytest.raises(LookupError, match="WINNOW_SECRET_0 is not in this process's environment"):
            referred_to(reference)


def test_a_masked_address_is_no_change_of_a_study():
    def definition(place):
        base = {"data": {"place": place}, "x": 1}
        return Definition.of(space_of(x="choice(1,2)"), base, ["maximize"], None, None, None)

    old = definition(f"https://me:{SECRET}@host/a")
    assert SECRET not in old.to_json()
    assert Definition.from_json(old.to_json()).differences(definition(f"https://me:{SECRET}@host/a")) == []
    earlier = old.to_json().replace("***", "an-earlier-versions")
    assert Definition.from_json(earlier).differences(definition(f"https://me:{SECRET}@host/a")) == []
    assert old.differences(definition("https://me:x@host/b")) == [
        'data.place: "https://me:***@host/a" in the study, "https://me:***@host/b" now'
    ]


@pytest.mark.parametrize("value", [URI, f"choice(a,'{URI}')"])
def test_what_a_study_records_may_hold_no_secret(value):
    with pytest.raises(ConfigError, match="holds a secret, and a study records what it searches"):
        space_of(tracking__uri=value)


def test_a_listed_trial_may_hold_no_secret(tmp_path):
    (tmp_path / "t.yaml").write_text(f"- {{x: 1, tracking.uri: '{URI}'}}\n")
    with pytest.raises(ConfigError, match=r"line 1: tracking.uri=.*\*\*\*@host.*: it holds a secret"):
        read_trials(tmp_path / "t.yaml", space_of(x="choice(1,2)"), composer())


def test_a_sweep_refuses_an_address_as_it_is_recorded():
    require_secrets({"tracking": {"uri": URI}})
    require_secrets({"x": "***"})
    with pytest.raises(ConfigError, match=r"tracking.uri=http://me:\*\*\*@host:5000 stands without its secret"):
        require_secrets({"tracking": {"uri": masked(URI)}})


def test_a_promotion_takes_secrets_from_its_own_command_or_environment(monkeypatch):
    recorded = ["training.max_epochs=2", f"tracking.uri={masked(URI)}"]
    with pytest.raises(
        ConfigError, match=r"the study began with tracking.uri=http://me:\*\*\*@host:5000, whose secret"
    ):
        usable_overrides(recorded, [])
    assert usable_overrides(recorded, [f"tracking.uri={URI}"]) == recorded[:1]
    assert usable_overrides(recorded, ["tracking=off"]) == recorded[:1]
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    assert usable_overrides(recorded, []) == [recorded[0], "tracking.uri=http://host:5000"]


@pytest.mark.parametrize("storage", [masked(STORAGE), "***"])
def test_a_stored_study_is_not_opened_by_a_masked_address(storage, tmp_path, monkeypatch):
    monkeypatch.delenv("OPTUNA_STORAGE", raising=False)
    description = {
        "study_name": "s", "storage": storage, "metric": "x", "overrides": [], "hydra_overrides": [], "search_path": [],
        "definition": {"search_space": {}, "directions": ["maximize"], "base": {}, "pruner": None},
    }  # fmt: skip
    assert list(description) == list(KEYS)
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(description))
    with pytest.raises(ConfigError, match="without its secret; give it whole by --storage or OPTUNA_STORAGE"):
        StoredStudy.open(tmp_path)
    with pytest.raises(ConfigError, match="holds no study named 's'"):
        StoredStudy.open(tmp_path, f"{tmp_path}/other.journal")
    if storage == "***":
        monkeypatch.setenv("OPTUNA_STORAGE", f"{tmp_path}/other.journal")
        with pytest.raises(ConfigError, match="other.journal holds no study named 's'"):
            StoredStudy.open(tmp_path)


def test_an_outcomes_reason_is_stored_masked():
    assert SECRET not in Outcome("failed", reason=f"can't reach {URI}").to_json()
    assert Outcome.from_json(Outcome("failed").to_json()).reason is None
