"""One self-contained HTML page per run: what was trained, whether it helped, how it went, and the trees themselves."""

from __future__ import annotations

from pathlib import Path

from motif.report.data import report_data
from motif.report.page import render

__all__ = ["write_report"]


def write_report(run: Path) -> Path:
    """Read a run folder, finished or not, and write its `report.html`; returns that file's path.

    Missing or half-written files do not stop it: the page says what is missing.

    Raises:
        NotADirectoryError: `run` is not a folder.
    """
    run = Path(run)
    if not run.is_dir():
        raise NotADirectoryError(
            f"{run} is not a run folder. Give the folder that `motif train` wrote (it holds metrics.jsonl)."
        )
    target = run / "report.html"
    partial = run / ".report.html.partial"
    # Model text may hold lone surrogates, which UTF-8 cannot; written whole or not at all, so a reader never sees half.
    partial.write_bytes(render(report_data(run)).encode("utf-8", errors="replace"))
    partial.replace(target)
    return target
