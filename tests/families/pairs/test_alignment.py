"""The measures of alignment, on projections of which is known what they hold."""

from collections import OrderedDict

import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.functional import normalize

from winnow.families.pairs.alignment import Alignment, SeenPair, draw_alignment
from winnow.families.pairs.models.macl import AlignmentHead

SIZE = (128, 160)
EXTENT = 4


class Centre(nn.Module):
    """In place of the projection: what the feature map holds in the middle of each box."""

    temperature = torch.tensor(0.07)

    def forward(self, pyramid, boxes, sizes):
        columns, rows = ((boxes[0][:, axis] + boxes[0][:, axis + 2]).div(2).long() for axis in (0, 1))
        return normalize(pyramid["0"][0, :, rows, columns].T, dim=1)


def measured(kind):
    """Return the numbers of 60 pairs of two objects each; ``kind`` is what both maps hold: ``identity`` of the object,
    ``objectness``, ``place``, or ``nothing`` in common."""
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(8, *SIZE, generator=generator)
    background, person = torch.randn(2, 8, generator=generator)
    pairs = []
    for seed in range(60):
        corners = torch.stack([torch.randint(0, most, (2,), generator=generator) for most in (70, 120)], dim=1)
        corners[1, 0] += 80
        boxes = torch.cat([corners, corners + EXTENT], dim=1).float()
        maps = {}
        own = torch.randn(2, 8, generator=generator)
        for name in ("visible", "infrared"):
            features = background[:, None, None] + 0.3 * torch.randn(8, *SIZE, generator=generator)
            for number, (left, top, right, bottom) in enumerate(boxes.long().tolist()):
                held = {"identity": own[number], "objectness": person}.get(kind)
                if held is not None:
                    noise = 0.1 * torch.randn(8, bottom - top, right - left, generator=generator)
                    features[:, top:bottom, left:right] = held[:, None, None] + noise
            if kind == "place":
                features = places + 0.1 * torch.randn(8, *SIZE, generator=generator)
            if kind == "nothing":
                features = torch.randn(8, *SIZE, generator=generator)
            maps[name] = OrderedDict({"0": features[None]})
        pairs.append(SeenPair(maps, boxes, SIZE, seed))
    return Alignment(Centre(), pairs).numbers()


def test_identity_is_found_whatever_the_place_and_a_stranger_does_not_find_it():
    found = measured("identity")
    assert found["same_box_r1"] > 0.95
    assert found["other_objects_r1"] > 0.95
    assert found["in_pair_r1"] > 0.95
    assert found["stranger_r1"] < 0.3
    assert found["place_only_r1"] < 0.08
    assert found["loss_per_object"] < 0.3 < found["loss_of_chance"]


def test_who_only_tells_objects_from_background_passes_same_box_and_not_its_controls():
    """So does MACL on ``pairs_synthetic``, see docs/pairs.md."""
    found = measured("objectness")
    assert found["same_box_r1"] > 0.8
    assert found["stranger_r1"] > 0.8
    assert found["other_objects_r1"] < 0.1
    assert found["in_pair_r1"] == pytest.approx(found["in_pair_guess"], abs=0.15)


def test_who_only_knows_the_place_fails_same_box_and_shows_in_place_only():
    found = measured("place")
    assert found["same_box_r1"] < 0.12
    assert found["place_only_r1"] > 0.9
    assert found["retrieval_r1"] > 0.9


def test_nothing_in_common_is_chance():
    found = measured("nothing")
    assert found["same_box_r1"] < 0.08
    assert found["same_box_chance"] == pytest.approx(1 / 49)
    assert found["retrieval_chance"] == pytest.approx(1 / 120)
    assert found["other_objects_rank"] == pytest.approx(25, abs=4)


def test_too_few_pairs_are_refused():
    with pytest.raises(ValueError, match="0 pairs; alignment is measured among 49 images"):
        Alignment(AlignmentHead(8, (4, 8), 1)).numbers()


def test_the_picture_is_drawn(tmp_path):
    one, other = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0))
    draw_alignment(one, other, tmp_path / "alignment.png", "epoch 1")
    assert len(Image.open(tmp_path / "alignment.png").convert("RGB").getcolors(10**6)) > 10
