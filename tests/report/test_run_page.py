"""The page of a run, as its end and ``winnow report`` write it."""

import re
import shutil

import numpy as np
import pytest

from winnow.commands.cli import main
from winnow.errors import ConfigError
from winnow.report.run import RunFiles
from winnow.run import record
from winnow.tracking.epoch_table import read_epochs

RUN = [
    "model=fcos_tiny", "tracking=off", "data.num_train=16", "data.num_val=6", "training.max_epochs=2", "training.batch_size=4",
    "training.num_workers=0", "training.scheduler.warmup_steps=2", "evaluation.score_threshold=0",
]  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, warm_program):
    place = tmp_path_factory.mktemp("report")
    warm_program.run(place, *RUN, "hydra.run.dir=run")
    return place


@pytest.fixture
def run(workplace, tmp_path, monkeypatch):
    """Return a copy of the run; its data lies in the working directory."""
    monkeypatch.chdir(workplace)
    shutil.copytree(workplace / "run", tmp_path / "run")
    return tmp_path / "run"


def headings(page):
    return re.findall(r"<h2>([^<]*)</h2>", page)


def test_a_run_ends_with_a_page_about_it(workplace):
    page = (workplace / "run" / "report.html").read_text()
    assert headings(page) == [
        "Overview", "Curves", "Classes", "Precision and recall", "Confusions", "Kinds of errors", "Images",
        "Suspected label errors", "Speed and cost", "What to do next",
    ]  # fmt: skip
    assert "completed" in page
    assert "data.num_train" in page
    assert page.count("data:image/jpeg;base64,") >= 4
    assert "a page about the run: " in (workplace / "run" / "train.log").read_text()
    assert len(page) < 5_000_000


def test_the_command_writes_the_same_page_again(run):
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert main(["report", str(run)]) == 0
    page = (run / "report.html").read_text()
    assert headings(page) == headings(before)
    assert page.count("data:image/jpeg") == before.count("data:image/jpeg")


def test_the_command_says_where_it_wrote(run, tmp_path, capsys):
    assert main(["report", str(run), "--output", str(tmp_path / "page.html"), "--images", "1", "--no-data"]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "page.html")
    assert "can&#39;t be read here, so none is shown" in (tmp_path / "page.html").read_text()


def test_a_run_whose_images_are_gone_has_a_page_without_pictures(run, tmp_path, monkeypatch, caplog):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("root: data/digits", f"root: {run}/config.yaml/digits"))
    assert main(["report", str(run)]) == 0
    assert "no image is shown, the run's data can't be had" in caplog.text
    assert "data:image/jpeg" not in (run / "report.html").read_text()


def test_a_folder_without_a_run_and_damaged_files_are_refused(run, tmp_path, capsys):
    assert main(["report", str(tmp_path)]) == 2
    assert "is no run folder: it has no config.yaml" in capsys.readouterr().err
    (run / "val_detections.npz").write_bytes(b"torn")
    assert main(["report", str(run)]) == 1
    assert "val_detections.npz" in capsys.readouterr().err


@pytest.mark.parametrize(("file", "content"), [
    ("result.json", '{"best": {"value": 1}}'), ("result.json", '{"best": [1]}'), ("result.json", '{"seconds": "x"}'),
    ("result.json", '{"best_metrics": [1]}'), ("environment.json", '{"command": {"a": [1, {}]}}'),
])  # fmt: skip
def test_what_no_run_writes_is_refused_or_shown_and_no_traceback(run, file, content, capsys):
    (run / file).write_text(content)
    code = main(["report", str(run), "--no-data"])
    assert code == 0 or (code == 2 and str(run) in capsys.readouterr().err)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("labels", lambda value: value + 1000), ("scores", lambda value: value * np.nan), ("image_ids", lambda value: value[:0]),
        ("classes", lambda value: value[:1]), ("boxes", lambda value: value[:, :2]),
    ],
)  # fmt: skip
def test_stored_detections_that_no_evaluation_gave_are_refused_by_name(run, name, change, capsys):
    with np.load(run / "val_detections.npz") as kept:
        arrays = dict(kept)
    np.savez(run / "val_detections.npz", **(arrays | {name: change(arrays[name])}))
    assert main(["report", str(run), "--no-data"]) == 2
    assert "val_detections.npz does not hold what an evaluation of this family keeps" in capsys.readouterr().err


def test_a_run_without_stored_detections_has_a_page_of_the_rest(run):
    (run / "val_detections.npz").unlink()
    assert main(["report", str(run)]) == 0
    assert headings((run / "report.html").read_text()) == ["Overview", "Curves", "Speed and cost", "What to do next"]


def test_what_goes_wrong_with_the_page_ends_no_run(monkeypatch, caplog, run):
    def broken(*args, **options):
        raise RuntimeError("no page today")

    monkeypatch.setattr(record, "write_run_report", broken)
    monkeypatch.setattr(record, "instantiate", lambda *args: None)
    monkeypatch.setattr(record, "result_of", lambda *args: record.RunResult("completed"))

    class Parts:
        folder, config, data, tracker = run, {}, None, None

    record.write_page(Parts, Parts, "completed")
    assert "no page about the run: RuntimeError: no page today" in caplog.text


def test_its_files_are_read_as_they_were_written(run):
    files = RunFiles.read(run)
    assert files.title == "fcos_tiny · digits · lr 0.003"
    assert [row["epoch"] for row in read_epochs(run / "metrics.csv")] == [1, 2]
    assert "data.num_val=6" in files.overrides
    (run / "config.yaml").write_text("[1, 2]")
    with pytest.raises(ConfigError, match="config.yaml holds list"):
        RunFiles.read(run)


def test_a_comparison_of_runs_is_a_page_too(run, tmp_path):
    assert main(["report", str(run), str(run), "--output", str(tmp_path / "both.html")]) == 0
    assert "2 checkpoints compared" in (tmp_path / "both.html").read_text()


def test_the_words_of_a_stage_are_its_pipelines_and_none_are_made_up(run):
    stage = run / "structural"
    stage.mkdir()
    shutil.copy(run / "config.yaml", stage)
    own = RunFiles.read(run).overrides
    assert "data.num_train=16" in own
    assert RunFiles.read(stage).overrides == own
    shutil.rmtree(run / ".hydra")
    assert RunFiles.read(stage).overrides is None
