"""A map model as a task: what it is given, what it learns from, and the lines it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from winnow.families.maps.batch import MapBatch
from winnow.families.maps.frame import Region
from winnow.families.maps.model.decoder import MapOutputs
from winnow.families.maps.model.losses import MapCriterion
from winnow.families.maps.model.matching import LineTargets
from winnow.families.maps.model.network import MapNetwork
from winnow.families.maps.model.positions import RayCache
from winnow.families.maps.predictions import MapPredictions, top_lines
from winnow.protocols import Metric

TERMS = ("loss_class", "loss_points", "loss_direction")


class MapTask:
    """Scores are sigmoids over query × class; there is no class for "no line"."""

    counted_by: Mapping[str, str] = {f"{term}{layers}": "lines" for layers in ("", "_aux") for term in TERMS}

    def __init__(
        self,
        model: MapNetwork,
        classes: Sequence[str],
        new_metric: Callable[[], Metric],
        criterion: MapCriterion,
        region: Region,
        max_lines: int,
    ) -> None:
        self.model: nn.Module = model
        self.classes = tuple(classes)
        self.criterion = criterion
        self._new_metric = new_metric
        self._region = region
        self._max_lines = max_lines
        self._rays = RayCache(model.qformer.tokens_per_camera)

    @property
    def class_rows(self) -> dict[str, int]:
        """Return the entries that hold a row per class: the class head of each decoder layer."""
        return {name: 1 for name in self.model.state_dict() if name.startswith("decoder.class_heads.")}

    @property
    def num_instances(self) -> int:
        """Return the most lines that a sample may hold."""
        return len(cast(MapNetwork, self.model).queries.references)

    def new_metric(self) -> Metric:
        return self._new_metric()

    def forward(self, batch: MapBatch) -> MapOutputs:
        """Run the network, which normalises the uint8 images itself."""
        grid = cast(MapNetwork, self.model).vision.grid(*batch.shape[1:])
        outputs: MapOutputs = self.model(batch.images, self._rays(batch, grid))
        return outputs

    def loss_count(self, batch: MapBatch) -> dict[str, float]:
        """Return the number of positives: the true lines that a query can be matched with."""
        return {"lines": float(sum(min(len(target.labels), self.num_instances) for target in batch.targets))}

    def losses(self, outputs: MapOutputs, batch: MapBatch, count: Mapping[str, float]) -> dict[str, Tensor]:
        """Return ``loss_class``, ``loss_points``, ``loss_direction`` of the last decoder layer, and ``…_aux`` summed over the
        others."""
        corner, sides = self._corner_and_sides(outputs.points.device)
        targets = LineTargets.of(batch.targets, corner, sides)
        return self.criterion(outputs.logits, outputs.points, targets, sides, count["lines"])

    @torch.no_grad()
    def predictions(self, outputs: MapOutputs, batch: MapBatch) -> list[MapPredictions]:
        """Return the ``evaluation.max_lines`` best pairs of a query and a class, in metres."""
        del batch
        corner, sides = self._corner_and_sides(outputs.points.device)
        points, scores = outputs.points[-1] * sides + corner, outputs.logits[-1].float().sigmoid()
        return [top_lines(*one, self._max_lines) for one in zip(points.cpu(), scores.cpu(), strict=True)]

    def _corner_and_sides(self, device: torch.device) -> tuple[Tensor, Tensor]:
        region = self._region
        corner = torch.tensor(region.bounds()[:2]).to(device, non_blocking=True)
        return corner, torch.tensor([region.width, region.length]).to(device, non_blocking=True)
