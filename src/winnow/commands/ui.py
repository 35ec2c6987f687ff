"""``winnow ui``: its arguments, the server's address, and the browser."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import webbrowser
from pathlib import Path
from typing import Any

from winnow.errors import CLEAN, PROBLEMS


def add_ui(commands: Any) -> None:
    """Add the subcommand; import nothing heavy."""
    ui = commands.add_parser(
        "ui",
        help="show tracked runs in the browser",
        description="Start MLflow on the store of a run, a sweep or a folder with mlflow.db, for this machine only; print the "
        "address of the page that shows the runs and open it where there is a browser. Ctrl-C ends it.",
    )
    ui.add_argument("folder", nargs="?", type=Path, default=Path(), metavar="FOLDER", help="default: this one")
    ui.add_argument("--port", type=int, help="default: 5000 where it is free, else any that is")
    ui.add_argument("--no-browser", action="store_true", help="print the address only")
    ui.set_defaults(run=_ui)


def _ui(options: argparse.Namespace) -> int:
    from winnow.tracking.ui import HOST, address_of, free_port, serving, store_of

    store = store_of(options.folder)
    if store.server is not None:
        _show(address_of(store, store.server), options.no_browser)
        return CLEAN
    port = free_port(options.port)
    for number in (
        signal.SIGTERM,
        signal.SIGHUP,
    ):  # as Ctrl-C, so that nothing is left behind; not where nohup wants to go on
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    try:
        with serving(store, port) as server:
            _show(address_of(store, f"http://{HOST}:{port}"), options.no_browser)
            print("Ctrl-C ends it", flush=True)
            server.wait()
    except KeyboardInterrupt:
        return CLEAN
    print("winnow: MLflow's server has ended by itself", file=sys.stderr)
    return PROBLEMS


def _show(address: str, stays_closed: bool) -> None:
    from winnow.masking import masked

    print(masked(address), flush=True)
    if not stays_closed and _has_screen():
        webbrowser.open(address)


def _has_screen() -> bool:
    """Tell whether a browser would get a window: without one Python opens what reads pages in the terminal."""
    return not sys.platform.startswith("linux") or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
