"""Who holds a run folder, and stamps of processes that earlier versions wrote."""

import json
import os
import socket
import subprocess
import sys

import pytest

from winnow.errors import ConfigError
from winnow.process import ProcessStamp
from winnow.run_folder import sole_owner
from winnow.tracking.folder import UploadSettings

HOLD = """
import sys
from pathlib import Path
from winnow.run_folder import sole_owner
with sole_owner(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_the_error_about_a_held_folder_says_who_holds_it(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(ConfigError, match=rf"process {other.pid} on {socket.gethostname()} since 20"),
            sole_owner(tmp_path),
        ):
            pass
        other.stdin.close()
    with sole_owner(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".owner.json").exists()


def test_tracking_settings_of_an_earlier_version_are_read_and_nothing_is_said_of_their_process(tmp_path):
    path = tmp_path / "settings.json"
    UploadSettings("key", 1000, ProcessStamp.this_process(), "sqlite:///a.db", "winnow", "run").write(path)
    assert UploadSettings.read(path).owner.is_alive()
    content = json.loads(path.read_text())
    content["owner"] = {"host": socket.gethostname(), "pid": os.getpid(), "started": 12.5}
    path.write_text(json.dumps(content))
    assert UploadSettings.read(path).owner.is_alive() is None
