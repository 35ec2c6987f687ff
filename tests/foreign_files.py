"""Checkpoints as other programs write them, in their exact layouts, for a model and an optimizer that have made some steps."""

from __future__ import annotations

import argparse
import os

import numpy as np
import torch
from safetensors.torch import save_file


class Bomb:
    """Makes a folder ``exploded`` where a file that holds it is read with code."""

    def __reduce__(self):
        return os.mkdir, ("exploded",)


def trained(model, inputs, steps=3, seed=1):
    """Return ``model`` after some steps of AdamW from other weights, and that optimizer."""
    torch.manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
    for _ in range(steps):
        optimizer.zero_grad()
        model(inputs).square().mean().backward()
        optimizer.step()
    return model, optimizer


def prefixed(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def lightning(model, optimizer, epochs, step):
    """Return what ModelCheckpoint of Lightning 2.6 saved at the end of an epoch: compared key by key with a real file once."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    done = {"ready": epochs, "completed": epochs - 1, "started": epochs, "processed": epochs}
    return {
        "epoch": epochs - 1, "global_step": step, "pytorch-lightning_version": "2.6.6",
        "state_dict": prefixed("model.", model.state_dict()),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": done, "current": done}}},
        "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": {"best_model_score": torch.tensor(2.5), "dirpath": "/x"}},
        "optimizer_states": [optimizer.state_dict()], "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs", "hyper_parameters": {"lr": 0.01, "channels": (8, 16)},
    }  # fmt: skip


def layouts(model, optimizer, epochs=2, step=12):
    """Name → content of every layout; what each lacks is in its name."""
    state, moments = model.state_dict(), optimizer.state_dict()
    flat, nested = {"lr": 0.5, "batch_size": 4}, {"training": {"optimizer": {"lr": 0.5}}, "model": {"depth": 3}}
    whole = {"model_state_dict": state, "optimizer_state_dict": moments, "epoch": epochs}
    return {
        "model": {"model": state, "epoch": epochs, "args": argparse.Namespace(lr=0.5)},
        "state_dict": {"state_dict": state, "epoch": epochs, "best": np.float64(0.5)},
        "encoder_state_dict": {"encoder_state_dict": state, "epoch": epochs},
        "with scheduler and flat config": {
            **whole, "scheduler_state_dict": {"last_epoch": 3}, "config": flat, "step": step,
        },
        "without scheduler, nested config": {**whole, "config": nested},
        "no config": whole,
        "lightning": lightning(model, optimizer, epochs, step),
        "bare": state,
        "module": {**whole, "model_state_dict": prefixed("module.", state)},
        "compiled": {"model": prefixed("_orig_mod.", state)},
        "both": {"model": prefixed("_orig_mod.module.", state)},
        "averaged": {**whole, "ema_state_dict": {"n_averaged": torch.tensor(3), **prefixed("module.", state)}},
    }  # fmt: skip


def save(content, path):
    """Save as safetensors where the name says so, else as torch.save does."""
    if path.suffix == ".safetensors":
        save_file(content, path)
    else:
        torch.save(content, path)
    return path
