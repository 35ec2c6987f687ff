"""Matching of queries to lines, and the losses, against slow loops."""

import itertools
import math

import numpy as np
import pytest
import torch
from map_parts import batch, lines, random_lines
from torch.nn import functional as F

from winnow.families.maps.frame import Region
from winnow.families.maps.lines import equivalent_orders
from winnow.families.maps.model.losses import CriterionSettings, MapCriterion, direction_sums
from winnow.families.maps.model.matching import LineTargets, MatchingCosts, match, nearest_order, order_distances

REGION = Region(30.0, 60.0)
CORNER, SIDES = torch.tensor(REGION.bounds()[:2]), torch.tensor([REGION.width, REGION.length])
COSTS = MatchingCosts(class_cost=2.0, points_cost=5.0, focal_alpha=0.25, focal_gamma=2.0)
SETTINGS = CriterionSettings(
    class_cost=2.0, points_cost=5.0, class_weight=2.0, points_weight=5.0, direction_weight=0.005, focal_alpha=0.25,
    focal_gamma=2.0,
)  # fmt: skip
RING = [(2, 5), (8, 5), (8, 11), (2, 11), (2, 5)]


def drawn(seed, counts=(3, 0, 4), num_queries=4, num_layers=2):
    """Return a batch's targets, and logits and points of that many layers at random."""
    rng = np.random.default_rng(seed)
    truths = [random_lines(rng, count) for count in counts]
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(num_layers, len(counts), num_queries, 3, generator=generator)
    points = torch.rand(num_layers, len(counts), num_queries, 20, 2, generator=generator)
    return batch(*truths).targets, logits, points


def orders_of(target, line):
    """Return all orders of a line's points as parts of the region, (K, P, 2)."""
    points = (target.points[line] - CORNER) / SIDES
    return points[torch.from_numpy(equivalent_orders(20, bool(target.closed[line])))]


def focal_part(logit, is_true):
    p = 1 / (1 + math.exp(-logit))
    return -0.25 * (1 - p) ** 2 * math.log(p) if is_true else -0.75 * p**2 * math.log(1 - p)


def slow_cost(logits, points, target):
    """Return (I, N) costs, and which order of the points was nearest."""
    cost = np.zeros((len(logits), len(target.labels)))
    nearest = np.zeros(cost.shape, int)
    for query, line in itertools.product(range(len(logits)), range(len(target.labels))):
        distances = [float((points[query] - order).abs().sum()) for order in orders_of(target, line)]
        logit = float(logits[query, target.labels[line]])
        nearest[query, line] = int(np.argmin(distances))
        cost[query, line] = 2 * (focal_part(logit, True) - focal_part(logit, False)) + 5 * min(distances)
    return cost, nearest


def cheapest(cost):
    """Return pairs (query, line) of the cheapest assignment, by trying them all."""
    queries, count = range(cost.shape[0]), cost.shape[1]
    best = min(itertools.permutations(queries, count), key=lambda own: sum(cost[q, n] for n, q in enumerate(own)))
    return [(query, line) for line, query in enumerate(best)]


@pytest.mark.parametrize("seed", range(5))
def test_matches_and_losses_are_those_of_slow_loops(seed):
    targets, logits, points = drawn(seed)
    expected = {"loss_class": [0.0, 0.0], "loss_points": [0.0, 0.0], "loss_direction": [0.0, 0.0]}
    for layer, (sample, target) in itertools.product(range(2), enumerate(targets)):
        pairs = []
        if len(target.labels):
            cost, nearest = slow_cost(logits[layer, sample], points[layer, sample], target)
            pairs = cheapest(cost)
        truth = {(query, int(target.labels[line])) for query, line in pairs}
        for query, label in itertools.product(range(4), range(3)):
            logit = float(logits[layer, sample, query, label])
            expected["loss_class"][layer] += 2 * focal_part(logit, (query, label) in truth)
        for query, line in pairs:
            order = orders_of(target, line)[nearest[query, line]]
            found = points[layer, sample, query]
            expected["loss_points"][layer] += 5 * float((found - order).abs().sum())
            for edge in range(19):
                one, other = ((part[edge + 1] - part[edge]) * SIDES for part in (found, order))
                lengths = math.sqrt(float(one @ one) + 1e-2) * math.sqrt(float(other @ other) + 1e-2)
                expected["loss_direction"][layer] += 0.005 * (1 - float(one @ other) / lengths)
    found = MapCriterion(SETTINGS)(logits, points, LineTargets.of(targets, CORNER, SIDES), SIDES, 7.0)
    for name, (auxiliary, last) in expected.items():
        assert float(found[name]) == pytest.approx(last / 7, rel=1e-4)
        assert float(found[f"{name}_aux"]) == pytest.approx(auxiliary / 7, rel=1e-4)


def test_the_distance_to_a_line_is_that_of_its_nearest_order():
    targets, _, points = drawn(7)
    line_targets = LineTargets.of(targets, CORNER, SIDES)
    distances = nearest_order(order_distances(points, line_targets), line_targets)
    for sample, target in enumerate(targets):
        for query, line in itertools.product(range(4), range(len(target.labels))):
            slow = min(float((points[0, sample, query] - order).abs().sum()) for order in orders_of(target, line))
            assert float(distances[0, sample, query, line]) == pytest.approx(slow, rel=1e-5)


def test_a_ring_may_begin_anywhere_and_an_open_line_may_only_turn_round():
    ring, line = lines(("ped_crossing", RING)), lines(("divider", RING[:-1]))
    for truth, step, fits in ((ring, 7, True), (ring, -7, True), (line, 7, False), (line, -20, True)):
        target = batch(truth).targets[0]
        points = (target.points[0] - CORNER) / SIDES
        corners = points[:-1] if target.closed[0] else points
        moved = corners.flip(0).roll(step, 0) if step < 0 else corners.roll(step, 0)
        moved = torch.cat([moved, moved[:1]]) if target.closed[0] else moved
        table = order_distances(moved[None, None, None], LineTargets.of([target], CORNER, SIDES))
        assert (float(table.min()) < 1e-4) == fits
        assert table.shape[-1] == (38 if target.closed[0] else 2)


def test_more_lines_than_queries_and_values_that_are_no_numbers_are_matched_all_the_same():
    targets, logits, points = drawn(3, counts=(6, 1), num_queries=4)
    points[0, 0, 1] = torch.nan
    logits[1, 0] = torch.inf
    found = match(logits, points, LineTargets.of(targets, CORNER, SIDES), COSTS)
    assert found.queries.shape == (2, 5)
    assert found.samples.tolist() == [0, 0, 0, 0, 1]
    for layer in range(2):
        assert sorted(found.queries[layer, :4].tolist()) == [0, 1, 2, 3]
    terms = MapCriterion(SETTINGS)(logits, points, LineTargets.of(targets, CORNER, SIDES), SIDES, 5.0)
    assert not torch.stack(list(terms.values())).sum().isfinite()


def test_without_lines_points_still_have_a_gradient_and_each_term_is_divided_by_the_positives():
    targets, logits, points = drawn(0, counts=(0, 0))
    points.requires_grad_()
    terms = MapCriterion(SETTINGS)(logits, points, LineTargets.of(targets, CORNER, SIDES), SIDES, 1.0)
    sum(terms.values()).backward()
    assert points.grad.abs().sum() == 0
    targets, logits, points = drawn(1)
    line_targets = LineTargets.of(targets, CORNER, SIDES)
    one, two = (MapCriterion(SETTINGS)(logits, points, line_targets, SIDES, positives) for positives in (1.0, 2.0))
    assert all(float(one[name]) == pytest.approx(2 * float(two[name])) and one[name] > 0 for name in one)


def test_focal_terms_are_torchs_cross_entropy_where_gamma_is_0():
    targets, logits, points = drawn(2)
    plain = MapCriterion(SETTINGS.model_copy(update={"focal_gamma": 0.0, "focal_alpha": 0.5}))
    line_targets = LineTargets.of(targets, CORNER, SIDES)
    matches = match(logits, points, line_targets, plain.costs)
    truth = torch.zeros_like(logits[-1])
    for sample, query, line in zip(matches.samples, matches.queries[-1], matches.lines[-1], strict=True):
        truth[sample, query, targets[sample].labels[line]] = 1
    expected = 2 * 0.5 * F.binary_cross_entropy_with_logits(logits[-1], truth, reduction="sum") / 7
    found = plain(logits, points, line_targets, SIDES, 7.0)["loss_class"]
    assert float(found) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize(("epsilon", "least", "most"), [(1e-2, 1.0, 20.0), (1e-6, 150.0, 290.0)])
def test_the_gradient_of_an_edge_of_1_cm_is_bounded_by_what_is_added_to_its_length(epsilon, least, most):
    """True edges of 3 m forth and back, found ones of 1 cm across them: of each point both edges pull the same way."""
    true, found = torch.zeros(1, 1, 20, 2), torch.zeros(1, 1, 20, 2)
    true[..., 1::2, 1] = 3.0
    found[..., 1::2, 0] = 0.01
    found.requires_grad_()
    direction_sums(found, true, epsilon).sum().backward()
    steepest = float(found.grad.norm(dim=-1).max())
    assert least < steepest < most
