"""This process's output, and text as it may be shown: what came from a user or a file is never obeyed by a terminal."""

from __future__ import annotations

import os
import re
import select
import sys

# Control characters but tab and newline, halves of characters, and what changes the direction of writing.
_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: object) -> str:
    """Return text with each character that a terminal would obey, or can't write, as its escape: ``\\x1b``."""
    return _HIDDEN.sub(lambda found: found.group().encode("unicode_escape", "surrogatepass").decode(), str(text))


def is_unread() -> bool:
    """Tell whether whoever read this process's output has gone, as ``head`` has after ten lines."""
    poll = select.poll()
    try:
        poll.register(sys.stdout.fileno(), 0)
    except OSError:  # it is no file
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))


def drop_unwritten_output() -> None:
    """Forget the output that can't be written, as into a file on a full disk: the interpreter would end the process with 120
    for it, whatever it came to."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
