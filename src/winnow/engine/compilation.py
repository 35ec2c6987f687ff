"""How a model is compiled: which shapes share a program, and that evaluation runs without one."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

import torch
from torch import nn

logger = logging.getLogger(__name__)

MOST_SHAPES = 64


def compile_steps(model: nn.Module) -> None:
    """Compile the forward and backward of training at their first use, one program per shape; parameter names stay.

    A program for all shapes is made after the first few, and depends on which those were: a resumed run, which sees
    others first, would not be exact. The shapes behind the first ``MOST_SHAPES`` run uncompiled, where the same holds.
    """
    torch._dynamo.config.recompile_limit = MOST_SHAPES  # no public name yet
    model.compile(dynamic=False)
    logger.info(
        "training.compile=true: the first step of each batch shape waits for the compiler; data.resize=square and "
        "training.drop_last=true leave one shape"
    )


def uncompiled() -> AbstractContextManager[object]:
    """Run compiled models inside as if they were not: an evaluation would have programs of its own made for each shape."""
    return torch.compiler.set_stance("force_eager")
