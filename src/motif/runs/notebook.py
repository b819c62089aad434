"""What a notebook shows: progress bars, and the curves of a result. Needs nothing that Jupyter does not bring."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

BAR_EVERY = 0.25
"""Seconds between two states of a bar: each is a message to the browser."""
WIDTH, HEIGHT = 240, 64
"""Pixels of a curve."""


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook, whose output is a page."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


@dataclass
class _Task:
    what: str
    total: int
    done: int = 0
    started: float = 0.0


class NotebookBar:
    """Progress bars in one output of a cell, which changes in place; has what the display uses of rich's `Progress`."""

    def __init__(self) -> None:
        self._tasks: dict[int, _Task] = {}
        self._count, self._shown = 0, 0.0
        self._handle: Any = None

    def start(self) -> None:
        """Nothing is shown before there is a task."""

    def stop(self) -> None:
        """Remove the bars."""
        self._tasks.clear()
        self._show(now=True)

    def add_task(self, what: str, total: int) -> int:
        """Show another bar; returns its number."""
        self._count += 1
        self._tasks[self._count] = _Task(what, total, started=time.monotonic())
        self._show(now=True)
        return self._count

    def advance(self, task: int) -> None:
        """One more of the things of a task is done."""
        if task in self._tasks:
            self._tasks[task].done += 1
            self._show()

    def remove_task(self, task: int) -> None:
        """The task has ended."""
        self._tasks.pop(task, None)
        self._show(now=True)

    def _show(self, now: bool = False) -> None:
        if not now and time.monotonic() - self._shown < BAR_EVERY:
            return
        self._shown = time.monotonic()
        from IPython.display import HTML, display

        page = HTML("".join(_bar(task) for task in self._tasks.values()) or "<span></span>")
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)


def _bar(task: _Task) -> str:
    seconds = time.monotonic() - task.started
    return (
        f'<div><label>{html.escape(task.what)} <progress value="{task.done}" max="{max(1, task.total)}"></progress>'
        f"</label> {task.done} of {task.total}, {seconds:.0f} s</div>"
    )


def curve(title: str, points: Sequence[tuple[float, Any]]) -> str:
    """A small chart of (x, y) points as SVG, with its first, last, smallest and largest value in words; empty for fewer
    than two points. Points without a number are left out."""
    kept = [(float(x), float(y)) for x, y in points if isinstance(y, (int, float)) and not isinstance(y, bool)]
    if len(kept) < 2:
        return ""
    xs, ys = [x for x, _ in kept], [y for _, y in kept]
    wide, high = max(xs) - min(xs) or 1.0, max(ys) - min(ys) or 1.0
    places = " ".join(
        f"{4 + (x - min(xs)) / wide * (WIDTH - 8):.1f},{HEIGHT - 4 - (y - min(ys)) / high * (HEIGHT - 8):.1f}"
        for x, y in kept
    )
    words = f"{title}: {ys[0]:.3g} at step {xs[0]:.0f}, {ys[-1]:.3g} at step {xs[-1]:.0f}"
    between = f"from {min(ys):.3g} to {max(ys):.3g}"
    return (
        f'<figure style="display:inline-block;margin:4px 12px 4px 0"><svg role="img" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" aria-label="{html.escape(f"{words}, {between}")}">'
        f'<polyline fill="none" stroke="currentColor" stroke-width="1.5" points="{places}"/></svg>'
        f"<figcaption>{html.escape(words)}</figcaption></figure>"
    )
