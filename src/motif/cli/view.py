"""The options of `motif view`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motif.cli.streams import need_file


def view(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            show_default=False,
            help="Run folders to show side by side, or a folder of runs, including future ones. Default: runs.",
        ),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 picks a free one.")] = 0,
    host: Annotated[
        str, typer.Option(help="The address to listen on; 0.0.0.0 lets others on the network connect too.")
    ] = "127.0.0.1",
    no_browser: Annotated[bool, typer.Option("--no-browser", help="Only print the address.")] = False,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one offline file instead of serving.")
    ] = None,
) -> None:
    """Show runs in a browser, while they train or afterwards: curves, trees, before and after (docs/report.md)."""
    need_file(save, "--save")
    from motif.report.view import view as show

    show(runs or [], host=host, port=port, browser=not no_browser, save=save)
