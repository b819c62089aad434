"""What the benchmarks share: interleaved timing, tables, and the JSON file."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from motif.runs.provenance import versions

console = Console(width=None if sys.stdout.isatty() else 120)


def parser(about: str | None) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    options = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, help="also write the numbers to this file")
    options.add_argument("--repeats", type=int, default=3, help="times each contender runs (default: %(default)s)")
    options.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    options.add_argument("--quick", action="store_true", help="a smoke test: the embedded model only, once, tiny")
    return options


def interleaved(
    contenders: Mapping[str, Callable[[int], Any]], repeats: int, warm_up: bool = True
) -> dict[str, list[Any]]:
    """Results of each contender(repeat), taken in turns, so that a busy machine slows all of them alike.

    A first round (repeat -1) warms up and is thrown away.
    """
    results: dict[str, list[Any]] = {name: [] for name in contenders}
    for repeat in range(-1 if warm_up else 0, repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            found = run(repeat)
            console.print(
                f"[dim]{name}, {repeat + 1} of {repeats}: {time.perf_counter() - start:.1f} s", highlight=False
            )
            if repeat >= 0:
                results[name].append(found)
    return results


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over rounds of ours ÷ theirs, each from the same round."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table: the first column is text, all others are numbers or text about them."""
    shown = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        shown.add_column(column, justify="left" if index == 0 else "right")
    for row in rows:
        shown.add_row(*(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row))
    console.print(shown)


def write(path: Path | None, result: dict[str, Any]) -> None:
    """Write the numbers with the machine and the versions they belong to."""
    result |= {
        "machine": {"cpu": _cpu(), "threads": torch.get_num_threads(), "gpu": torch.cuda.is_available()},
        "versions": versions(),
    }
    if path:
        path.write_text(json.dumps(result, indent=1) + "\n")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
