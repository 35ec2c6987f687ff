"""Whether a network sees the same object in both modalities alike, with the controls without which that says nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import matplotlib.figure
import numpy as np
import torch
from torch import Tensor

from winnow.families.detection.models.faster_rcnn import image_list, in_float32, torchvision_targets
from winnow.families.pairs.batch import MODALITIES, PairBatch
from winnow.families.pairs.models.fusion import Pyramid
from winnow.families.pairs.models.macl import AlignmentHead, background_boxes, chance, contrast, masked_candidates
from winnow.families.pairs.models.task import PairFasterRcnnTask, shown_in_both

NUM_CROPS = 49
"""Crops among which the true one is sought."""


@dataclass(frozen=True)
class SeenPair:
    """A held-out pair: its pyramids by modality, with a batch dimension of 1; ``boxes`` (n, 4) of the objects that both
    images show; its ``size`` as height and width, and the ``seed`` of its background."""

    pyramids: dict[str, Pyramid]
    boxes: Tensor
    size: tuple[int, int]
    seed: int


@dataclass(frozen=True)
class Ranks:
    """At which place, from 0, each object's right answer came, and among how many candidates on average."""

    places: Tensor
    num_candidates: float

    def numbers(self, name: str) -> dict[str, float]:
        """Return R@1 and the mean place from 1, by ``name``."""
        places = self.places.double()
        return {
            f"{name}_r1": float((places == 0).double().mean()),
            f"{name}_rank": float(places.mean()) + 1,
            f"{name}_chance": 1 / self.num_candidates,
        }


@dataclass
class Alignment:
    """Gathers held-out pairs of one size, and measures.

    The visible crop of an object asks for its infrared one; ``retrieval``: among those of all objects; ``same_box``:
    among 49 crops of the same box, its own and those of 48 other images, so that place and size say nothing;
    ``place_only``: as retrieval, but each infrared crop is that of the same box in the next pair, so that nothing else
    does; ``in_pair``: among the other objects and the background of its pair, which is what the loss trains.

    Most of the 48 wrong crops of ``same_box`` hold background, so whoever tells objects from background passes it. Two
    controls say whether more was learnt: ``stranger``: same box, but the visible crop of an object of another pair asks;
    ``other_objects``: the true crop among those of 48 objects of other pairs.
    """

    head: AlignmentHead
    pairs: list[SeenPair] = field(default_factory=list)

    @torch.inference_mode()
    def add(self, task: PairFasterRcnnTask, batch: PairBatch) -> None:
        """Look at the pairs of ``batch``; the model must be in evaluation mode."""
        modalities = {name: in_float32(pyramid) for name, pyramid in task.forward(batch).modalities.items()}
        targets, sizes = torchvision_targets(batch), image_list(batch).image_sizes
        for row, shown in enumerate(shown_in_both(batch)):
            pyramids = {name: _row(pyramid, row) for name, pyramid in modalities.items()}
            self.pairs.append(SeenPair(pyramids, targets[row]["boxes"][shown], sizes[row], batch.seeds[row]))

    @torch.inference_mode()
    def numbers(self) -> dict[str, float]:
        """Return R@1, mean rank (from 1) and the R@1 of chance of each retrieval, the in-pair R@1 of who knows objects from
        background and guesses which, and the loss of an object with its chance, ln of the candidates.

        Raises ValueError where there are fewer than 49 pairs.
        """
        if len(self.pairs) < NUM_CROPS:
            raise ValueError(f"{len(self.pairs)} pairs; alignment is measured among {NUM_CROPS} images at least")
        visible, infrared = self.objects()
        elsewhere = torch.cat([
            self._crops(self.pairs[(row + 1) % len(self.pairs)], "infrared", pair.boxes)
            for row, pair in enumerate(self.pairs)
        ])  # fmt: skip
        return (
            _among_all(visible, infrared).numbers("retrieval")
            | self._same_box(visible).numbers("same_box")
            | self._same_box(self._strangers(visible)).numbers("stranger")
            | self._other_objects(visible, infrared).numbers("other_objects")
            | _among_all(visible, elsewhere).numbers("place_only")
            | self._in_pair()
        )

    @torch.inference_mode()
    def objects(self) -> tuple[Tensor, Tensor]:
        """Return the (N, 128) visible and infrared projections of all objects."""
        visible, infrared = (
            torch.cat([self._crops(pair, name, pair.boxes) for pair in self.pairs]) for name in MODALITIES
        )
        return visible, infrared

    def _crops(self, pair: SeenPair, modality: str, boxes: Tensor) -> Tensor:
        return self.head(pair.pyramids[modality], [boxes], [pair.size])

    def _owners(self) -> list[int]:
        """Return the pair of each object."""
        return [row for row, pair in enumerate(self.pairs) for _ in pair.boxes]

    def _strangers(self, visible: Tensor) -> Tensor:
        """Return for each object the projection of the next one that is of another pair."""
        owners = self._owners()
        return visible[[_in_others(owners, number)[0] for number in range(len(owners))]]

    def _other_objects(self, visible: Tensor, infrared: Tensor) -> Ranks:
        owners = self._owners()
        places = []
        for number in range(len(owners)):
            others = _in_others(owners, number)[: NUM_CROPS - 1]
            places.append(_place(infrared[[number, *others]] @ visible[number], 0))
        return Ranks(torch.tensor(places), NUM_CROPS)

    def _same_box(self, visible: Tensor) -> Ranks:
        owners = self._owners()
        boxes = torch.cat([pair.boxes for pair in self.pairs])
        # (images, objects, 128): every image at the box of every object.
        crops = torch.stack([self._crops(pair, "infrared", boxes) for pair in self.pairs])
        places = []
        for number, owner in enumerate(owners):
            rows = [(owner + step) % len(self.pairs) for step in range(NUM_CROPS)]
            places.append(_place(crops[rows, number] @ visible[number], 0))
        return Ranks(torch.tensor(places), NUM_CROPS)

    def _in_pair(self) -> dict[str, float]:
        places, candidates, losses, chances = [], [], 0.0, 0.0
        for pair in (pair for pair in self.pairs if len(pair.boxes) > 0):
            regions = torch.cat([pair.boxes, background_boxes(pair.boxes, pair.size, pair.seed)])
            visible, infrared = (self._crops(pair, name, regions) for name in MODALITIES)
            is_positive = torch.ones(len(pair.boxes), dtype=torch.bool, device=regions.device)
            losses += float(contrast(visible, infrared, regions, is_positive, self.head.temperature))
            chances += float(chance(regions, is_positive))
            is_masked = masked_candidates(regions, torch.arange(len(pair.boxes), device=regions.device))
            scores = (visible[: len(pair.boxes)] @ infrared.T).masked_fill(is_masked, -math.inf)
            places += [_place(of_object, row) for row, of_object in enumerate(scores)]
            candidates += (~is_masked).sum(dim=1).tolist()
        ranks = Ranks(torch.tensor(places), sum(candidates) / len(candidates))
        losses, chances = losses / len(places), chances / len(places)
        guess = sum(len(pair.boxes) > 0 for pair in self.pairs) / len(places)
        return ranks.numbers("in_pair") | {
            "in_pair_guess": guess, "loss_per_object": losses, "loss_of_chance": chances
        }  # fmt: skip


def measure_alignment(
    task: PairFasterRcnnTask, head: AlignmentHead, batches: Iterable[PairBatch]
) -> tuple[Alignment, dict[str, float]]:
    """Return what ``head`` makes of the objects of ``batches`` and how well they are aligned."""
    task.model.eval()
    alignment = Alignment(head.eval())
    for batch in batches:
        alignment.add(task, batch)
    return alignment, alignment.numbers()


def draw_alignment(visible: Tensor, infrared: Tensor, path: Path, title: str) -> None:
    """Write a PNG of the projections (N, D) on the first two principal components of both together, a line joining what belongs
    together. A picture only: how near two points lie on two components says little."""
    both = torch.cat([visible, infrared]).double().cpu().numpy()
    centred = both - both.mean(axis=0)
    components = np.linalg.svd(centred, full_matrices=False)[2][:2]
    first, second = np.split(centred @ components.T, 2)
    figure = matplotlib.figure.Figure(figsize=(6, 6), layout="constrained")
    axes = figure.subplots()
    for one, other in zip(first, second, strict=True):
        axes.plot(*zip(one, other, strict=True), color="0.75", linewidth=0.6, zorder=1)
    for points, name, colour in ((first, "visible", "tab:blue"), (second, "infrared", "tab:red")):
        axes.scatter(points[:, 0], points[:, 1], s=12, color=colour, label=name, zorder=2)
    axes.set(title=title, xlabel="first principal component", ylabel="second principal component")
    axes.legend()
    figure.savefig(path)


def _among_all(asked: Tensor, answers: Tensor) -> Ranks:
    scores: Sequence[Tensor] = list(asked @ answers.T)
    return Ranks(torch.tensor([_place(row, number) for number, row in enumerate(scores)]), len(answers))


def _in_others(owners: Sequence[int], number: int) -> list[int]:
    """Return the objects of other pairs than object ``number`` is of, from the next one on."""
    rows = [(number + step) % len(owners) for step in range(1, len(owners))]
    return [row for row in rows if owners[row] != owners[number]]


def _place(scores: Tensor, right: int) -> int:
    """Return how many candidates come before the right one; those that score the same do."""
    return int((scores >= scores[right]).sum()) - 1


def _row(pyramid: Pyramid, row: int) -> Pyramid:
    return Pyramid((level, features[[row]]) for level, features in pyramid.items())
