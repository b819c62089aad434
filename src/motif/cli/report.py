"""The options of `motif report`."""

from __future__ import annotations

from motif.cli.options import RunArgument


def report(run: RunArgument) -> None:
    """Write RUN/report.html again: the page of `motif view`, as one offline file."""
    from motif.report import write_report
    from motif.runs.read import check_run_folder

    check_run_folder(run)
    print(write_report(run))
