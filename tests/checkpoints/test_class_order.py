"""Weights of the same classes in another order are taken over by name; what can't be matched is told of once, with both lists."""

import pytest
import torch
from torch import nn

from winnow.checkpoints.class_order import ClassHead, in_class_order
from winnow.checkpoints.initial import load_initial_weights

THEIRS, OURS = ["bus", "car", "dog"], ["dog", "bus", "car"]
BUS, CAR, DOG = 0.0, 1.0, 2.0


def entry(*values, width=2):
    return torch.tensor(values)[:, None].expand(-1, width).contiguous()


def ordered(state, theirs, ours=OURS, rows=None, own=None):
    return in_class_order(state, own or state, ClassHead(ours, rows or {"head": 1}), theirs, "file.pth")


@pytest.mark.parametrize(("per_class", "given", "expected"), [
    (1, [BUS, CAR, DOG], [DOG, BUS, CAR]),
    (1, [-1.0, BUS, CAR, DOG], [-1.0, DOG, BUS, CAR]),  # a background first
    (2, [-1.0, -1.0, BUS, BUS, CAR, CAR, DOG, DOG], [-1.0, -1.0, DOG, DOG, BUS, BUS, CAR, CAR]),
])  # fmt: skip
def test_rows_follow_the_names_of_their_classes(caplog, per_class, given, expected):
    state = {"head": entry(*given), "body": entry(5.0, 6.0, 7.0)}
    with caplog.at_level("INFO"):
        found = ordered(state, THEIRS, rows={"head": per_class})
    assert found["head"].equal(entry(*expected))
    assert found["body"] is state["body"]
    assert (
        "file.pth: the classes are the same in another order; the rows of 1 entries follow their names" in caplog.text
    )


@pytest.mark.parametrize(("theirs", "rows", "message"), [
    (["cat", "car", "dog"], {"head": 1}, "other names, and the class head is taken over row by row; theirs: cat, car, dog; "),
    (["cat", "car"], {"head": 1}, "other names, and the class head is taken over row by row; theirs: cat, car; "),
    (None, {"head": 1}, "not in it, and the class head is taken over row by row; theirs: not known; "),
    (["cat", "car", "dog"], {"other": 1}, "the classes have other names; theirs: cat, car, dog; "),
    (THEIRS, {}, "does not say which of its rows they are; theirs: bus, car, dog; "),
])  # fmt: skip
def test_what_can_not_be_matched_stays_with_one_warning_of_both_lists(caplog, theirs, rows, message):
    state = {"head": entry(BUS, CAR, DOG)}
    found = in_class_order(state, state, ClassHead(OURS, rows), theirs, "file.pth")
    assert found["head"] is state["head"]
    (warning,) = caplog.messages
    assert f"{message}this run's: dog, bus, car" in warning


def test_nothing_is_said_where_there_is_nothing_to_say(caplog):
    with caplog.at_level("INFO"):
        state = {"head": entry(BUS, CAR, DOG)}
        assert ordered(state, OURS)["head"] is state["head"]
        ordered({"body": entry(1.0)}, None)  # a backbone of nobody's classes
        ordered(state, THEIRS, own={"head": entry(1.0)})  # another number of rows: a random start
    assert not caplog.messages


@pytest.mark.parametrize("classes", [THEIRS, None])
def test_weights_of_another_program_are_matched_where_it_names_its_classes(tmp_path, caplog, classes):
    source, target = (nn.ModuleDict({"body": nn.Linear(2, 2), "head": nn.Linear(2, 3)}) for _ in range(2))
    torch.save({"model": source.state_dict(), **({"classes": classes} if classes else {})}, tmp_path / "other.pth")
    head = ClassHead(OURS, {"head.weight": 1, "head.bias": 1})
    load_initial_weights(target, tmp_path / "other.pth", head=head)
    order = [2, 0, 1] if classes else [0, 1, 2]
    assert target["head"].weight.equal(source["head"].weight[order])
    assert target["head"].bias.equal(source["head"].bias[order])
    assert target["body"].weight.equal(source["body"].weight)
    assert ("theirs: not known" in caplog.text) == (classes is None)
