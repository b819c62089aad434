"""Opening a task: which questions fit the window, and what 100,000 of them cost."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest

from motif.config import load_recipe
from motif.errors import MotifError
from motif.method.rounds import Rounds
from motif.session import open_task

STATUS, PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
TEXTS = ["short?", "w" * 90, "é" * 60, "ﷺ" * 12, "</s>" * 20 + "?", "two words" * 11, "3 + 4 =" * 14]


def recipe_of(path: Path, texts: list[str], **rounds: str):
    path.write_text("".join(json.dumps({"question": text, "answer": str(n)}) + "\n" for n, text in enumerate(texts)))
    scaffold = {"system_prompt": "", "note_tokens": 8} | rounds
    limits = {"tokens_first": 8, "tokens_continue": 8, "branching": [2, 1]}
    data = {"train": str(path), "skip_bad": True}
    return load_recipe({"model": "embedded", "data": data, "rounds": scaffold, "rollout": limits})


@pytest.mark.parametrize("question", ["{question}", "{question}\nOnce more: {question}"])
def test_questions_fit_as_their_longest_prompts_do(tmp_path, tiny_tokenizer, question):
    recipe = recipe_of(tmp_path / "rows.jsonl", TEXTS, question=question)
    rounds = Rounds(recipe.rounds, tiny_tokenizer)
    needed = {text: rounds.longest_prompt(text, 2) + 8 for text in TEXTS}
    windows = sorted({window + more for window in needed.values() for more in (-1, 0, 1)})[1:]
    for window in windows:
        expected = [text for text in TEXTS if needed[text] <= window]
        assert [row.text for row in open_task(recipe, tiny_tokenizer, window).train] == expected


@pytest.mark.slow
@pytest.mark.parametrize("window", [8192, 100], ids=["wide", "too narrow"])
def test_tens_of_thousands_of_rows(tmp_path, tiny_tokenizer, window):
    recipe = recipe_of(tmp_path / "rows.jsonl", [f"What is {n} and so on? ".ljust(120, "x") for n in range(30_000)])
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"skip_bad": False})})
    if measurable := PEAK.exists():
        PEAK.write_text("5")  # the peak begins again
    before, start = resident("VmRSS"), time.process_time()
    try:
        assert len(open_task(recipe, tiny_tokenizer, window).train) == 30_000
    except MotifError as error:
        assert window == 100 and "30,000 rows cannot be used" in str(error)
    assert time.process_time() - start < 5
    assert not measurable or resident("VmHWM") - before < 1


def resident(name: str) -> float:
    """GiB that this process holds, or held at most."""
    match = re.search(rf"{name}:\s+(\d+) kB", STATUS.read_text()) if STATUS.exists() else None
    return int(match[1]) / 2**20 if match else 0.0
