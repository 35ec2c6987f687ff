"""Which samples are trained on and which validated on."""

import numpy as np
import pytest

from winnow.errors import DataError
from winnow.families.maps.keyframe import Camera, Keyframe
from winnow.families.maps.splits import disjoint, nearest_training_sample, official_scenes, split_keyframes

CAMERA = Camera("a.jpg", 16, 9, np.eye(3), np.eye(4))


def keyframes(*drives, step=4.0):
    """Return the samples of drives (scene, city, begin, end), ``step`` m apart."""
    made = []
    for scene, city, begin, end in drives:
        begin, end = np.array(begin, float), np.array(end, float)
        for place in np.arange(0, np.linalg.norm(end - begin), step):
            xy = begin + (end - begin) * place / np.linalg.norm(end - begin)
            made.append(Keyframe(f"{scene}_{len(made)}", scene, city, xy, 0.0, np.eye(4), (CAMERA,) * 6))
    return made


@pytest.fixture(scope="module")
def town():
    rng = np.random.default_rng(0)
    ends = rng.uniform(0, 2000, (60, 4))
    return keyframes(
        *((f"scene-{n:04d}", ("a", "b")[n % 2], end[:2], end[2:]) for n, end in enumerate(ends)), step=20.0
    )


def test_no_validation_sample_of_the_disjoint_split_lies_within_60_m_of_a_training_sample(town):
    train, val = disjoint(town)
    assert nearest_training_sample(town, train, val).min() > 60
    assert not set(train) & set(val)
    for city in "ab":
        part = [town[place].city for place in val].count(city) / sum(keyframe.city == city for keyframe in town)
        assert 0.15 <= part < 0.4
    assert len(train) > len(town) / 2


def test_scenes_on_the_same_road_are_near_in_a_split_by_scenes_and_the_distance_says_so():
    road = keyframes(("scene-0001", "a", (0, 0), (100, 0)), ("scene-0003", "a", (0, 3), (100, 3)))
    train, val = split_keyframes(road, "official", "v1.0-trainval")
    assert (len(train), len(val)) == (25, 25)
    assert nearest_training_sample(road, train, val) == pytest.approx(np.full(25, 3.0))


def test_it_depends_on_the_places_alone(town):
    order = np.random.default_rng(1).permutation(len(town))
    train, _ = disjoint(town)
    shuffled, _ = disjoint([town[place] for place in order])
    assert {order[place] for place in shuffled} == set(train)


def test_a_city_that_is_all_in_one_place_is_trained_on_whole():
    here = keyframes(("scene-0001", "a", (10, 10), (90, 10)))
    assert disjoint(here) == (list(range(20)), [])


def test_another_city_is_infinitely_far():
    apart = keyframes(("scene-0001", "a", (0, 0), (8, 0)), ("scene-0003", "b", (0, 0), (8, 0)))
    assert nearest_training_sample(apart, [0, 1], [2, 3]).tolist() == [np.inf, np.inf]


def test_official_lists_are_nuscenes_own():
    train, val = official_scenes("v1.0-trainval")
    assert (len(train), len(val), len(train & val)) == (700, 150, 0)
    assert {"scene-0001", "scene-0061", "scene-1110"} <= train
    assert {"scene-0003", "scene-0103", "scene-1073"} <= val
    mini_train, mini_val = official_scenes("v1.0-mini")
    assert (len(mini_train), mini_val) == (8, {"scene-0103", "scene-0916"})


@pytest.mark.parametrize(("text", "message"), [
    ("train: [a]", "needs lists train and val of scenes' names"), ("[a]", "needs lists train and val"),
    ("train: [1]\nval: []", "needs lists"), ("train: [a, b]\nval: [b]", "b is in train and in val"), ("{", "not YAML"),
    ("train: [other]\nval: []", "leaves none of the 2 samples to train on"),
])  # fmt: skip
def test_a_file_that_is_no_split_is_refused(tmp_path, text, message):
    path = tmp_path / "lists.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        split_keyframes(keyframes(("scene-0001", "a", (0, 0), (8, 0))), str(path), "v1.0-mini")


def test_a_split_of_unknown_name_is_a_file_that_is_not_there():
    with pytest.raises(DataError, match=r"oficial can't be read as lists of scenes \(data\.split\): No such file"):
        split_keyframes([], "oficial", "v1.0-mini")
