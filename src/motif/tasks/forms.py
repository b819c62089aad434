"""Forms of data that many sets share: programs with tests, choices, a text with its answers, chats, and pairs.

Each is known by its columns. What comes of it is how the reader is to read it: settings of `[data]`, or a sentence that
says why it cannot be trained on.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from motif.errors import DataError
from motif.tasks.rows import Row, column, has_column, names_of
from motif.tasks.table import user_message

LETTER_ASKED = "\n\nAnswer with the letter of the right choice."
TEXT_ASKED = "\n\nAnswer with the text of the right choice."
"""What a question with choices ends with, so that a model knows what is compared."""
NEARLY = 0.9
"""Share of rows from which on something holds for a column."""
QUESTIONS = ("question", "problem", "query", "instruction", "sentence", "stem", "ctx", "prompt", "text", "input")
TEXTS = ("context", "passage", "document", "article", "paragraph", "story")
LISTS = ("choices.text", "choices", "options", "endings", "candidates")
LETTERED = ("{}", "option_{}", "option{}", "choice_{}", "choice{}", "op{}", "answer_{}")
PLACES = (
    *("answer", "label", "answerkey", "answer_key", "correct", "correct_answer", "correct_option", "answer_idx"),
    *("answer_index", "gold", "target", "cop"),
)
"""Columns that say which of several choices is right."""
GOLDS = ("answer", "gold", "ground_truth", "target", "label", "solution", "final_answer")


@dataclass(frozen=True)
class Form:
    """How rows of a form are read: the columns of question and answer, the mark of the answer, and the task."""

    question: str = ""
    answer: str = ""
    pattern: str = ""
    task: str = ""
    unsure: tuple[str, ...] = ()


class Sample:
    """Rows that are looked at, and where their columns are, whatever the case of their names."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows
        names = dict.fromkeys(name for row in rows for name in names_of(row.columns))
        self.names = {name.strip().casefold(): name for name in reversed(names)}

    def first(self, *names: str) -> str:
        """The first of these columns that there is; empty: none."""
        return next((self.names[name] for name in names if name in self.names), "")

    def values(self, name: str) -> list[Any]:
        """The values of a column, of the rows that have one."""
        return [column(row.columns, name) for row in self.rows if has_column(row.columns, name)]

    def mostly(self, name: str, holds: Any) -> bool:
        """Whether nearly all rows have a value of which something holds."""
        return bool(name) and sum(map(bool, map(holds, self.values(name)))) >= NEARLY * len(self.rows)


def form_of(rows: Sequence[Row], source: str) -> Form | None:
    """The form of some rows; None: none that is known.

    Raises:
        DataError: it is one that cannot be trained on; says what would be needed.
    """
    sample = Sample(rows)
    _refuse_pairs(sample, source)
    for known in (_programs, _choices, _answered_text, _chat, _instructed):
        if (form := known(sample, source)) is not None:
            return form
    return None


def _refuse_pairs(sample: Sample, source: str) -> None:
    if sample.first("chosen") and sample.first("rejected") and not sample.first(*GOLDS):
        raise DataError(
            f"{source}: these are pairs of a preferred and a rejected text ('chosen', 'rejected'), which no grader "
            "compares an answer with: give rows with a gold answer, or a reward of your own (docs/tasks.md)"
        )


def _programs(sample: Sample, source: str) -> Form | None:
    """Functions to write, with tests: lines that assert (MBPP), or a function `check` (HumanEval)."""
    question, check = sample.first("question", "prompt", "text"), sample.first("test")
    lines = sample.first("tests", "test_list")
    asserts = lines and sample.mostly(lines, lambda value: "assert" in str(value) or "expected" in str(value))
    checked = sample.first("entry_point") and sample.mostly(check, lambda value: "def check(" in str(value))
    if question and (asserts or checked):
        return Form(question, lines if asserts else check, task="code")
    if sample.first("input_output", "public_tests", "private_tests") or checked:
        raise DataError(
            f"{source}: these are programs that read an input and print an output, and the code grader calls "
            "functions: give tests such as 'assert f(2) == 3' (docs/tasks.md), or a grader of your own"
        )
    return None


def _choices(sample: Sample, source: str) -> Form | None:
    """A question with choices: in a list, or in columns A, B, C, D."""
    question, answer = sample.first(*QUESTIONS), sample.first(*PLACES)
    if not question or not answer:
        return None
    listed = sample.first(*LISTS)
    if listed and sample.mostly(listed, lambda value: isinstance(value, list | tuple) and len(value) > 1):
        shown, counts = f"{{{listed}}}", [*map(len, sample.values(listed))]
    else:
        columns = next((found for name in LETTERED if len(found := _in_columns(sample, name)) > 1), [])
        if not columns or answer in columns:
            return None
        shown = "\n".join(f"{chr(65 + place)}. {{{name}}}" for place, name in enumerate(columns))
        counts = [len(columns)] * len(sample.values(answer))
    given = [str(value).strip() for value in sample.values(answer)]
    numbers = [(int(value), count) for value, count in zip(given, counts, strict=False) if re.fullmatch(r"\d+", value)]
    letters = sum(bool(re.fullmatch("[A-Z]", value)) for value in given)
    if len(numbers) + letters < NEARLY * len(given):
        return Form(f"{{{question}}}\n\n{shown}{TEXT_ASKED}", answer)
    pattern, unsure = _counted(numbers, answer, source) if numbers else ("", ())
    return Form(f"{{{question}}}\n\n{shown}{LETTER_ASKED}", answer, pattern, unsure=unsure)


def _counted(numbers: Sequence[tuple[int, int]], answer: str, source: str) -> tuple[str, tuple[str, ...]]:
    """How places of choices are counted, from (place, number of choices): the pattern, and what is not sure of it."""
    lowest, beyond = min(place for place, _ in numbers), [place for place, count in numbers if place >= count]
    if lowest == 0 and beyond:
        raise DataError(
            f"{source}: column {answer!r} holds places of choices from 0 to {max(beyond)}, which is neither counted "
            "from 0 nor from 1: give letters or the choices themselves"
        )
    if lowest and not beyond:
        doubt = f"Whether {answer!r} counts the choices from 0 or from 1 cannot be told: see data.answer_pattern."
        return "place", (doubt,)
    return "place" if lowest == 0 else "place_from_1", ()


def _in_columns(sample: Sample, name: str) -> list[str]:
    """The columns of choices that are named so, with letters or numbers, as far as they go."""
    for signs in ("abcdefghij", "1234567890"):
        found = [sample.first(name.format(sign)) for sign in signs]
        columns = found[: found.index("")] if "" in found else found
        if len(columns) > 1 and (signs[0].isalpha() or name != "{}"):
            return columns
    return []


def _answered_text(sample: Sample, source: str) -> Form | None:
    """Questions on a text (SQuAD): a column with the text, and one of answers, or a list of them."""
    question, text = sample.first(*QUESTIONS), sample.first(*TEXTS)
    listed = sample.first("answers.text", "answers", "answer")
    many = sample.mostly(listed, lambda value: isinstance(value, list | tuple) and value and isinstance(value[0], str))
    plain = sample.first(*GOLDS)
    if not question or not (many or (text and plain)) or question == text:
        return None
    whole = text and sample.mostly(text, lambda value: isinstance(value, str) and value.strip())
    several = many and any(len(set(value)) > 1 for value in sample.values(listed) if isinstance(value, list | tuple))
    unsure = f"Some questions have several right answers ({listed!r}), of which the first counts: a grader of your own "
    doubts = (unsure + "can accept them all (docs/tasks.md).",) if several else ()
    asked = f"{{{text}}}\n\n{{{question}}}" if whole else question
    return Form(asked, f"{listed}.0" if many else plain, unsure=doubts)


def _instructed(sample: Sample, source: str) -> Form | None:
    """An instruction and what it is about in a column of its own (Alpaca)."""
    question, more, answer = sample.first("instruction"), sample.first("input"), sample.first("output", *GOLDS)
    filled = sample.mostly(more, lambda value: isinstance(value, str) and value.strip())
    return Form(f"{{{question}}}\n\n{{{more}}}", answer) if question and answer and filled else None


def _chat(sample: Sample, source: str) -> Form | None:
    """Chats of one question whose last message is the answer."""
    name = sample.first("messages", "conversations", "conversation")
    if sample.first(*GOLDS, "reward_model.ground_truth") or not sample.mostly(name, _is_answered):
        return None
    key = "content" if "content" in sample.values(name)[0][-1] else "value"
    return Form(name, f"{name}.-1.{key}")


def _is_answered(value: Any) -> bool:
    if not isinstance(value, list | tuple) or len(value) < 2 or user_message(value) is None:
        return False
    last = value[-1]
    return isinstance(last, Mapping) and last.get("role", last.get("from")) in ("assistant", "gpt")
