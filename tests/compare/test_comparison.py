import json
import math

import pytest
import torch
from foreign_files import prefixed

from winnow.commands.cli import main
from winnow.compare.comparison import ABSENT, compare
from winnow.compare.subject import read_subject
from winnow.compare.words import value_text
from winnow.errors import CheckpointError, ConfigError


def comparison_of(*paths):
    return compare([read_subject(path) for path in paths])


def row(rows, name):
    return next(found for found in rows if found.name == name)


def changed(state, key, factor):
    return {name: value * factor if name.startswith(key) else value for name, value in state.items()}


def test_configs_are_compared_key_by_key(save, state):
    one = save("a.pth", state, {"training": {"lr": 0.1, "betas": [0.9, 0.99], "seed": 0}, "old": None})
    other = save("b.pth", state, {"training": {"lr": 0.2, "betas": [0.9, 0.99], "seed": 0}, "new": True})
    found = {row.name: row.values for row in comparison_of(one, other).config}
    assert found == {"training.lr": (0.1, 0.2), "old": (None, ABSENT), "new": (ABSENT, True)}


def test_metrics_stand_side_by_side(save, state):
    one, other = save("a.pth", state), save("b.pth", state, metrics={"val/map": 0.75, "val/new": 1.0})
    metrics = comparison_of(one, other).metrics
    assert row(metrics, "val/map").values == (0.5, 0.75)
    assert row(metrics, "val/new").values == (ABSENT, 1.0)
    assert row(metrics, "best/map").values == (0.5, 0.5)
    assert row(metrics, "cost/seconds").values == (60.0, 60.0)


def test_the_relative_change_is_that_of_each_group_and_module(save, state):
    weights = comparison_of(save("a.pth", state), save("b.pth", changed(state, "head", 1.5))).weights
    found = {(row.kind, row.name): row.changes[0].relative for row in weights}
    assert found.keys() == {
        ("group", "backbone"), ("group", "head"), ("module", "backbone"), ("module", "head"), ("all", "all parameters"),
    }  # fmt: skip
    assert found["module", "head"] == found["group", "head"] == pytest.approx(0.5)
    assert found["module", "backbone"] == 0
    head = math.sqrt(sum(float(value.square().sum()) for name, value in state.items() if name.startswith("head")))
    whole = row(weights, "all parameters")
    assert whole.changes[0].relative == pytest.approx(0.5 * head / whole.norm)


def test_running_statistics_are_no_parameters(save, state):
    weights = comparison_of(save("a.pth", state), save("b.pth", changed(state, "backbone.1.running_var", 9.0))).weights
    assert row(weights, "all parameters").changes[0].relative == 0
    assert row(weights, "all parameters").num_parameters == 2 * 4 + 4 + 4 + 4 + 4 + 1


def test_many_are_compared_with_the_first(save, state):
    paths = [save(f"{n}.pth", changed(state, "head", n)) for n in (1, 2, 3)]
    assert [change.relative for change in row(comparison_of(*paths).weights, "head").changes] == pytest.approx([1, 2])


def test_tensors_without_a_partner_are_counted(save, state):
    other = {**state, "head.weight": torch.ones(5, 4)}
    del other["head.bias"]
    head = row(comparison_of(save("a.pth", state), save("b.pth", other)).weights, "head").changes[0]
    assert (head.relative, head.num_left_out) == (None, 2)


@pytest.mark.parametrize(("value", "expected"), [(0.0, 0.0), (1.0, math.inf)])
def test_a_change_from_nothing_is_told_apart_from_none(save, value, expected):
    zero, other = {"head.bias": torch.zeros(3)}, {"head.bias": torch.full((3,), value)}
    assert comparison_of(save("a.pth", zero), save("b.pth", other)).weights[-1].changes[0].relative == expected


def test_what_each_started_and_was_resumed_from_is_told(save, state):
    resumed = [{"path": "old/last.pth", "epoch": 1, "step": 10}]
    one = read_subject(save("a.pth", state))
    other = read_subject(save("b.pth", state, {"training": {"init_from": "x.pth"}}, metadata={"resumed_from": resumed}))
    assert one.origin == ("started afresh",)
    assert other.origin == ("started from the weights of x.pth", "resumed from old/last.pth at epoch 1, step 10")


def test_a_run_folder_gives_its_best_or_its_last(save, state, tmp_path):
    save("run/checkpoints/best.pth", state, epoch=2)
    save("run/checkpoints/last.pth", state, epoch=5)
    (tmp_path / "run/result.json").write_text('{"status": "completed"}')
    best, last = (read_subject(str(tmp_path / "run"), which) for which in ("best", "last"))
    assert (best.facts["epoch"], last.facts["epoch"]) == (2, 5)
    assert (best.kind, best.facts["status"]) == ("best.pth of a run", "completed")
    (tmp_path / "run/checkpoints/best.pth").unlink()
    assert read_subject(str(tmp_path / "run")).kind == "last.pth of a run"


def test_folders_without_one_run_say_what_they_hold(save, state, tmp_path):
    save("study/0/checkpoints/last.pth", state)
    save("study/1/checkpoints/last.pth", state)
    with pytest.raises(ConfigError, match=r"study holds several runs, name one of them: .*study/0, .*study/1"):
        read_subject(str(tmp_path / "study"))
    with pytest.raises(ConfigError, match="is no run folder: it has no checkpoints/best.pth"):
        read_subject(str(tmp_path / "study/0/checkpoints"))
    with pytest.raises(ConfigError, match="nowhere does not exist"):
        read_subject(str(tmp_path / "nowhere"))


def test_another_programs_file_is_compared_under_our_names(save, state, tmp_path):
    own = save("a.pth", state, {"training": {"optimizer": {"lr": 0.01}, "max_epochs": 3}})
    torch.save(state, tmp_path / "bare.pth")
    content = {"state_dict": prefixed("model.", changed(state, "head", 2.0)), "config": {"lr": 0.5}, "epoch": 7}
    torch.save(content, tmp_path / "other.pth")
    found = comparison_of(own, str(tmp_path / "other.pth"), str(tmp_path / "bare.pth"))
    assert row(found.weights, "head").changes[0].relative == pytest.approx(1)
    assert [(row.name, row.values) for row in found.config] == [("training.optimizer.lr", (0.01, 0.5, ABSENT))]
    assert "'model.' taken away from" in found.renamed[0]
    assert found.subjects[1].origin == ("not known",)


def test_a_damaged_checkpoint_is_an_error(save, state, tmp_path):
    path = save("a.pth", state)
    data = bytearray((tmp_path / "a.pth").read_bytes())
    data[200] ^= 1
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        read_subject(path)


def test_the_table_holds_all_of_it(save, state, capsys):
    one = save("a.pth", state)
    other = save("b.pth", changed(state, "head", 1.5), {"training": {"optimizer": {"lr": 0.02}, "init_from": "x.pth"}})
    assert main(["compare", one, other]) == 0
    shown = capsys.readouterr().out
    for words in ("started from", "training.optimizer.lr", "0.02", "val/map", "‖A−B‖ / ‖A‖", "0.5"):
        assert words in shown


def test_json_is_strict_and_the_only_thing_on_stdout(save, state, capsys):
    one, other = save("a.pth", state), save("b.pth", state, metrics={"val/map": math.nan})
    assert main(["compare", one, other, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert [subject["label"] for subject in found["subjects"]] == [one, other]
    assert {"name": "val/map", "values": [0.5, None]} in found["metrics"]
    assert [row["relative_change"] for row in found["weights"]] == [[0.0]] * 5


def test_the_page_is_whole_without_the_network_and_escapes_what_it_shows(save, state, tmp_path):
    one = save("a.pth", state, {"name": "<script>alert(1)</script>"})
    other = save("b.pth", state, {"name": "it's & more"})
    target = tmp_path / "page.html"
    assert main(["compare", one, other, "--format", "html", "--output", str(target)]) == 0
    page = target.read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>alert" not in page
    for fetch in ("http:", "https:", "url(", "@import", "src="):
        assert fetch not in page
    assert page.count("<table>") == page.count("</table>") == 4


def test_what_is_no_character_is_written_as_its_escape(save, state, tmp_path):
    one, other = save("a.pth", state, {"name": "half \ud800"}), save("b.pth", state, {"name": "red \x1b[31m"})
    target = tmp_path / "page.html"
    assert main(["compare", one, other, "--format", "html", "--output", str(target)]) == 0
    for shown in (r"half \ud800", r"red \x1b[31m"):
        assert shown in target.read_text()


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["nowhere.pth", "nowhere.pth"], 2, "nowhere.pth does not exist"),
    (["{one}", "{one}", "--output", "x.txt"], 2, "--output needs --format json or html"),
    (["{one}", "{one}", "--format", "json", "--output", "no/x.json"], 2, "--output no/x.json: there is no folder no"),
    (["{one}", "{text}"], 1, "text.pth cannot be read as a checkpoint"),
])  # fmt: skip
def test_bad_usage_ends_in_one_message(save, state, tmp_path, capsys, arguments, code, words):
    (tmp_path / "text.pth").write_text("notes")
    names = {"one": save("a.pth", state), "text": str(tmp_path / "text.pth")}
    assert main(["compare", *(text.format(**names) for text in arguments)]) == code
    assert words in capsys.readouterr().err


def test_one_alone_can_not_be_compared(capsys):
    assert main(["compare", "a.pth"]) == 2
    assert "name two or more runs or checkpoints" in capsys.readouterr().err


@pytest.mark.parametrize(("changes", "place"), [
    ({"metrics": {"val/map": "x"}}, "metrics.val/map"), ({"best": {"metric": 3, "value": 0.5}}, "best.metric"),
    ({"epoch": []}, "epoch"),
    ({"optimizer_state_dict": {"param_groups": ["x"]}}, "optimizer_state_dict.param_groups.0"), ({"metadata": 7}, "metadata"),
    ({"progress": {"cost": {"seconds": None}}}, "progress.cost.seconds"), ({"config": [1]}, "config"),
    ({"classes": 3}, "classes"),
    ({"metadata": {"resumed_from": ["x"]}}, "metadata.resumed_from.0"),
    ({"model_state_dict": {"w": "text"}}, "model_state_dict"),
])  # fmt: skip
def test_odd_content_under_a_right_checksum_is_named(save, state, changes, place):
    with pytest.raises(CheckpointError, match=f"a.pth does not hold what a checkpoint does: no _Saved: {place}: "):
        read_subject(save("a.pth", state, **changes))


def test_a_value_that_json_has_not_is_shown_all_the_same():
    assert value_text({(1, 2): "x"}) == "{(1, 2): 'x'}"
