"""Every model of winnow keeps the contract of ``protocols.Task``."""

import copy
from collections import OrderedDict
from functools import partial

import pytest
import torch
from composed import compose_plain
from detection_parts import batch, target
from ink_parts import SETTINGS, some, tiles
from map_model_parts import seen, tiny_map_task
from pair_model_parts import pair_batch, persons, tiny_task
from torch import nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from winnow.families.detection.metrics.coco_ap import CocoAp
from winnow.families.detection.models.deformable_detr import deformable_detr, deformable_detr_tiny
from winnow.families.detection.models.faster_rcnn import FasterRcnnModel, FasterRcnnTask, faster_rcnn_r50_fpn
from winnow.families.detection.models.fcos_mobilenet_v2 import fcos_mobilenet_v2
from winnow.families.detection.models.fcos_r50_fpn import fcos_r50_fpn
from winnow.families.detection.models.fcos_tiny import fcos_tiny
from winnow.families.ink.metric import InkMetric
from winnow.families.ink.model.inktrace import inktrace
from winnow.families.pairs.batch import PairBatch
from winnow.testing.task import TaskContract

CLASSES = ["car", "bus", "bike"]
SIZE = (64, 64)


class DetectionTaskContract(TaskContract):
    """On images of noise with none, one or several boxes."""

    boxes = (
        ([[4, 4, 40, 44], [20, 10, 62, 60]], [0, 1]), ([], []), ([[2, 20, 50, 50]], [2]),
        ([[30, 30, 60, 60], [1, 1, 30, 28], [8, 8, 56, 56]], [1, 0, 2]),
    )  # fmt: skip
    make = None
    changes: dict = {}  # noqa: RUF012
    built: dict = {}  # noqa: RUF012

    def make_task(self):
        """Return a copy of the one whose weights were drawn."""
        if type(self) not in self.built:
            torch.manual_seed(0)
            self.built[type(self)] = self.build()
            self.settle(self.built[type(self)])
        return copy.deepcopy(self.built[type(self)])

    def build(self):
        values = compose_plain(f"model={self.name}")["model"]
        values = (
            {key: value for key, value in values.items() if key != "_target_"} | {"pretrained": False} | self.changes
        )
        return type(self).make(CLASSES, partial(CocoAp, CLASSES), 20, 0.05, **values)

    def settle(self, task):
        """Leave nothing to chance."""

    def make_batch(self, samples):
        return self.images(samples, SIZE)

    def make_padded_batch(self, samples):
        return self.images(samples, (96, 96))

    def make_batch_without_targets(self):
        return batch(*(target([], [], SIZE, image_id=number) for number in (10, 11)))

    def images(self, samples, padded):
        """Return images, each the same whatever it is batched with."""
        size = (min(SIZE[0], padded[0]), min(SIZE[1], padded[1]))
        each = []
        for sample in samples:
            boxes, labels = self.boxes[sample]
            boxes = [[side * size[0] / SIZE[0] for side in box] for box in boxes]
            each.append(batch(target(boxes, labels, size, image_id=sample), padded=padded, seed=sample))
        images, mask = (torch.cat([getattr(one, name) for one in each]) for name in ("images", "pixel_mask"))
        return type(each[0])(
            images.contiguous(memory_format=torch.channels_last), mask, [one.targets[0] for one in each]
        )


class TestFcosTiny(DetectionTaskContract):
    name, make = "fcos_tiny", fcos_tiny
    changes = {"channels": [8, 8, 16, 16], "head_channels": 32, "head_convs": 1}  # noqa: RUF012
    padding_tolerance = 1.5


class TestFcosMobilenetV2(DetectionTaskContract):
    name, make = "fcos_mobilenet_v2", fcos_mobilenet_v2
    changes = {"head_channels": 32, "head_convs": 1}  # noqa: RUF012
    padding_tolerance = 1.5


class TestDeformableDetrTiny(DetectionTaskContract):
    """What padding changes hangs on the random start, and transformers 5.23 draws the box heads of a fresh network once more
    than 5.17 does. Of 40 starts by either the median is 0.011 and the largest 0.045; the same weights give the same in both."""

    name, make = "deformable_detr_tiny", deformable_detr_tiny
    changes = {"d_model": 32, "ffn_dim": 64, "num_queries": 10, "channels": [8, 8, 16, 16, 32]}  # noqa: RUF012
    padding_tolerance = 0.06


class TestFasterRcnn(DetectionTaskContract):
    """It draws anchors and proposals at random and takes means over them: here it samples every anchor and every
    proposal, as many in each image, so that nothing is left to chance and a mean over images is one over samples."""

    padding_tolerance = 0.15
    boxes = (
        ([[4, 4, 40, 44], [20, 10, 62, 60]], [0, 1]), ([[5, 5, 30, 60], [3, 30, 60, 62]], [2, 2]),
        ([[2, 20, 50, 50], [10, 1, 60, 30]], [2, 0]), ([[30, 30, 60, 60], [1, 1, 30, 28]], [1, 0]),
    )  # fmt: skip

    def build(self):
        """Build the task of ``faster_rcnn_r50_fpn`` around a thin network."""
        network = FasterRCNN(
            ThinBackbone(), rpn_anchor_generator=AnchorGenerator(((16,), (32,)), ((0.5, 1.0, 2.0),) * 2),
            box_roi_pool=MultiScaleRoIAlign(["0", "1"], 7, 2), box_head=TwoMLPHead(8 * 49, 32),
            box_predictor=FastRCNNPredictor(32, len(CLASSES) + 1),
        )  # fmt: skip
        return FasterRcnnTask(FasterRcnnModel(network), CLASSES, partial(CocoAp, CLASSES))

    def settle(self, task):
        network = task.model
        matcher = network.rpn.proposal_matcher
        matcher.low_threshold = matcher.high_threshold  # no anchor is left out
        network.rpn.nms_thresh = 1.0
        network.rpn._pre_nms_top_n = network.rpn._post_nms_top_n = dict.fromkeys(("training", "testing"), 30)
        for part in (network.rpn, network.roi_heads):
            part.fg_bg_sampler.batch_size_per_image, part.fg_bg_sampler.positive_fraction = 10**6, 0.5


class ThinBackbone(nn.Module):
    """Maps of 8 channels at strides 8 and 16."""

    out_channels = 8

    def __init__(self):
        super().__init__()
        self.fine = nn.Sequential(
            nn.Conv2d(3, 8, 8, stride=8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1)
        )
        self.coarse = nn.Conv2d(8, 8, 3, stride=2, padding=1)

    def forward(self, images):
        fine = self.fine(images)
        return OrderedDict([("0", fine), ("1", self.coarse(fine))])


def smooth(model):
    """Put a smooth activation in place of each ReLU. Of the millions in a ResNet-50 some input lies so close to 0 that rounding
    moves it to the other side, and the gradient jumps by up to 0.6 %: nothing that the task could help."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(module, name, nn.GELU())


@pytest.mark.slow
class TestFasterRcnnR50(TestFasterRcnn):
    name, make = "faster_rcnn_r50_fpn", faster_rcnn_r50_fpn
    padding_tolerance = None  # measured in TestFasterRcnn
    build = DetectionTaskContract.build

    def settle(self, task):
        """Have all proposals taken: which of many almost equal ones are the best, rounding would decide."""
        super().settle(task)
        smooth(task.model)
        head = task.model.roi_heads.box_head
        task.model.roi_heads.box_head = nn.Sequential(nn.Flatten(), head.fc6, nn.GELU(), head.fc7, nn.GELU())
        task.model.rpn._pre_nms_top_n = task.model.rpn._post_nms_top_n = dict.fromkeys(("training", "testing"), 10**6)

    def make_batch(self, samples):
        return self.images(samples, (32, 32))

    def make_batch_without_targets(self):
        return batch(*(target([], [], (32, 32), image_id=number) for number in (10, 11)))


@pytest.mark.slow
class TestFcosR50(DetectionTaskContract):
    name, make = "fcos_r50_fpn", fcos_r50_fpn
    padding_tolerance = 1.5

    def settle(self, task):
        smooth(task.model)


@pytest.mark.slow
class TestDeformableDetrR50(DetectionTaskContract):
    name, make = "deformable_detr", deformable_detr
    changes = {"dropout": 0.0, "num_queries": 30}  # noqa: RUF012
    padding_tolerance = TestDeformableDetrTiny.padding_tolerance  # of five starts 0.011 to 0.042

    def settle(self, task):
        smooth(task.model)


class PairTaskContract(TaskContract):
    """On pairs of noise with none, one or several persons. Anchors and proposals are drawn for each pair from its own seed; how
    many are, the counts of the terms."""

    boxes = (
        ([4, 4, 24, 44], [30, 10, 52, 60]), (), ([20, 20, 40, 60],), ([30, 30, 50, 62], [2, 2, 18, 36], [44, 8, 60, 40]),
    )  # fmt: skip
    changes: dict = {}  # noqa: RUF012

    def make_task(self):
        task = tiny_task(rpn_samples=16, roi_samples=8, **self.changes)
        for detector in task.model.detectors.values():
            detector.rpn.nms_thresh = 1.0  # which of two almost equal boxes is the better, rounding would decide
        return task

    def make_batch(self, samples):
        return self.pairs(samples, SIZE)

    def make_padded_batch(self, samples):
        return self.pairs(samples, (96, 96))

    def make_batch_without_targets(self):
        return pair_batch(persons(image_id=10), persons(image_id=11))

    def pairs(self, samples, padded):
        """Return pairs, each the same whatever it is batched with."""
        each = [pair_batch(persons(*self.boxes[one], image_id=one), padded=padded, seed=one) for one in samples]
        images, mask = (torch.cat([getattr(one, name) for one in each]) for name in ("images", "pixel_mask"))
        return PairBatch(
            images.contiguous(memory_format=torch.channels_last), mask, [one.targets[0] for one in each],
            present=torch.ones(len(each), 2, dtype=torch.bool), seeds=tuple(one.seeds[0] for one in each),
        )  # fmt: skip


class TestPairs(PairTaskContract):
    padding_tolerance = 0.5


class TestGatedPairs(PairTaskContract):
    changes = {"fusion": "gated", "shared_backbone": True, "own_norms": True}  # noqa: RUF012


class TestLatePairs(PairTaskContract):
    changes = {"fusion": "late"}  # noqa: RUF012


class TestAlignedPairs(PairTaskContract):
    changes = {"macl": {"weight": 1.0}}  # noqa: RUF012


class TestMaps(TaskContract):
    """On images of noise that six nominal cameras took, with no, open and closed lines."""

    changes: dict = {}  # noqa: RUF012

    def make_task(self):
        return tiny_map_task(**self.changes)

    def make_batch(self, samples):
        return seen(*samples)

    def make_batch_without_targets(self):
        return seen(1, 1)


class TestInktrace(TaskContract):
    """Nothing is hidden, for which blocks would be drawn at random; tests/families/ink/model shows that those drawn do not
    depend on how a step is cut into micro-batches."""

    changes: dict = {}  # noqa: RUF012

    def make_task(self):
        torch.manual_seed(0)
        return inktrace(lambda full: InkMetric(0.5, 0.3, full), **{**SETTINGS, "mask_ratio": 0.0, **self.changes})

    def make_batch(self, samples):
        return some(tiles(((4, 0, 9), 3.0), ((8, 2, 4), 1.5), None, ((12, 0, 15), 6.0)), *samples)

    def make_batch_without_targets(self):
        return tiles(None, None)


class TestStructuralInktrace(TestInktrace):
    changes = {"full_heads": False, "skips": False}  # noqa: RUF012
