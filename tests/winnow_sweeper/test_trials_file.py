"""Explicit trials from a file: each mistake named with its line, before anything starts."""

import json

import optuna
import pytest
from space_parts import composer, space_of

from hydra_plugins.winnow_sweeper._trials_file import ExplicitTrial, read_trials, without_repeats
from winnow.errors import ConfigError

SPACE = space_of(
    training__optimizer__lr="tag(log,interval(1e-5,1e-2))", training__batch_size="int(interval(2,16))",
    training__optimizer__betas="choice([0.9,0.999],[0.8,0.99])", training__amp="choice(auto,'off',true)",
    training__clip_grad_norm="range(0,1,0.25)",
)  # fmt: skip
LR, BATCH, BETAS, AMP = "training.optimizer.lr", "training.batch_size", "training.optimizer.betas", "training.amp"


@pytest.fixture(scope="module")
def compose():
    return composer()


def write(folder, name, text):
    (folder / name).write_text(text)
    return folder / name


def mistakes(path, compose, space=SPACE):
    with pytest.raises(ConfigError) as error:
        read_trials(path, space, compose)
    return str(error.value).replace(str(path), "FILE").splitlines()


WANTED = [
    ({LR: 1e-4, BATCH: 8, BETAS: "[0.9,0.999]", AMP: "auto"}, ()),
    ({LR: 1e-3, AMP: True}, ("training.max_epochs=3", "training.freeze=[a b]")),
]


JSON = """[
\t{"training.optimizer.lr": 1e-4, "training.batch_size": 8,
  "training.optimizer.betas": [0.9, 0.999], "training.amp": "auto"},
{"training.optimizer.lr": 0.001, "training.amp": true, "training.max_epochs": 3, "training.freeze": ["a b"]}]"""
YAML = """# by hand
- training.optimizer.lr: 1e-4
  training.batch_size: 8
  training.optimizer.betas: [0.9, 0.999]
  training.amp: auto
- {training.optimizer.lr: 0.001, training.amp: true, training.max_epochs: 3, training.freeze: [a b]}
"""
KEYS = (LR, BATCH, BETAS, AMP, "training.max_epochs", "training.freeze")
CSV = f'{",".join(KEYS)}\n1e-4,8,"[0.9,0.999]",auto,,\n0.001,,,true,3,[a b]\n'
SPREADSHEET = f'\ufeff{", ".join(KEYS)}\r\n\r\n1e-4, 8, "[0.9,0.999]", auto, ,\r\n0.001,,,true,3,[a b]\r\n'


@pytest.mark.parametrize(("name", "text"), [("t.json", JSON), ("t.yaml", YAML), ("t.csv", CSV), ("t.CSV", SPREADSHEET)])
def test_three_formats_say_the_same(tmp_path, compose, name, text):
    trials = read_trials(write(tmp_path, name, text), SPACE, compose)
    assert [(trial.params, trial.overrides) for trial in trials] == WANTED


def test_trials_are_what_optuna_enqueues(tmp_path, compose):
    path = write(tmp_path, "t.json", json.dumps([{LR: 1e-4, BETAS: [0.8, 0.99]}]))
    study = optuna.create_study()
    study.enqueue_trial(read_trials(path, SPACE, compose)[0].params)
    trial = study.ask(fixed_distributions=SPACE.distributions)
    assert SPACE.values(trial.params)[LR] == 1e-4
    assert SPACE.values(trial.params)[BETAS] == [0.8, 0.99]


@pytest.mark.parametrize(("cell", "message"), [
    ('"training.optimizer.lr": 0.5', "training.optimizer.lr=0.5: out of range; allowed: log(1e-05, 0.01)"),
    ('"training.optimizer.lr": "0.01"', 'training.optimizer.lr="0.01": a str, must be a number'),
    ('"training.optimizer.lr": true', "training.optimizer.lr=true: a bool, must be a number"),
    ('"training.optimizer.lr": NaN', "training.optimizer.lr=NaN: out of range"),
    ('"training.optimizer.lr": null', "training.optimizer.lr=null: a NoneType, must be a number"),
    ('"training.batch_size": 4.0', "training.batch_size=4.0: a float, must be a whole number; allowed: int(2, 16)"),
    ('"training.batch_size": 17', "training.batch_size=17: out of range"),
    ('"training.clip_grad_norm": 0.3', "between two steps; allowed: range(0.0, 0.75, step 0.25)"),
    ('"training.amp": "bf16"', 'training.amp="bf16": not a choice; allowed: choice(auto, off, true)'),
    ('"training.amp": 1', "training.amp=1: not a choice"),
    ('"training.optimizer.betas": "[0.9,0.999]"', "not a choice; allowed: choice([0.9,0.999], [0.8,0.99])"),
    ('"training.max_epoch": 3', "training.max_epoch=3: Could not override 'training.max_epoch'."),
    ('"model": "fcos_huge"', "model=fcos_huge: "),
    ('"a=b": 3', "is no key"),
    ('"~training.amp": 3', "not a choice"),
    ('"~training.compile": 3', "is no key"),
    ('"training.batch_size": 4, "training.batch_size": 5', "training.batch_size is given twice in one trial, first in line 3"),
    ('"training.batch_size": 4, "++training.batch_size": 5', "is given twice in one trial, with and without its prefix"),
])  # fmt: skip
def test_a_wrong_value_is_named_with_its_line(tmp_path, compose, cell, message):
    (line,) = mistakes(write(tmp_path, "t.json", '[{"training.amp": "auto"},\n {\n  ' + cell + "}]"), compose)
    assert line.startswith("FILE, line 3: ")
    assert message in line


@pytest.mark.parametrize(("name", "text", "expected"), [
    ("t.json", "", "FILE: is empty"),
    ("t.json", " \n", "FILE: is empty"),
    ("t.json", "[]", "FILE: holds no trial"),
    ("t.json", '{"a": 1}', "FILE: must be a list of trials"),
    ("t.json", '[{"a": 1},\n 3]', "FILE, line 2: a trial must be a mapping"),
    ("t.json", '[{"training.seed": 1},\n {}]', "FILE, line 2: a trial without any key"),
    ("t.json", '[{"a": 1},\n{"a": 2,}]', "FILE, line 2: not JSON: "),
    ("t.json", '[{"a": 1}', "FILE, line 1: not JSON: expecting ',' delimiter"),
    ("t.yaml", "a: 1\n", "FILE: must be a list of trials, as - training.optimizer.lr: 1e-4"),
    ("t.yaml", "- a: 1\n  b: [\n", "FILE, line 3: not YAML: "),
    ("t.yml", "- 3\n", "FILE, line 1: a trial must be a mapping"),
    ("t.yaml", "- training.seed: 1\n- !!python/object:os.system {}\n", "FILE, line 2: "),
    ("t.yaml", "- training.seed: !!int x\n", "FILE: not YAML: "),
    ("t.yaml", "- training.seed: \0\n", "FILE: not YAML: "),
    ("t.yaml", "- training.freeze: " + "[" * 3000, "FILE: not YAML: nests too deep"),
    ("t.yaml", "- training.optimizer.lr: " + "9" * 400, "FILE, line 1: training.optimizer.lr=999"),
    ("t.json", '[{"training.optimizer.lr": ' + "9" * 400 + "}]", "FILE, line 1: training.optimizer.lr=999"),
    ("t.csv", "training.seed\n" + "[" * 5000, "FILE, line 2: training.seed: "),
    ("t.csv", "training.seed,\n1,2\n", "FILE, line 1: column 2 of the header has no key"),
    ("t.csv", "training.optimizer.betas\n[0.9,0.999]\n", "FILE, line 2: 2 cells under 1 keys; quote a cell"),
    ("t.csv", 'training.seed\n1\n"2\n', "FILE, line 3: not CSV: "),
    ("t.csv", 'training.seed\n"1,2"\n', "FILE, line 2: training.seed: '1,2' is a sweep"),
    ("t.csv", "training.seed\n", "FILE: holds no trial"),
    ("t.csv", "training.seed,training.seed\n1,2\n", "FILE, line 2: training.seed is given twice"),
    ("t.toml", "a = 1", "FILE: unknown suffix '.toml'; allowed: .json, .yaml, .yml, .csv"),
])  # fmt: skip
def test_a_file_that_is_no_list_of_trials_is_refused(tmp_path, compose, name, text, expected):
    (line,) = mistakes(write(tmp_path, name, text), compose)
    assert line.startswith(expected)
    assert len(line) < 1000


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path, compose):
    assert mistakes(tmp_path / "t.json", compose) == ["FILE: no such file"]
    (tmp_path / "t.csv").write_bytes(b"\xff\xfe\x00")
    assert mistakes(tmp_path / "t.csv", compose)[0].startswith("FILE: can't be read as text")


@pytest.mark.parametrize(("name", "text"), [
    ("t.json", '[\n{"training.batch_size": 99},\n{"training.optimizer.lr": "x",\n "training.nope": 1, "training.neither": 2}]'),
    ("t.yaml", "\n- training.batch_size: 99\n- training.optimizer.lr: x\n  training.nope: 1\n  training.neither: 2\n"),
])  # fmt: skip
def test_everything_wrong_is_told_at_once(tmp_path, compose, name, text):
    lines = mistakes(write(tmp_path, name, text), compose)
    assert [line.split(":")[0] for line in lines] == [
        f"FILE, line {n}" for n in ([2, 3, 4, 4] if name == "t.json" else [2, 3, 4, 5])
    ]


def test_an_override_may_need_the_trials_own_choice(tmp_path, compose):
    space = space_of("training.seed=3", model="choice(fcos_tiny,deformable_detr_tiny)")
    path = write(tmp_path, "t.yaml", "- model: deformable_detr_tiny\n  model.num_queries: 20\n- model.head_convs: 1\n")
    assert [trial.overrides for trial in read_trials(path, space, compose)] == [
        ("model.num_queries=20",),
        ("model.head_convs=1",),
    ]
    path.write_text("- model: fcos_tiny\n  model.num_queries: 20\n")
    assert mistakes(path, compose, space)[0].startswith("FILE, line 2: model.num_queries=20: Could not override")


def test_keys_match_with_or_without_their_prefix(tmp_path, compose):
    space = space_of("+training.more=0", "++training.some=choice(1,2)")
    path = write(tmp_path, "t.json", '[{"training.some": 2, "training.more": 3}]')
    assert read_trials(path, space, compose) == [ExplicitTrial({"++training.some": 2}, ("training.more=3",), 1)]


def test_a_whole_number_is_a_float_too(tmp_path, compose):
    (trial,) = read_trials(write(tmp_path, "t.json", '[{"x": 1}]'), space_of(x="interval(0,2)"), compose)
    assert repr(trial.params) == "{'x': 1.0}"


def test_yaml_anchors_are_followed_and_dates_stay_text(tmp_path, compose):
    text = "- &first {training.seed: 1, training.batch_size: 4}\n- <<: *first\n  training.resume: 2020-01-01\n"
    trials = read_trials(write(tmp_path, "t.yaml", text), SPACE, compose)
    assert trials[1].params == {BATCH: 4}
    assert set(trials[1].overrides) == {"training.seed=1", "training.resume=2020-01-01"}


def test_equal_trials_run_once_but_where_the_sampler_completes_them(tmp_path, compose, caplog):
    trials = read_trials(path := write(tmp_path, "t.csv", f"{BATCH}\n4\n5\n4\n"), SPACE, compose)
    kept = without_repeats(path, trials, space_of(training__batch_size="choice(4,5)"))
    assert [trial.line for trial in kept] == [2, 3]
    assert "line 4: the same trial as in line 2; it runs once" in caplog.text
    assert without_repeats(path, trials, space_of(training__batch_size="choice(4,5)", more="1,2")) == trials


@pytest.mark.parametrize("key", ["trusted_targets", "hydra.launcher.setup", "hydra/callbacks", "experiment@hydra"])
def test_a_list_may_not_decide_what_is_executed(tmp_path, compose, key):
    path = write(tmp_path, "t.json", json.dumps([{"training.seed": 1}, {key: ["x"]}], indent=1))
    assert mistakes(path, compose) == [
        f'FILE, line 6: {key}=["x"]: a list of trials may not decide what is executed; give it on the command line'
    ]
