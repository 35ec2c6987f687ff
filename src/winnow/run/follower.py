"""Every rank but the first: it gets its run plan from rank 0, fits along, and writes nothing."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

from winnow.checkpoints.class_order import ClassHead
from winnow.checkpoints.initial import initial_weights, load_initial_weights
from winnow.engine.loop import fit
from winnow.engine.ranks import Ranks
from winnow.engine.seeding import seed_everything, seed_of_rank
from winnow.engine.stop import StopRequest
from winnow.errors import DivergedError, RankError, UntrainedError, WinnowError
from winnow.masking import mask_output
from winnow.run.build import build
from winnow.run.leader import LEADER, join_peers, report_failure_to_peers
from winnow.run.plan import RunPlan
from winnow.run.resume import read_found
from winnow.run.torchrun import place_of, runs_nothing
from winnow.tracking.null_tracker import NullTracker

logger = logging.getLogger(__name__)

_WATCH_SECONDS = 0.5


def follow() -> None:
    """Train as rank 0 says, until it ends. Warnings and errors of this rank go to stderr, after its number."""
    place = place_of()
    if place is None or runs_nothing(sys.argv[1:]):
        return
    mask_output()
    # Until the training begins there is nothing to save: Ctrl-C ends the process without a word.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    logging.basicConfig(level=logging.ERROR, format=f"rank {place.rank}: %(levelname)s %(message)s")
    if LEADER in os.environ:
        threading.Thread(target=_end_with, args=(int(os.environ[LEADER]),), daemon=True).start()
    try:
        with join_peers(place) as ranks:
            plan = _wait_for_plan(ranks)
            if plan is not None:
                with report_failure_to_peers(ranks):
                    fit_along(plan, ranks)
    except (DivergedError, UntrainedError):
        raise SystemExit(1) from None  # all ranks saw it, and rank 0 says it
    except WinnowError as error:
        logger.error("%s", error)
        raise SystemExit(1) from None


def _wait_for_plan(ranks: Ranks) -> RunPlan | None:
    """Return rank 0's plan; None where it has nothing to train, or ended and said itself why."""
    try:
        return ranks.broadcast(None)
    except RankError:
        return None


def fit_along(plan: RunPlan, ranks: Ranks) -> None:
    """Build the same parts as rank 0 and fit them with it."""
    run = build(plan, NullTracker(plan.folder), ranks)
    seed_everything(seed_of_rank(plan.seed, ranks.rank))
    training, stage = plan.settings.training, plan.settings.stage
    if plan.checkpoint is not None:
        read_found(plan.checkpoint).restore(run)
    elif training.init_from is not None:  # what trains comes from rank 0, what is frozen from the file
        path = initial_weights(training.init_from, None if stage.is_alone else plan.folder.parent)
        head = ClassHead.of(run.task)
        load_initial_weights(run.task.model, path, stage.init_allow_missing, training.frozen_source, head)
    # What rank 0 warned of while building it did for all.
    logging.getLogger().setLevel(logging.WARNING)
    with StopRequest() as stop:
        fit(run, stop)


def _end_with(leader: int) -> None:
    """End this process when rank 0 does, even by SIGKILL."""
    while os.getppid() == leader:
        time.sleep(_WATCH_SECONDS)
    # Not an exception: the main thread may be waiting where none is heard. Nothing of this rank is to be saved.
    os._exit(1)


if __name__ == "__main__":
    follow()
