"""What a sweep's jobs are composed of, and the files that tell of it: references and masks in the place of secrets."""

import os

import pytest
import yaml
from dispatch_parts import compose_work
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from hydra_plugins.winnow_sweeper._secrets import hide_secrets
from winnow.config.job_files import write_job_files
from winnow.config.plain import command_overrides
from winnow.masking import VARIABLE

SECRET = "s3cret-Word"
STORAGE, URI = f"postgresql://me:{SECRET}@host/db", f"http://me:{SECRET}@host:5000"


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch):
    for number in range(9):  # set once, so that they go with the test
        monkeypatch.setenv(f"{VARIABLE}{number}", "x")
    for name in [*os.environ]:
        if name.startswith(VARIABLE):
            monkeypatch.delenv(name)


def test_what_jobs_are_composed_of_holds_references_alone(tmp_path, hydra_as_before, monkeypatch):
    monkeypatch.setenv("MINE", f"from-environment-{SECRET}")
    work = compose_work(
        tmp_path, "hydra/sweeper=winnow", f"+tracking.uri={URI}",
        "+own.mine=${oc.env:MINE}", f"hydra.sweeper.storage='{STORAGE}?x=1'",
        "hydra.sweeper.n_trials=3",
    )  # fmt: skip
    config = work.config
    arguments = hide_secrets(config, command_overrides(config.hydra.overrides.task))
    assert arguments == ["+tracking.uri=${oc.env:WINNOW_SECRET_0}", "+own.mine=${oc.env:MINE}"]
    assert SECRET not in OmegaConf.to_yaml(config)
    assert SECRET not in OmegaConf.to_yaml(HydraConfig.instance().cfg)
    assert (config.tracking.uri, config.hydra.sweeper.storage) == (URI, f"{STORAGE}?x=1")
    job = work.hydra_context.config_loader.load_sweep_config(
        config, arguments
    )  # Hydra finds sweeper and launcher unchanged
    assert (job.tracking.uri, job.hydra.sweeper.storage, job.hydra.output_subdir) == (URI, f"{STORAGE}?x=1", None)
    assert SECRET not in OmegaConf.to_yaml(job)


def test_files_of_a_job_are_as_hydras_and_masked(tmp_path, hydra_as_before):
    work = compose_work(
        tmp_path,
        "hydra/sweeper=winnow",
        f"+tracking={{uri: '{URI}', api_key: abc}}",
        f'+place="//h?token={SECRET}"',
        "hydra.output_subdir=files",
    )
    config = work.config
    OmegaConf.set_readonly(config.hydra, False)
    OmegaConf.update(config, "hydra.runtime.output_dir", str(tmp_path / "job"), force_add=True)
    HydraConfig.instance().set_config(config)
    own = OmegaConf.masked_copy(config, [key for key in config if key != "hydra"])
    write_job_files(own)
    texts = {path.name: path.read_text() for path in (tmp_path / "job/files").iterdir()}
    assert set(texts) == {"config.yaml", "hydra.yaml", "overrides.yaml"}
    assert not any(SECRET in text for text in texts.values())
    found = yaml.safe_load(texts["config.yaml"])
    assert found["tracking"] == {"uri": "http://me:***@host:5000", "api_key": "***"}
    assert (found["place"], found["x"]) == ("//h?token=***", 0)
    assert yaml.safe_load(texts["hydra.yaml"])["hydra"]["sweeper"]["n_trials"] == 20
    assert yaml.safe_load(texts["overrides.yaml"])[1] == '+place="//h?token=***"'
