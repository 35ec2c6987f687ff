"""What torchrun tells each process it starts, and what winnow refuses under it; read before anything heavy is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from winnow.errors import ConfigError

# Flags with which Hydra prints something and runs nothing: rank 0 does that alone.
_PRINTS = ("--help", "-h", "--hydra-help", "--version", "--cfg", "-c", "--info", "-i", "--shell-completion", "-sc")
_SWEEPS = ("-m", "--multirun")


@dataclass(frozen=True)
class Place:
    """``rank`` of ``size`` processes; ``local_rank`` of ``local_size`` on this machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int


def place_of(environment: Mapping[str, str] = os.environ) -> Place | None:
    """Return the place that torchrun, or rank 0 in its stead, gave this process; None for one that runs alone."""
    if "RANK" not in environment or int(environment.get("WORLD_SIZE", "1")) == 1:
        return None
    size = environment["WORLD_SIZE"]
    rank = environment["RANK"]
    names = (rank, size, environment.get("LOCAL_RANK", rank), environment.get("LOCAL_WORLD_SIZE", size))
    return Place(*map(int, names))


def is_follower(environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether another process composes the config and writes the files."""
    place = place_of(environment)
    return place is not None and place.rank > 0


def runs_nothing(arguments: Sequence[str]) -> bool:
    """Tell whether a command line only prints, or is a sweep, which rank 0 refuses."""
    return any(argument.split("=")[0] in (*_PRINTS, *_SWEEPS) for argument in arguments)


def refuse_sweep(arguments: Sequence[str]) -> None:
    """Raise ConfigError for a multirun under torchrun: each of its ranks would run the whole sweep."""
    if place_of() is not None and any(argument in _SWEEPS for argument in arguments):
        raise ConfigError(
            "torchrun can't start a multirun, each of its ranks would run the whole sweep; start it without torchrun and "
            "give training.num_ranks=N: each job then starts its own ranks"
        )
