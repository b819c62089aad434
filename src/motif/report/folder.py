"""The page of a folder of runs (`motif view runs`): a table of them, each with a link to its page, kept up to date."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from motif.report.page import Page, asset, policy_of
from motif.report.server import Viewer
from motif.run_files import WRITER_LOCK
from motif.runs.disk import is_locked
from motif.runs.read import file_states
from motif.runs.state import RunState, find_runs, state_of
from motif.text import NONE, counted

MOST_RUNS = 12
"""Runs side by side; more lines cannot be distinguished."""
HEADINGS = ("Run", "State", "Step", "Accuracy", "Last change", "Model")
SCRIPT = """
setInterval(async () => {
  if (document.hidden || document.activeElement.closest("main")) return;
  const answer = await fetch("").catch(() => null);
  if (!answer || !answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main.runs");
  if (fresh) document.querySelector("main").replaceWith(fresh);
  else location.reload();
}, 5000);
"""
"""Replaces the table; where the folder itself has become a run, the page is that run's from then on."""
STYLE = """
.runs table { border-collapse: collapse; width: 100%; }
.runs th, .runs td { text-align: left; padding: 0.4rem 1rem 0.4rem 0; border-bottom: 1px solid var(--line, #8884); }
.runs td:nth-child(3) { white-space: nowrap; }
.runs p { margin: 0.8rem 0; }
.table { overflow-x: auto; }
@media (max-width: 760px) { /* a row becomes a block: the table would not fit */
  .runs thead { position: absolute; clip-path: inset(50%); }
  .runs tr { display: grid; grid-template-columns: 1fr 1fr; gap: 0.4rem 1rem; padding: 0.8rem 0; }
  .runs tr { border-bottom: 1px solid var(--line, #8884); }
  .runs tbody th, .runs td { border: 0; padding: 0; }
  .runs tbody th { grid-column: 1 / -1; overflow-wrap: anywhere; }
  .runs [data-label]::before { content: attr(data-label); display: block; color: var(--soft); font-size: 0.8rem; }
}
"""


class FolderView:
    """The runs in a folder, also those that are started later; the folder need not exist yet."""

    def __init__(self, root: Path):
        self.root = root
        self._viewers: dict[tuple[Path, ...], Viewer] = {}
        self._states: dict[Path, tuple[Any, RunState]] = {}

    def route(self, path: str) -> tuple[Viewer | FolderView, str]:
        """Whom an address is for, and what is asked of it. Addresses are compared with those of the runs there are."""
        runs = find_runs(self.root)
        if runs == [self.root]:
            return self._viewer(runs), path
        if path.startswith("/side/"):
            return self._viewer(self._latest(runs)), path.removeprefix("/side")
        for run in sorted(runs, key=lambda run: -len(str(run))):
            if path.startswith(address := self._address(run)):
                return self._viewer([run]), path.removeprefix(address.rstrip("/"))
        return self, path

    def page(self) -> Page:
        """The table of the runs there are now."""
        states = sorted(map(self._state, find_runs(self.root)), key=lambda state: -(state.updated or 0.0))
        policy = policy_of(SCRIPT, asset("style.css") + STYLE, live=True)
        title = html.escape(f"Runs in {self.root}")
        parts = [f"<h1>{title}</h1>", self._table(states)]
        if len(states) > 1:
            shown = f"The latest {MOST_RUNS}" if len(states) > MOST_RUNS else f"All {len(states)}"
            parts.append(f'<p><a href="/side/">{shown} side by side</a></p>')
        head = (
            f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<meta name="color-scheme" content="light dark"><title>{title} – motif</title>'
            f"<style>{asset('style.css')}{STYLE}</style>"
        )
        body = f'<div class="page"><main class="runs">{"".join(parts)}</main></div><script>{SCRIPT}</script>'
        return Page(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>', policy)

    def _table(self, states: Sequence[RunState]) -> str:
        if not states:
            return "<p>There is no run in this folder yet. This page shows the first one as soon as it is started.</p>"
        head = "".join(f'<th scope="col">{name}</th>' for name in HEADINGS)
        rows = "".join(f"<tr>{self._row(state)}</tr>" for state in states)
        return (
            f'<p>{counted(len(states), "run")}, the latest first.</p><div class="table" tabindex="0" role="region" '
            f'aria-label="Runs"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
        )

    def _row(self, state: RunState) -> str:
        name = html.escape(state.path.relative_to(self.root).as_posix())
        reason = f": {state.reason}" if state.reason else ""
        cells = [state.state + reason, *state.cells(), state.model or NONE]
        link = f'<th scope="row"><a href="{html.escape(self._address(state.path))}">{name}</a></th>'
        labelled = zip(HEADINGS[1:], cells, strict=True)
        return link + "".join(f'<td data-label="{name}">{html.escape(cell)}</td>' for name, cell in labelled)

    def _address(self, run: Path) -> str:
        return f"/run/{quote(run.relative_to(self.root).as_posix(), errors='surrogateescape')}/"

    def _latest(self, runs: Sequence[Path]) -> list[Path]:
        states = sorted(map(self._state, runs), key=lambda state: -(state.updated or 0.0))
        return sorted(state.path for state in states[:MOST_RUNS])

    def _viewer(self, runs: Sequence[Path]) -> Viewer:
        key = tuple(runs)
        if key not in self._viewers:
            self._viewers = {key: Viewer(runs)} | dict(list(self._viewers.items())[: MOST_RUNS - 1])
        return self._viewers[key]

    def _state(self, run: Path) -> RunState:
        files = file_states(run), is_locked(run / WRITER_LOCK)
        if run not in self._states or self._states[run][0] != files:
            self._states[run] = files, state_of(run)
        return self._states[run][1]
