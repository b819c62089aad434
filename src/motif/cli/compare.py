"""The options of `motif compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from motif.cli.streams import need_folder


def compare(
    study: Annotated[
        Path, typer.Argument(help="A study file: arms, seeds, and the questions asked of them (docs/compare.md).")
    ],
    out: Annotated[Path | None, typer.Option(help="Folder for runs and results. Default: runs/<study>.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Number of runs at a time, each in its own process.")] = 1,
    arms: Annotated[str, typer.Option(help="Run only these arms, e.g. paper,recommended.")] = "",
    seeds: Annotated[str, typer.Option(help="Run only these seeds, e.g. 0-4 or 0,2,7.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the runs, without running them.")
    ] = False,
    collect: Annotated[
        bool,
        typer.Option("--collect", help="Run nothing; make results, table and page from the runs that have finished."),
    ] = False,
    results: Annotated[
        list[Path] | None,
        typer.Option(
            "--from", help="Run nothing; make table and page from this results.jsonl. Repeatable: several are combined."
        ),
    ] = None,
) -> None:
    """Run arms × seeds and compare them, paired by seed.

    Runs that have finished are not repeated, and interrupted runs are resumed. The same command in several terminals,
    or on several machines that share the disk, shares the work.
    """
    need_folder(out)
    from motif.compare.run import compare as compare_arms
    from motif.compare.study import seeds_from

    status = compare_arms(
        study,
        out=out,
        workers=workers,
        arms=[arm.strip() for arm in arms.split(",") if arm.strip()],
        seeds=seeds_from(seeds),
        mode="plan" if dry_run else "collect" if collect else "run",
        results=results or (),
    )
    if status:
        raise typer.Exit(status)
