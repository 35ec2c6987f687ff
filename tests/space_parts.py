"""Search spaces, and this repository's config composed as the jobs of a multirun are."""

from functools import cache

from composed import REPOSITORY
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode
from omegaconf import OmegaConf, open_dict

from hydra_plugins.winnow_sweeper._space import SearchSpace


def space_of(*arguments, **params):
    """Return the space of ``params`` (a key's dots as double underscores) and command-line ``arguments``."""
    return SearchSpace.parse({key.replace("__", "."): value for key, value in params.items()}, list(arguments))


@cache
def composer(config_folder=REPOSITORY / "conf", config_name="config"):
    """Return ``compose(overrides) → plain config``, which goes the way of Hydra's launchers: ``load_sweep_config``."""
    with initialize_config_dir(str(config_folder)):
        loader = GlobalHydra.instance().config_loader()
        master = loader.load_configuration(config_name, overrides=[], run_mode=RunMode.MULTIRUN)

    def compose(overrides):
        config = loader.load_sweep_config(master, list(overrides))
        with open_dict(config):
            del config["hydra"]
        return OmegaConf.to_container(config, resolve=True)

    return compose
