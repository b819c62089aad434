"""Where the questions come from: the section `[data]`."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from motif.config.sections import Section


class DataConfig(Section):
    """Where the questions come from and how answers are graded."""

    task: str = "file"
    """A shipped task (`arithmetic`, `chain`, `circuit`, `code`, `gsm8k`, `svamp`, `math`, `math500`, `aime24`) or
    `file` for your own data."""
    train: str = ""
    """Path of a JSONL, Parquet or CSV file, or a Hugging Face data set id; empty: the task's own source."""
    test: str = ""
    """The same for held-out questions; empty: `held_out` rows are split off `train`."""
    subset: str = ""
    """Configuration name of a Hugging Face data set (`main` for openai/gsm8k)."""
    train_split: str = "train"
    test_split: str = "test"
    question_column: str = "question"
    answer_column: str = "answer"
    answer_pattern: str = ""
    """Regular expression with one group that picks the answer out of the answer column, e.g. `#### (.+)`."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Rows split off `train` (by a hash of the question) when no test file is given."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Use this many training questions, drawn once and for all seeds (0: all)."""
    grader: str = ""
    """How answers are compared: `exact`, `numeric`, `math`, `code`, `circuit`, or your own function as
    `module:function` or `file.py:function` (see docs/tasks.md); empty: the task's own grader."""
    grader_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Wall-clock limit of one verdict. A rule that is known to need longer takes longer."""
    skip_bad: bool = False
    """Go on without rows that cannot be used (they are counted and listed) instead of stopping."""
    operation: Literal["multiply", "add"] = "multiply"
    """arithmetic only."""
    digits: Annotated[int, Field(ge=1, le=6)] = 2
    """arithmetic only: digits of each operand."""
    smallest: Annotated[int, Field(ge=0)] = 1
    """arithmetic only, with `largest`: the operands are all numbers from `smallest` to `largest`."""
    largest: Annotated[int, Field(ge=0, le=199)] = 0
    """arithmetic only: 0 means that `digits` gives the operands."""
    template: str = "What is {a} {op} {b}?"
    """arithmetic only: the wording of a question; `{a}`, `{b}` and `{op}` are replaced."""
    shortest: Annotated[int, Field(ge=1)] = 2
    """chain only: steps of the shortest questions."""
    longest: Annotated[int, Field(ge=1)] = 9
    """chain only: steps of the longest questions."""
    inputs: Annotated[int, Field(ge=2, le=4)] = 4
    """circuit only: inputs of the function."""
    form: Literal["table", "minterms"] = "table"
    """circuit only: give the truth table as bits, or as the rows in which the output is 1."""
    minterms: Annotated[int, Field(ge=0, le=15)] = 0
    """circuit only: only functions with so many ones (0: any)."""

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if pattern and groups != 1:
            raise ValueError(f"needs exactly one group (...) around the answer, has {groups}")
        return pattern
