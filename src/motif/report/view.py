"""The page of runs, served until interrupted or saved."""

from __future__ import annotations

import contextlib
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from motif.errors import ServiceError, UsageError
from motif.report import save_page
from motif.report.server import Viewer, ViewServer
from motif.runs.read import check_run_folder

MOST_RUNS = 12  # side by side; more lines cannot be distinguished


def view(runs: Sequence[Path], *, host: str, port: int, browser: bool, save: Path | None) -> None:
    """Serve the page of the runs until interrupted, or save it.

    Raises:
        RunFolderError: a folder is not a run folder.
        ServiceError: the address cannot be used.
        UsageError: too many runs, one of them twice, or a file that cannot be written.
    """
    _check(runs)
    if save is not None:
        try:
            print(f"written: {save_page(runs, save)}")
        except OSError as error:
            raise UsageError(f"{save} cannot be written ({error.strerror}): give --save another file") from None
        return
    try:
        server = ViewServer(Viewer(runs), host, port)
    except (OSError, OverflowError) as error:
        raise ServiceError(f"cannot listen on {host}:{port} ({error}): try another --port, or 0 for any") from None
    with server, contextlib.suppress(KeyboardInterrupt):
        print(f"{server.url}  (Ctrl-C stops it)", flush=True)
        if host not in ("127.0.0.1", "localhost", "::1"):
            print("others on this network can read the runs too, because there is no password", flush=True)
        if browser:
            webbrowser.open(server.url)
        server.serve_forever()


def _check(runs: Sequence[Path]) -> None:
    if len(runs) > MOST_RUNS:
        raise UsageError(f"{len(runs)} runs are too many side by side: give at most {MOST_RUNS}")
    for run in runs:
        check_run_folder(run)
    if len({run.resolve() for run in runs}) < len(runs):
        raise UsageError("the same run is given twice")
