"""What a notebook shows: bars that change in place, and curves."""

from __future__ import annotations

import IPython.display
import pytest

from motif.display import Display
from motif.runs import notebook
from motif.runs.notebook import NotebookBar, curve


class Handle:
    def __init__(self):
        self.pages = []

    def update(self, page):
        self.pages.append(page.data)


@pytest.fixture
def cell(monkeypatch):
    handle = Handle()

    def display(page, display_id):
        assert display_id and not handle.pages, "one output, which then changes"
        handle.update(page)
        return handle

    monkeypatch.setattr(IPython.display, "display", display)
    monkeypatch.setattr(notebook, "BAR_EVERY", 0.0)
    return handle


def test_a_display_in_a_notebook_has_bars_in_one_output(cell, monkeypatch):
    monkeypatch.setattr("motif.display.in_notebook", lambda: True)
    monkeypatch.setattr("motif.display.Display.message", lambda self, text: None)
    with Display() as shown, shown.evaluating(3) as advance:
        advance()
        assert 'evaluating <progress value="1" max="3">' in cell.pages[-1] and "1 of 3" in cell.pages[-1]
    assert cell.pages[-1] == "<span></span>"
    assert not Display(quiet=True)._live


def test_a_text_in_a_bar_is_no_markup(cell):
    NotebookBar().add_task("<b>", 0)
    assert "&lt;b&gt;" in cell.pages[-1]


def test_a_curve_says_in_words_what_it_shows():
    drawn = curve("reward <x>", [(1, 0.25), (2, None), (3, True), (4, 0.75)])
    assert "reward &lt;x&gt;: 0.25 at step 1, 0.75 at step 4" in drawn and 'points="4.0,60.0 236.0,4.0"' in drawn
    assert curve("reward", [(1, 0.5)]) == ""
