"""Rank 0's side of a run on many ranks: who the others are, and starting them."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence

import torch
import torch.distributed as dist

from winnow.engine.ranks import ALONE, TIMEOUT, Ranks, joined
from winnow.errors import ConfigError, RankError
from winnow.run.program import environment_of_children
from winnow.run.torchrun import Place, place_of

logger = logging.getLogger(__name__)

LEADER = "WINNOW_LEADER"
_END_SECONDS = 10.0


@contextlib.contextmanager
def ranks_of_run(asked: int | None) -> Iterator[Ranks]:
    """Give the ranks of a run, this process being the first: those that torchrun started, or else ``asked``
    (training.num_ranks), of which the others are started here and end with this context. Raises ConfigError where the two
    contradict each other."""
    place = place_of()
    if place is None and asked in (None, 1):
        yield ALONE
    elif place is None:
        assert asked is not None
        with start_followers(asked) as ranks:
            yield ranks
    elif asked not in (None, place.size):
        raise ConfigError(f"training.num_ranks={asked}, but torchrun started {place.size}; set it to null")
    else:
        with join_peers(place) as ranks, report_failure_to_peers(ranks):
            yield ranks


@contextlib.contextmanager
def join_peers(place: Place) -> Iterator[Ranks]:
    """Meet the ranks that share this process's environment variables MASTER_ADDR and MASTER_PORT."""
    store, _, _ = next(dist.rendezvous("env://", timeout=TIMEOUT))
    own = Ranks(place.rank, place.size, place.local_rank, place.local_size)
    with joined(dist.PrefixStore("winnow", store), own, lambda: None) as ranks:
        yield ranks


@contextlib.contextmanager
def start_followers(size: int) -> Iterator[Ranks]:
    """Run this process and ``size`` − 1 followers on this machine."""
    store = dist.TCPStore("127.0.0.1", 0, size, is_master=True, wait_for_workers=False, timeout=TIMEOUT)
    with shared_threads(size) as num_threads:
        followers = [_start(rank, size, store.port, num_threads) for rank in range(1, size)]
        try:
            # torch keeps a store's keys by prefix under its own rendezvous as well.
            shared = dist.PrefixStore("winnow", store)
            own = Ranks(0, size, 0, size)
            with joined(shared, own, lambda: _require_all(followers)) as ranks, report_failure_to_peers(ranks):
                yield ranks
        finally:
            _end(followers)


@contextlib.contextmanager
def report_failure_to_peers(ranks: Ranks) -> Iterator[None]:
    """Tell the other ranks why this rank fails, where it does."""
    try:
        yield
    except RankError:
        raise
    except BaseException as error:
        ranks.tell(f"{type(error).__name__}: {error}")
        raise


@contextlib.contextmanager
def shared_threads(size: int) -> Iterator[int]:
    """Share the cores of this machine among its ``size`` ranks; give the number of threads that each computes with.
    OMP_NUM_THREADS is obeyed."""
    before = torch.get_num_threads()
    share = before if "OMP_NUM_THREADS" in os.environ else max(1, before // size)
    torch.set_num_threads(share)
    try:
        yield share
    finally:
        torch.set_num_threads(before)


def _start(rank: int, size: int, port: int, num_threads: int) -> subprocess.Popen[bytes]:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "OMP_NUM_THREADS": num_threads, LEADER: os.getpid()}
    # A package that trusted_targets names must be found by the followers as it is here.
    path = {"PYTHONPATH": os.pathsep.join(sys.path)}
    quiet = {
        "TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")
    }  # a lost connection is said in one line
    environment = (
        environment_of_children() | quiet | {name: str(value) for name, value in (place | meeting | path).items()}
    )
    # In a session of its own: the terminal's Ctrl-C is rank 0's to hear, and all stop at the same step.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "winnow.run.follower"],
        env=environment,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )


def _require_all(followers: Sequence[subprocess.Popen[bytes]]) -> None:
    for rank, follower in enumerate(followers, start=1):
        if follower.poll() is not None:
            raise RankError(f"rank {rank} ended before training began, {_how(follower.returncode)}")


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"


def _end(followers: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait for the followers, which end by themselves once rank 0 has left them; kill one that does not: it owns no file."""
    for rank, follower in enumerate(followers, start=1):
        try:
            follower.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            logger.warning("rank %d did not end within %.0f s and is killed", rank, _END_SECONDS)
            follower.kill()
            follower.wait()
