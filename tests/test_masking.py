"""Secrets in addresses and texts, masked; and where their like is found again."""

import logging
import subprocess
import sys

import pytest

from winnow import masking
from winnow.masking import by_environment, masked, masked_tracking, override_by_environment, usable, usable_tree

SECRET = "s3cret-Word"


@pytest.mark.parametrize(("text", "shown"), [
    ("postgresql+psycopg://me:s3cret-Word@host:5432/db", "postgresql+psycopg://me:***@host:5432/db"),
    ("postgresql://:s3cret-Word@host/db", "postgresql://:***@host/db"),
    ("postgresql://host/db?user=me&password=s3cret-Word&x=1", "postgresql://host/db?user=me&password=***&x=1"),
    ("postgresql://me@host/db?sslpassword=s3cret-Word", "postgresql://me@host/db?sslpassword=***"),
    ("mysql+pymysql://me:s3cret-Word@host/db?passwd=s3cret-Word", "mysql+pymysql://me:***@host/db?passwd=***"),
    ("postgresql://me:a/s3cret-Word@host/db", "postgresql://me:***@host/db"),
    ("http://me:a@s3cret-Word@host:5000/x", "http://me:***@host:5000/x"),
    ("https://s3cret-Word@host/x", "https://***@host/x"),
    ("https://host/?access_token=s3cret-Word#x", "https://host/?access_token=***#x"),
    ("https://host/x?api_key=s3cret-Word", "https://host/x?api_key=***"),
    ("databricks://token:s3cret-Word@host", "databricks://token:***@host"),
    ("postgresql://me:it's-s3cret-Word\"@host/db", "postgresql://me:***@host/db"),
    ("mssql+pyodbc://?odbc_connect=DRIVER%3D;PWD%3Ds3cret-Word", "mssql+pyodbc://?odbc_connect=***"),
    ("host=h password=s3cret-Word dbname=x", "host=h password=*** dbname=x"),
    ("host=h password='s3cret-Word with space' dbname=x", "host=h password=*** dbname=x"),
    ("train.py 'tracking.uri=http://me:s3cret-Word@host' lr=1", "train.py 'tracking.uri=http://me:***@host' lr=1"),
    ("+tracking.api_key=s3cret-Word", "+tracking.api_key=***"),
    ("{'Authorization': 'Basic s3cretWord=='}", "{'Authorization': 'Basic ***'}"),
])  # fmt: skip
def test_a_secret_is_masked_and_the_rest_stays(text, shown):
    assert masked(text) == shown
    assert masked(shown) == shown


@pytest.mark.parametrize("text", [
    "sqlite:////a/b.db", "postgresql+psycopg://me@host:5432/db?sslkey=/a/key&passfile=/a/file", "http://127.0.0.1:5000/a@b",
    "http://[::1]:5000/a@b", "training.optimizer.lr=0.1", "model.tokenizer=bert", "databricks", "a:b@c",
    "journal:///a/b.log", "${oc.env:PASSWORD}",
])  # fmt: skip
def test_what_holds_none_is_left_alone(text):
    assert masked(text) == text


def test_a_trackers_keys_that_are_called_secrets_are_masked():
    node = {"api_key": SECRET, "tokens": 3, "deep": {"token": SECRET, "text": "x"}, "password": "${oc.env:X}"}
    assert masked_tracking(node) == {
        "api_key": "***", "tokens": 3, "deep": {"token": "***", "text": "x"}, "password": "${oc.env:X}",
    }  # fmt: skip


WHOLE = f"http://me:{SECRET}@host:5000"


@pytest.mark.parametrize(("kept", "given", "environment", "used"), [
    ("sqlite:///a.db", "sqlite:///b.db", {}, "sqlite:///a.db"),
    ("http://me:***@host:5000", WHOLE, {}, WHOLE),
    ("http://me:***@host:5000", "http://me:other@host:5000", {}, "http://me:other@host:5000"),
    ("http://me:***@host:5000", "sqlite:///mlflow.db", {}, "http://me:***@host:5000"),
    ("http://me:***@host:5000", "***", {"MLFLOW_TRACKING_USERNAME": "me"}, "http://host:5000"),
    ("https://***@host/x", None, {"MLFLOW_TRACKING_TOKEN": "t"}, "https://host/x"),
    ("https://host/?token=***", None, {"MLFLOW_TRACKING_TOKEN": "t"}, "https://host/?token=***"),
    ("postgresql://me:***@host/db", None, {"PGPASSWORD": "p"}, "postgresql://me@host/db"),
    ("postgresql://:***@host/db?user=me", None, {"PGPASSFILE": "p"}, "postgresql://host/db?user=me"),
    ("postgresql://me@host/db?password=***&x=1", None, {"PGPASSWORD": "p"}, "postgresql://me@host/db?x=1"),
    ("postgresql://me@host/db?x=1&password=***", None, {"PGPASSWORD": "p"}, "postgresql://me@host/db?x=1"),
    ("postgresql://me:***@host/db", None, {}, "postgresql://me:***@host/db"),
    ("mysql://me:***@host/db", None, {"PGPASSWORD": "p"}, "mysql://me:***@host/db"),
    ("***", "sqlite:///mlflow.db", {}, "sqlite:///mlflow.db"),
    ("***", 3, {}, 3),
    ("***", "***", {"MLFLOW_TRACKING_USERNAME": "me"}, "***"),
])  # fmt: skip
def test_a_masked_address_is_used_only_by_the_commands_or_the_environments_secret(kept, given, environment, used):
    assert usable(kept, given, environment) == used


@pytest.mark.parametrize(("value", "is_so"), [
    ("***", True), ("http://me:***@h", True), ("https://***@h/x", True), ("//h?token=***&x=1", True), ("password=***", True),
    ("*** read this ***", False), ("http://h/***", False), ("x=****", False), ("http://h/?x=***y", False), (None, False),
])  # fmt: skip
def test_what_has_lost_its_secret_is_told_from_stars(value, is_so):
    assert masking.is_masked(value) == is_so


def test_a_nested_config_gets_its_secrets_from_the_commands():
    kept = {"uri": "http://me:***@host:5000", "tags": {"a": "***"}, "list": ["***", 1], "x": 1}
    given = {"uri": WHOLE, "tags": {"a": "b"}, "list": ["c", 2], "x": 2}
    assert usable_tree(kept, given) == {"uri": WHOLE, "tags": {"a": "b"}, "list": ["c", 1], "x": 1}
    assert usable_tree({"uri": {"a": "***"}}, {"uri": 1}) == {"uri": {"a": "***"}}


def test_an_override_travels_by_the_environment(monkeypatch):
    monkeypatch.setenv("WINNOW_SECRET_0", "another")
    monkeypatch.setenv("WINNOW_SECRET_1", "is set here, so that it goes with the test")
    monkeypatch.delenv("WINNOW_SECRET_1")
    override = override_by_environment(f"tracking.uri={WHOLE}")
    assert override == "tracking.uri=${oc.env:WINNOW_SECRET_1}"
    assert masked(override) == "tracking.uri=http://me:***@host:5000"
    assert override_by_environment(f"tracking.uri='{WHOLE}'") == override
    assert masking.masked_override(override) == "tracking.uri=http://me:***@host:5000"
    assert masking.masked_override(f"tracking.uri={WHOLE}") == "tracking.uri=http://me:***@host:5000"
    with_query = override_by_environment(f"tracking.uri='http://host/?a=it\\'s&token={SECRET}'")
    assert masking.masked_override(with_query) == "tracking.uri='http://host/?a=it\\'s&token=***'"
    assert by_environment("another") == "${oc.env:WINNOW_SECRET_0}"
    quoted = override_by_environment("tracking.uri='http://me:it\\'s@host'")
    assert masking.referred_to(quoted.partition("=")[2]) == "http://me:it's@host"
    for other in (
        "training.max_epochs=3",
        f"x=[{WHOLE}]",
        f"x=choice(a,{WHOLE})",
        f"x={WHOLE},b",
        f"--uri={WHOLE}",
        WHOLE,
    ):
        assert override_by_environment(other) == other


PROGRAM = """
import logging, sys, traceback
from winnow.masking import mask_output, remember
mask_output()
mask_output()
logging.basicConfig(format="%(message)s", handlers=[logging.StreamHandler(sys.__stderr__), logging.FileHandler(sys.argv[1])])
remember("postgresql://me:pass%2Fw0rd@host/db", "postgresql://optuna:optuna@host/optuna")
print("uri", "http://me:s3cret-Word@host")
try:
    raise ValueError("http://me:s3cret-Word@host and pass/w0rd alone, optuna stays")
except ValueError:
    logging.exception("failed with %s", "pass%2Fw0rd")
    traceback.print_exc()
logging.error("three %d", "not a number")
raise RuntimeError("password=s3cret-Word")
"""


def test_a_programs_streams_logs_and_tracebacks_are_masked(tmp_path):
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "a.log"), "x=//h?token=Argument9"],
        capture_output=True,
        text=True,
    )
    everything = ran.stdout + ran.stderr + (tmp_path / "a.log").read_text()
    assert "uri http://me:***@host\n" in ran.stdout
    assert everything.count("http://me:***@host and *** alone, optuna stays") == 3
    assert "failed with ***" in (tmp_path / "a.log").read_text()
    assert "password=***" in ran.stderr
    for secret in ("pass/w0rd", "pass%2Fw0rd"):
        assert secret not in everything
    # the traceback that Python itself prints quotes the source line
    assert [line for line in everything.splitlines() if "s3cret" in line] == []


def test_words_too_short_or_named_otherwise_are_not_remembered(monkeypatch):
    monkeypatch.setattr(masking, "_words", {})
    masking.remember(
        "postgresql://me:short@h/db", "postgresql://trainer:trainer@h/db", "postgresql://me:long-enough@h/db"
    )
    assert list(masking._words) == ["long-enough"]
    assert masking.masked_output("long-enough, short") == "***, short"


def test_what_the_environment_gave_is_recorded_as_stars(monkeypatch):
    monkeypatch.setattr(masking, "_words", {})
    monkeypatch.setattr(masking, "_looked_up", set())
    masking.remember_looked_up(
        {"uri": "http://plain:5000", "experiment": "detectors", "drain": 3, "api_key": "abcdefgh"}
    )
    assert [masking.recorded(value) for value in ("http://plain:5000", "detectors", "other", None, WHOLE)] == [
        "***", "***", "other", None, "http://me:***@host:5000",
    ]  # fmt: skip
    assert masking.masked_output("detectors at http://plain:5000 by abcdefgh") == "detectors at *** by ***"


def test_a_record_without_secrets_keeps_its_arguments(monkeypatch):
    factory = masking._MaskedRecords(logging.LogRecord)
    record = factory("x", logging.INFO, "f.py", 1, "a %s", ("b",), None)
    assert (record.msg, record.args) == ("a %s", ("b",))


FORKING = """
import os, sys, time
from pathlib import Path
from winnow.masking import mask_output
mask_output()
pid = os.fork()
if pid == 0:
    time.sleep(60)
sys.__stdout__.write(Path(f"/proc/{pid}/cmdline").read_text())
os.kill(pid, 9)
"""


def test_a_fork_does_not_show_the_secret_of_its_parents_command():
    arguments = [f"tracking.uri={WHOLE}", "x=3", f"y=//h?password={SECRET}&token={SECRET[::-1]}"]
    shown = subprocess.check_output([sys.executable, "-c", FORKING, *arguments], text=True).split("\0")
    stars = "*" * len(SECRET)
    assert shown[-4:-1] == [f"tracking.uri=http://me:{stars}@host:5000", "x=3", f"y=//h?password={stars}&token={stars}"]


@pytest.mark.parametrize("text", [
    "a" * 10**6 + "=1", "a." * 10**5 + "=1", "http://" + "a" * 10**6 + "=", "tracking." * 10**5 + "=", "password" * 10**5 + "=",
    "password='" + "a" * 10**6, "[" * 10**6 + "=1",
])  # fmt: skip
def test_a_line_of_a_megabyte_is_read_in_one_go(text):
    assert masked(text).count("=") == text.count("=")  # a pattern that begins anew at each character would take an hour


@pytest.mark.parametrize("before", ["", "1", "-", "_", "x.", "a" * 50, "=", "'"])
def test_what_stands_before_an_address_does_not_hide_it(before):
    assert masked(f"{before}http://me:secret@host/x") == f"{before}http://me:***@host/x"
