"""Verdicts on run folders: where the spread comes from, what stored detections add, groups, the words and the JSON."""

import json

import numpy as np
import pytest
import yaml

from winnow.commands.cli import main
from winnow.compare.detections import pair_variances
from winnow.compare.verdicts import judge_runs, odds_text
from winnow.errors import ConfigError
from winnow.families.detection.metrics.image_result import ImageResult, to_arrays
from winnow.odds.verdict import CANT_TELL
from winnow.results.measured import read_measured, repeats_beside
from winnow.results.spread import FILE, known_spread, shipped_spread


@pytest.fixture
def make_run(tmp_path, save, state):
    """Write a run folder with a checkpoint and a result."""

    def make(name, value, seed=0, lr=0.1, metric="val/map", mode="max", detections=None, data="winnow.own"):
        folder = tmp_path / name
        save(f"{name}/checkpoints/best.pth", state)
        config = {
            "training": {"seed": seed, "optimizer": {"lr": lr}}, "data": {"_target_": data, "root": None},
            "objective": {"metric": metric, "mode": mode}, "tracking": {"uri": name},
        }  # fmt: skip
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        best = {"metric": metric, "value": value, "epoch": 1, "step": 1}
        (folder / "result.json").write_text(json.dumps({"status": "completed", "objective": value, "best": best}))
        if detections is not None:
            np.savez(folder / "val_detections.npz", **detections)
        return folder

    return make


def found(quality, num_images=60, seed=0, of_truth=0):
    """Return stored detections of boxes that lie ``quality`` right."""
    truth, noise = np.random.default_rng(of_truth), np.random.default_rng([7, seed])
    images = []
    for number in range(num_images):
        boxes = np.concatenate([truth.uniform(0, 60, (3, 2)), truth.uniform(20, 40, (3, 2))], axis=1)
        shifted = boxes + noise.normal(0, 8 * (1 - quality), boxes.shape)
        labels = np.array([0, 0, 1])
        crowd = np.zeros(3, bool)
        areas = boxes[:, 2] * boxes[:, 3]
        images.append(
            ImageResult(number, (100, 100), boxes, labels, areas, crowd, shifted, noise.uniform(0.3, 1, 3), labels)
        )
    return {"classes": np.array(["a", "b"]), "category_ids": np.array([1, 2]), **to_arrays(images)}


def test_one_run_each_without_any_spread_cant_tell(make_run):
    verdict = judge_runs([read_measured(make_run("x/a", 0.5))], [read_measured(make_run("y/b", 0.9, lr=1.0))]).verdict
    assert (verdict.word, verdict.spread) == (CANT_TELL, None)
    assert verdict.repeats == 4


def test_the_spread_is_of_the_nearest_source(make_run, tmp_path):
    first, second = read_measured(make_run("x/a", 0.50)), read_measured(make_run("x/b", 0.56, lr=1.0))
    (tmp_path / "x" / FILE).write_text(json.dumps({"metric": "val/map", "sigma": 0.04, "degrees": 4, "runs": 6}))
    spread = known_spread([first], [second])
    assert (spread.sigma, spread.degrees) == (0.04, 4)
    assert f"{FILE}, 6 runs" in spread.source
    # Repeats of the same configuration come first; neither the runs themselves, nor those of others, nor one seed twice count.
    for seed, value in ((1, 0.51), (2, 0.53), (3, 0.52)):
        make_run(f"x/repeat_{seed}", value, seed=seed)
    make_run("x/repeat_again", 0.9, seed=3)
    make_run("x/other", 0.9, seed=4, lr=2.0)
    spread = known_spread([first], [second])
    assert (spread.sigma, spread.degrees) == (pytest.approx(0.01), 2)
    assert "3 repeats of the same configurations" in spread.source
    assert len(repeats_beside(first)) == 4


def test_a_spread_of_another_metric_is_not_used(make_run, tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / FILE).write_text(json.dumps({"metric": "val/loss", "sigma": 0.04, "degrees": 4, "runs": 6}))
    runs = [read_measured(make_run(f"x/{name}", 0.5, lr=lr)) for name, lr in (("a", 1), ("b", 2))]
    assert known_spread(runs[:1], runs[1:]) is None
    assert shipped_spread(runs[0]) is None


def test_groups_are_judged_by_their_own_spread_and_leave_it_behind(make_run, tmp_path, capsys):
    for seed, (a, b) in enumerate(((0.50, 0.60), (0.51, 0.62), (0.49, 0.61))):
        make_run(f"a/{seed}", a, seed=seed)
        make_run(f"b/{seed}", b, seed=seed, lr=1.0)
    sides = ["--group", str(tmp_path / "a"), "--group", *(str(tmp_path / "b" / str(seed)) for seed in range(3))]
    assert main(["compare", *sides, "--format", "json"]) == 0
    (verdict,) = json.loads(capsys.readouterr().out)["verdicts"]
    assert verdict["verdict"] == "better"
    assert verdict["values"] == [[0.50, 0.51, 0.49], [0.60, 0.62, 0.61]]
    assert verdict["interval"][0] < verdict["difference"] == pytest.approx(0.11)
    written = json.loads((tmp_path / "a" / FILE).read_text())
    assert (written["degrees"], written["runs"]) == (4, 6)
    assert written["sigma"] == pytest.approx(0.01)
    assert main(["compare", *sides]) == 0
    out = capsys.readouterr().out
    assert "B is better than A" in out
    assert "σ = 0.0100, from these runs" in out


def test_a_group_of_different_configurations_or_equal_seeds_is_refused(make_run, tmp_path):
    make_run("a/0", 0.5)
    make_run("a/1", 0.5, seed=1, lr=1.0)
    make_run("b/0", 0.5)
    make_run("b/1", 0.5)
    assert main(["compare", "--group", str(tmp_path / "a"), "--group", str(tmp_path / "b")]) == 2
    from winnow.commands.compare import _one_configuration
    from winnow.results.measured import runs_in

    with pytest.raises(ConfigError, match=r"differ in training.optimizer.lr"):
        _one_configuration(runs_in([tmp_path / "a"]))
    with pytest.raises(ConfigError, match="different seeds"):
        _one_configuration(runs_in([tmp_path / "b"]))


def test_objectives_and_validation_data_that_differ_are_not_compared(make_run):
    other = read_measured(make_run("x/loss", 0.5, metric="val/loss", mode="min"))
    run = read_measured(make_run("x/a", 0.5, detections=found(0.9)))
    assert "the objectives differ: val/loss and val/map" in judge_runs([run], [other]).verdict.reason
    elsewhere = read_measured(make_run("x/b", 0.5, detections=found(0.9, of_truth=1)))
    assert "different validation data" in judge_runs([run], [elsewhere]).verdict.reason


def test_images_are_resampled_in_pairs(make_run, tmp_path):
    paths = [make_run(name, 0.5, detections=found(quality, seed=seed)) / "val_detections.npz"
             for seed, (name, quality) in enumerate((("x/a", 0.9), ("x/b", 0.9), ("x/c", 0.5)))]  # fmt: skip
    pairs = pair_variances(paths, "val/map", 50)
    assert list(pairs) == [(0, 1), (0, 2), (1, 2)]
    assert all(0 < variance < 0.1**2 for variance in pairs.values())
    assert pair_variances([paths[0], paths[0]], "val/map", 20) == {(0, 1): 0.0}
    runs = [read_measured(path.parent) for path in paths]
    (tmp_path / "x" / FILE).write_text(json.dumps({"metric": "val/map", "sigma": 1e-6, "degrees": 40, "runs": 42}))
    judged = judge_runs(runs[:1], runs[1:2])
    assert judged.verdict.image_sigma == pytest.approx(np.sqrt(pair_variances(paths[:2], "val/map")[0, 1]), rel=1e-3)
    assert "resampled in pairs" in judged.images


def test_odds_are_shown_as_people_say_them():
    assert [odds_text(p) for p in (0.975, 0.5, 0.2, 0.99999)] == ["39 : 1", "1 : 1", "1 : 4", "over 1000 : 1"]
