"""The page of runs, served until interrupted or saved."""

from __future__ import annotations

import contextlib
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from motif.errors import RunFolderError, UsageError
from motif.hosts import bound
from motif.report import save_page
from motif.report.folder import MOST_RUNS, FolderView
from motif.report.server import Viewer, ViewServer
from motif.runs.read import check_run_folder, is_run, is_started, suggested_run, what_there_is
from motif.runs.state import find_runs


def view(runs: Sequence[Path], *, host: str, port: int, browser: bool, save: Path | None) -> None:
    """Serve the page of the runs until interrupted, or save it.

    One folder that is no run is that of all runs in it, also of those that are started later. None given: `runs`, which
    may come later, too.

    Raises:
        RunFolderError: a folder is not a run folder.
        ServiceError: the address cannot be used.
        UsageError: too many runs, one of them twice, or a file that cannot be written.
    """
    named, runs = bool(runs), runs or [Path("runs")]
    root = runs[0] if len(runs) == 1 and not is_run(runs[0]) and not is_started(runs[0]) else None
    if root is not None and named and not root.is_dir():
        raise RunFolderError(
            f"{what_there_is(root)}: give a run folder, e.g. {suggested_run(root)}, or a folder of runs"
        )
    if root is not None and save is not None:
        runs = find_runs(root)[:MOST_RUNS]
        if not runs:
            raise RunFolderError(f"{root}: no such folder, or no run in it: give a run folder, e.g. runs/demo")
    elif root is None:
        _check(runs)
    if save is not None:
        try:
            print(f"written: {save_page(runs, save)}")
        except OSError as error:
            raise UsageError(f"{save} cannot be written ({error.strerror}): give --save another file") from None
        return
    pages = Viewer(runs) if root is None else FolderView(root)
    with (
        bound(host, port) as listener,
        ViewServer(pages, host, listener) as server,
        contextlib.suppress(KeyboardInterrupt),
    ):
        print(f"{server.url}  (Ctrl-C stops it)", flush=True)
        if root is not None and not find_runs(root):
            print(f"there is no run in {root} yet: the page shows the first one as soon as it is started", flush=True)
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
