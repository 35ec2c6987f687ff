"""Classes are matched by name, chosen and ignored by name."""

import logging

import pytest
from annotated_parts import build, objects_of, write_set

from winnow.errors import ConfigError, DataError

TRAIN = [["car", "bus"], ["bus"], ["dog"], ["car", "dog", "car"]]


@pytest.fixture
def folder(tmp_path):
    write_set(tmp_path, TRAIN, ["car", "bus", "dog"])
    return tmp_path


def test_a_validation_set_that_is_numbered_otherwise_is_matched_by_name(folder):
    write_set(folder, [["bus", "car"], ["dog"]], ["dog", "bus", "car"], ids=[9, 2, 4], split="val")
    data = build(folder)
    assert (data.classes, data.category_ids) == (("car", "bus", "dog"), (1, 2, 3))
    assert objects_of(data, data.val_records) == [["bus", "car"], ["dog"]]


def test_a_validation_set_may_lack_a_class(folder):
    write_set(folder, [["dog"], ["bus", "bus"]], ["bus", "dog"], split="val")
    data = build(folder)
    assert data.classes == ("car", "bus", "dog")
    assert objects_of(data, data.val_records) == [["dog"], ["bus", "bus"]]


def test_a_validation_set_with_more_classes_is_refused_by_their_names(folder):
    write_set(folder, [["car", "lorry"]], ["Car ", "bus", "lorry", "car"], split="val")
    with pytest.raises(
        DataError, match=r"val has 2 of its 4 classes that train lacks: 'Car ' \(did you mean 'car'\?\), 'lorry'; "
    ):
        build(folder)
    assert build(folder, classes=["car"]).classes == ("car",), "a part of both may be chosen"


def test_a_part_of_the_classes_is_learnt_in_the_order_given(folder, caplog):
    caplog.set_level(logging.INFO)
    write_set(folder, [["dog", "car"]], ["dog", "car"], ids=[2, 1], split="val")
    data = build(folder, classes=["dog", "car"])
    assert (data.classes, data.category_ids) == (("dog", "car"), (3, 1))
    assert objects_of(data, data.train_records) == [["car"], [], ["dog"], ["car", "dog", "car"]]
    assert [record.labels.tolist() for record in data.train_records] == [[1], [], [0], [1, 0, 1]]
    assert objects_of(data, data.val_records) == [["dog", "car"]]
    (line,) = [line for line in caplog.messages if line.startswith("train classes")]
    assert "2 objects of others left out" in line
    assert "1 of 4 images are now without an object" in line


def test_a_dont_care_region_is_a_crowd_of_each_class(folder):
    write_set(folder, [["dog", "car"]], ["dog", "car"], split="val")
    data = build(folder, ignore_categories=["dog"])
    assert data.classes == ("car", "bus")
    assert objects_of(data, data.train_records)[3] == ["car", "CAR", "BUS", "car"]
    assert objects_of(data, data.val_records) == [["CAR", "BUS", "car"]]
    record = data.val_records[0]
    assert record.boxes[:2].tolist() == [[0, 0, 12, 9], [0, 0, 12, 9]]
    target = next(data.train_batches(1, 32)).targets
    assert all(len(one.labels) < 3 for one in target), "ignored objects are not learnt"


def test_a_crowd_stays_one_under_a_choice(tmp_path):
    write_set(tmp_path, [["car", "bus"], ["bus"]], ["car", "bus"], crowd=["car"])
    data = build(tmp_path, ["train"], classes=["bus", "car"])
    assert objects_of(data, data.train_records) == [["CAR", "bus"], ["bus"]]


@pytest.mark.parametrize(("values", "message"), [
    ({"classes": ["car", "Bus"]}, r"data.classes=.* there is no category 'Bus' \(did you mean 'bus'\?\); there are 'car', 'bus'"),
    ({"ignore_categories": ["dig"]}, r"there is no category 'dig' \(did you mean 'dog'\?\)"),
    ({"classes": ["dog"], "ignore_categories": ["dog"]}, "both name 'dog'"),
    ({"ignore_categories": ["dog", "bus", "car"]}, "leaves no class to train on"),
    ({"classes": []}, "data.classes=.*name a class, or null for all"),
    ({"classes": ["car", "car"]}, "names must differ"),
])  # fmt: skip
def test_names_that_say_nothing_are_refused(folder, values, message):
    with pytest.raises(ConfigError, match=message):
        build(folder, ["train"], **values)


def test_another_choice_is_another_data_set_and_its_order_too(folder):
    prints = [
        build(folder, ["train"], **values).fingerprint
        for values in ({}, {"classes": ["car", "bus"]}, {"classes": ["bus", "car"]}, {"ignore_categories": ["dog"]})
    ]
    assert len(set(prints)) == 4


def test_the_fingerprint_of_a_set_that_was_read_before_is_as_it_was(folder):
    write_set(folder, [["bus", "car"], ["dog"]], ["car", "bus", "dog"], split="val")
    assert build(folder).fingerprint == "bc89eb1287b67ab1"
    assert build(folder, loading={"subset_size": 2}).fingerprint == "a3ac20e7bf74537d"


def test_classes_without_an_object_are_named(folder, caplog):
    caplog.set_level(logging.INFO)
    write_set(folder, TRAIN, ["car", "bus", "dog", "tram"])
    write_set(folder, [["car"]], ["car", "bus"], split="val")
    build(folder, loading={"subset_size": 1, "subset_seed": 3})
    assert "train has no object of 'tram', which can't be learnt" in caplog.messages
    assert "training.subset_size=1 leaves no object of 'bus' to train on" in caplog.messages
    assert "val has no object of 'bus', 'dog', 'tram': no metric counts them" in caplog.messages
    assert "val   objects: car 1, bus 0, dog 0, tram 0" in caplog.messages


def test_a_stratified_subset_has_each_class_where_a_random_one_lacks_some(tmp_path, caplog):
    write_set(tmp_path, [["car"]] * 30 + [["bus"]] * 2 + [["dog"]], ["car", "bus", "dog"])
    small = {"subset_size": 4}
    for seed in range(6):
        data = build(tmp_path, ["train"], loading=small | {"subset_stratified": True, "subset_seed": seed})
        assert {name for names in objects_of(data, data.train_records) for name in names} == {"car", "bus", "dog"}
    assert not [line for line in caplog.messages if "leaves no object" in line]


def test_balanced_classes_repeat_the_rare_and_are_another_data_set(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    write_set(tmp_path, [["car"]] * 15 + [["bus", "car"]], ["car", "bus"])
    plain = build(tmp_path, ["train"])
    balanced = build(tmp_path, ["train"], loading={"class_balance": "repeat_factor", "balance_threshold": 1.0})
    assert (plain.num_train_samples, balanced.num_train_samples) == (16, 19)
    assert "an epoch has 19 samples of 16 images; those with 'bus', 1 in all, come 4 times" in caplog.text
    for epoch in (1, 2):
        batches = list(balanced.train_batches(epoch, 32))
        ids = [image_id for batch in batches for image_id in batch.image_ids]
        assert sorted(ids) == [*range(15), 15, 15, 15, 15]
        again = [
            image
            for batch in batches
            for image, number in zip(batch.images, batch.image_ids, strict=True)
            if number == 15
        ]
        assert len({image.numpy().tobytes() for image in again}) > 1, "each time it is augmented anew"
    middle = [batch.image_ids for batch in balanced.train_batches(2, 32, start_sample=6)]
    assert middle == [batch.image_ids for batch in batches[3:]]
    assert plain.fingerprint != balanced.fingerprint
    build(tmp_path, ["train"], loading={"class_balance": "repeat_factor"})
    assert "repeats nothing: no class is in less than training.balance_threshold=0.001" in caplog.text
    assert "the rarest, 'bus', in 0.0625" in caplog.text
