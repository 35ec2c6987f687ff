"""Words of a command line that Hydra can't read are shown as they have to be typed."""

import shlex
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from winnow.config.compose import compose_command_line
from winnow.config.quoting import for_shell, quoted_override, quoting_advice, with_home
from winnow.errors import ConfigError
from winnow.run.program import message_of

ODD = [
    "/d/a(1)", "/d/x=1", "/d/50%", "/d/[x]", "/d/{x}", "/d/a~b", "/d/日本", "/d/é", "/d/it's", '/d/"so"', "C:\\d\\x", "/d/a b",
    "/d/a,b", "/d/a;b", "/d/a&b", "/d/$x", "/d/a!b", "/d/`x`", "/d/#1", "/d/a\\", "/d/a:b", "", "null", "7",
]  # fmt: skip


@pytest.mark.parametrize("value", ODD[:-3])
def test_what_is_typed_comes_back_through_the_shell_and_hydra(value):
    (word,) = shlex.split(for_shell(quoted_override("data.root", value)))
    assert OverridesParser.create().parse_override(word).value() == value


@pytest.mark.parametrize("value", ["/d/a(1)", "/d/x=1", "/d/[x]", "/d/日本", "/d/a~b", "/d/it's", "/d/a,b"])
def test_the_error_shows_the_quoted_form(value):
    with pytest.raises(ConfigError) as refused:
        compose_command_line(None, ["data=coco", f"data.root={value}"])
    line = str(refused.value).splitlines()[-1]
    assert line.startswith("a value with signs of its own is typed in quotes: ")
    (word,) = shlex.split(line.partition("quotes: ")[2])
    assert OverridesParser.create().parse_override(word).value() == value


def test_signs_of_a_path_are_in_quotes_that_are_easy_to_read():
    assert quoting_advice(["data.root=/d/a(1)"]).endswith("""quotes: "data.root='/d/a(1)'\"""")


def test_words_that_hydra_reads_get_no_advice():
    assert quoting_advice(["data.root=/d/50%", "data=coco", "~data.val", "training.no_decay=[a,b]", "--multirun"]) == ""


def test_the_program_shows_it_too(monkeypatch):
    monkeypatch.setattr("sys.argv", ["train.py", "data.root=/d/a(1)"])
    with pytest.raises(Exception, match="mismatched") as refused:
        OverridesParser.create().parse_override("data.root=/d/a(1)")
    assert """typed in quotes: "data.root='/d/a(1)'\"""" in message_of(refused.value)


@pytest.mark.parametrize(("typed", "meant"), [
    ("data.root=~/cells", "cells"), ("data.root=~", ""), ("+data.more=~/my cells (1)", "my cells (1)"),
])  # fmt: skip
def test_a_tilde_is_the_home_folder(monkeypatch, tmp_path, typed, meant):
    monkeypatch.setenv("HOME", str(tmp_path))
    (word,) = with_home([typed])
    assert OverridesParser.create().parse_override(word).value() == str(Path(tmp_path, meant))


@pytest.mark.parametrize("text", ["~data.val", "data.root=/a/~b", "data.root=~anna/x", "model=fcos", "x"])
def test_other_tildes_are_left_alone(text):
    assert with_home([text]) == [text]


def test_a_tilde_in_quotes_is_the_home_folder_of_whoever_reads_the_data(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    from winnow.families.detection.settings import PartPaths

    assert PartPaths(images="~/a b", annotations=None).images == f"{tmp_path}/a b"


def test_a_very_long_value_is_not_shown_again():
    assert quoting_advice(["training.freeze=[a" + 600 * "9"]) == ""
