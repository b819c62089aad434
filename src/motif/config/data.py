"""Where questions come from: `[data]`, and a section such as `[data.chain]` for each task that makes its questions.

A task's section is a `TaskSection` here and a field of `DataConfig` with the task's name. That is all that its settings
need to be read, checked, documented and written, and to be refused where another task is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from motif.config.sections import Section

TaskName = Literal["arithmetic", "chain", "circuit", "code", "gsm8k", "svamp", "math", "math500", "aime24", "file"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
SOURCES = ("train", "test")
READING = ("subset", "train_split", "test_split", "question_column", "answer_column", "answer_pattern")
"""Settings that say how the rows of a source are read."""
OWN_OR_ROWS = ("circuit", "code")
"""Tasks that have their own questions, or read rows that give the gold answer in columns of their own."""


class TaskSection(Section):
    """Settings of one task that makes its questions."""


class ArithmeticConfig(TaskSection):
    """Products or sums of two numbers, in every ordered pair (of longer numbers: 20,000 pairs)."""

    operation: Literal["multiply", "add"] = "multiply"
    digits: Annotated[int, Field(ge=1, le=6)] = 2
    """Digits of each operand."""
    smallest: Annotated[int, Field(ge=0)] = 1
    """With `largest`: the operands are all numbers from `smallest` to `largest`."""
    largest: Annotated[int, Field(ge=0, le=199)] = 0
    """0: `digits` gives the operands."""
    template: str = "What is {a} {op} {b}?"
    """The wording of a question; `{a}`, `{b}` and `{op}` are replaced."""

    @model_validator(mode="after")
    def _one_way_to_give_operands(self) -> ArithmeticConfig:
        digits, smallest = (type(self).model_fields[key].default for key in ("digits", "smallest"))
        if self.largest and self.smallest > self.largest:
            raise ValueError(f"smallest = {self.smallest} is above largest = {self.largest}")
        if self.largest and self.digits != digits:
            raise ValueError(f"digits = {self.digits} is not used where largest is given: set digits = {digits}")
        if not self.largest and self.smallest != smallest:
            raise ValueError(f"smallest = {self.smallest} is used together with largest only: set largest too")
        return self


class ChainConfig(TaskSection):
    """Steps applied one after the other to a two-digit number."""

    shortest: Annotated[int, Field(ge=1, le=16)] = 2
    """Steps of the shortest questions."""
    longest: Annotated[int, Field(ge=1, le=16)] = 9
    """Steps of the longest questions."""

    @model_validator(mode="after")
    def _shortest_first(self) -> ChainConfig:
        if self.shortest > self.longest:
            raise ValueError(f"shortest = {self.shortest} is above longest = {self.longest}")
        return self


class CircuitConfig(TaskSection):
    """Truth tables of one output, to be written as Verilog."""

    inputs: Annotated[int, Field(ge=2, le=4)] = 4
    """Inputs of the function."""
    form: Literal["table", "minterms"] = "table"
    """Give the truth table as bits, or as the rows in which the output is 1."""
    minterms: Annotated[int, Field(ge=0, le=15)] = 0
    """Only functions with this many ones (0: any)."""

    @model_validator(mode="after")
    def _not_constant(self) -> CircuitConfig:
        if self.minterms >= 2**self.inputs:
            raise ValueError(f"minterms must be 0 (any) to {2**self.inputs - 1} with inputs = {self.inputs}")
        return self


class DataConfig(Section):
    """Where the questions come from and how answers are graded."""

    task: TaskName = "file"
    """A shipped task (docs/tasks.md says what each asks), or `file` for your own data."""
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
    arithmetic: ArithmeticConfig = ArithmeticConfig()
    chain: ChainConfig = ChainConfig()
    circuit: CircuitConfig = CircuitConfig()

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

    @model_validator(mode="after")
    def _only_what_is_used(self) -> DataConfig:
        if problems := [*self._of_unused_sections(), *self._of_unread_keys()]:
            raise ValueError("\n".join(problems))
        return self

    def _of_unused_sections(self) -> Iterator[str]:
        source = next((f"data.{side}" for side in SOURCES if getattr(self, side)), f"task {self.task!r}")
        for task in TASK_SECTIONS:
            if task != self.task or self.active_section is None:
                for key in sorted(getattr(self, task).model_fields_set):
                    yield f"data.{task}.{key} is a setting of task {task!r}, but the questions come from {source}"

    def _of_unread_keys(self) -> Iterator[str]:
        # A resolved recipe spells out every default, so only another value is the user's choice.
        fields = type(self).model_fields
        for key, reason in self._unread().items():
            if getattr(self, key) != fields[key].default:
                yield f"data.{key} {reason}"

    def _unread(self) -> dict[str, str]:
        """Keys of `[data]` that neither the task nor its sources read, and why."""
        own = f"does not apply to task {self.task!r}, which has its own questions"
        if self.task in TASK_SECTIONS and self.task not in OWN_OR_ROWS:
            return dict.fromkeys((*SOURCES, *READING), own)
        if self.task in OWN_OR_ROWS and not (self.train or self.test):
            return dict.fromkeys(READING, own)
        unread = {f"{side}_split": f"is read with data.{side} only" for side in SOURCES if not getattr(self, side)}
        if not (self.train or self.test):
            unread["subset"] = "is read with data.train or data.test only"
        if self.task in OWN_OR_ROWS:
            gold = f"does not apply to task {self.task!r}, whose rows give the gold answer in columns of their own"
            unread |= dict.fromkeys(("answer_column", "answer_pattern"), gold)
        return unread

    @property
    def active_section(self) -> TaskSection | None:
        """The section that the questions are made by; None where there is none, or they are rows of a source."""
        return None if self.train or self.test or self.task not in TASK_SECTIONS else getattr(self, self.task)

    @model_serializer(mode="wrap")
    def _without_unused_sections(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # They change nothing, and would be refused when read again.
        used = self.task if self.active_section is not None else None
        return {key: value for key, value in dump(self).items() if key not in TASK_SECTIONS or key == used}


TASK_SECTIONS = tuple(name for name, field in DataConfig.model_fields.items() if isinstance(field.default, TaskSection))
"""Tasks that make their questions, each with a section."""
