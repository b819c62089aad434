"""The page of one or several runs: what was trained, whether it helped, how it went, and the trees themselves.

The same page is served live (`motif view RUN…`) and saved as one offline file (`RUN/report.html`).

`data` gathers a run as plain data and keeps it up to date; `sections`, `charts`, `diagnostics`, `result` and `trees`
decide what is shown; `page` writes one HTML file, and `server` serves the live page. The page itself lies in `assets`,
with the chart library uPlot.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from motif.errors import RunFolderError
from motif.report.data import RunView, page_data
from motif.report.page import render
from motif.run_files import REPORT
from motif.runs.disk import write_atomically

__all__ = ["save_page", "saved_page", "write_report"]


def write_report(run: Path, *, ended: bool = False) -> Path:
    """Write the report of a run, finished or not, and return its path.

    Missing or incomplete files are named on the page. `ended`: the run's own process writes it, as its last act.

    Raises:
        RunFolderError: `run` is not a folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise RunFolderError(f"{run} is not a run folder: give the folder that `motif train` wrote")
    return save_page([run], run / REPORT, ended=ended)


def save_page(runs: Sequence[Path], target: Path, *, ended: bool = False) -> Path:
    """Write the page of several runs side by side as one offline file; returns `target`."""
    views = [RunView(run, ended=ended) for run in runs]
    for view in views:
        view.refresh()
    write_atomically(target, saved_page(views))  # so a reader never sees half
    return target


def saved_page(views: Sequence[RunView]) -> bytes:
    """The page of runs in their present state, with their trees, in UTF-8."""
    packs = [view.forest.pack() for view in views]
    data = page_data(views)
    for run, pack in zip(data["runs"], packs, strict=True):
        run["trees"] = {key: value for key, value in pack.items() if key != "packed"}
    # Model text may hold lone surrogates, which UTF-8 cannot.
    return render(data, packed=[pack["packed"] for pack in packs]).text.encode("utf-8", errors="replace")
