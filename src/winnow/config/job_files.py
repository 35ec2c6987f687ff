"""``.hydra/{config,hydra,overrides}.yaml`` of a job, written here and not by Hydra, which would write down its secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from winnow.masking import has_secret, masked, masked_override, masked_tracking, masked_tree
from winnow.run_folder import write_whole

_SUBFOLDER = ".hydra"


def write_job_files(cfg: DictConfig) -> None:
    """Write what the running job, whose config is ``cfg``, was composed of, as Hydra does; every secret is ``***``. What Hydra
    has written already, where a project's conf/ does not keep it from that, is replaced, and so is the ``multirun.yaml`` of
    Hydra's own sweeper. Raises OSError."""
    job = HydraConfig.instance().cfg
    assert isinstance(job, DictConfig)
    folder = Path(job.hydra.runtime.output_dir) / (job.hydra.output_subdir or _SUBFOLDER)
    folder.mkdir(parents=True, exist_ok=True)
    own = _plain(cfg)
    if "tracking" in own:
        own["tracking"] = masked_tracking(own["tracking"])
    written = OmegaConf.to_container(job.hydra.overrides.task, resolve=False)
    assert isinstance(written, list)
    overrides = [masked_override(text) for text in written]
    for name, content in (("config", own), ("hydra", _plain(job)), ("overrides", overrides)):
        write_whole(folder / f"{name}.yaml", OmegaConf.to_yaml(OmegaConf.create(masked_tree(content))))

    multirun = Path(str(job.hydra.sweep.dir)) / "multirun.yaml"
    if job.hydra.mode == RunMode.MULTIRUN and multirun.is_file() and has_secret(text := multirun.read_text()):
        write_whole(multirun, masked(text))


def _plain(cfg: DictConfig) -> dict[str, Any]:
    found = OmegaConf.to_container(cfg, resolve=False, enum_to_str=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}
