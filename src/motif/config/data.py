"""Where questions come from: `[data]`, and a section such as `[data.chain]` for each task that makes its questions.

To give a new task settings, write a `TaskSection`, add it to `DataConfig` as a field with the task's name, and add the
name to `TaskName`. The settings are then read, checked, documented and written, and refused if another task is chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, ClassVar, Literal, get_args

from pydantic import Field, field_validator, model_validator

from motif.config.sections import Section

TaskName = Literal[
    "arithmetic", "chain", "stories", "ledger", "circuit", "code", "gsm8k", "svamp", "math", "math500", "aime24", "file"
]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
SOURCES = ("train", "test")
PIECES = ("pieces_column", "piece_tokens")
"""Settings of texts in pieces."""
CURRICULUM = ("curriculum", "curriculum_questions")
"""Settings of growing lengths: newer than others, and written down together."""
READING = ("subset", "train_split", "test_split", "question_column", "answer_column", "answer_pattern", *PIECES)
"""Settings for reading the rows of a source."""
BOXED = "boxed"
"""An `answer_pattern` that is not a regular expression."""
PLACES = {"place": 0, "place_from_1": 1}
"""Each `answer_pattern` of choices, where the answer is the place of the right one, and how the first is counted."""
OWN_OR_ROWS = ("circuit", "code")
"""Tasks that have questions of their own but also read rows, whose gold answers are in columns of their own."""


class TaskSection(Section):
    """Settings of one task that makes its own questions. worked: whether it has worked solutions."""

    worked: ClassVar[bool] = False

    @property
    def in_pieces(self) -> bool:
        """Whether questions come in pieces, one a round."""
        return False


class ArithmeticConfig(TaskSection):
    """Products or sums of two numbers: every ordered pair, or 20,000 pairs of numbers with more than two digits."""

    operation: Literal["multiply", "add"] = "multiply"
    digits: Annotated[int, Field(ge=1, le=6)] = 2
    """Digits of each operand."""
    smallest: Annotated[int, Field(ge=0)] = 1
    """Used with `largest`: the operands are the numbers from `smallest` to `largest`."""
    largest: Annotated[int, Field(ge=0, le=199)] = 0
    """Largest operand; 0: the operands are all numbers of `digits` digits."""
    template: str = "What is {a} {op} {b}?"
    """Wording of a question; `{a}`, `{b}` and `{op}` are filled in."""

    @model_validator(mode="after")
    def _one_way_to_give_operands(self) -> ArithmeticConfig:
        digits, smallest = (type(self).model_fields[key].default for key in ("digits", "smallest"))
        if self.largest and self.smallest > self.largest:
            raise ValueError(f"smallest = {self.smallest} is above largest = {self.largest}")
        if self.largest and self.digits != digits:
            raise ValueError(f"digits = {self.digits} does not apply when largest is set: set digits = {digits}")
        if not self.largest and self.smallest != smallest:
            raise ValueError(f"smallest = {self.smallest} applies only together with largest: set it too")
        return self


class LengthsSection(TaskSection):
    """Settings of a task whose questions are of several lengths."""

    shortest: int = 1
    longest: int = 1

    @model_validator(mode="after")
    def _shortest_first(self) -> LengthsSection:
        if self.shortest > self.longest:
            raise ValueError(f"shortest = {self.shortest} is above longest = {self.longest}")
        return self


class ChainConfig(LengthsSection):
    """Chains of arithmetic steps on a two-digit number, modulo 100."""

    shortest: Annotated[int, Field(ge=1, le=30)] = 2
    """Number of steps of the shortest chains."""
    longest: Annotated[int, Field(ge=1, le=30)] = 9
    """Number of steps of the longest chains."""


class StoriesConfig(LengthsSection):
    """Stories in English of somebody who gains and loses things, with 36 wordings of an event."""

    worked: ClassVar[bool] = True

    shortest: Annotated[int, Field(ge=1, le=12)] = 2
    """Number of events of the shortest stories."""
    longest: Annotated[int, Field(ge=1, le=12)] = 6
    """Number of events of the longest stories."""
    largest: Annotated[int, Field(ge=13, le=1000)] = 20
    """The count is never above this."""
    variant: Annotated[int, Field(ge=0)] = 0
    """Another number tells the same stories with other names, things and numbers."""
    unseen_wordings: bool = False
    """Word the held-out stories as no training story is worded, in 12 other ways."""
    events_per_piece: Annotated[int, Field(ge=0)] = 0
    """Tell the story in pieces of so many events, one piece a round; 0: the whole story in every round."""

    @property
    def in_pieces(self) -> bool:
        """Whether questions come in pieces, one a round."""
        return self.events_per_piece > 0


class LedgerConfig(LengthsSection):
    """Long lists of entries on several accounts, of which one is asked for."""

    worked: ClassVar[bool] = True

    shortest: Annotated[int, Field(ge=1, le=1024)] = 8
    """Number of entries of the shortest lists."""
    longest: Annotated[int, Field(ge=1, le=1024)] = 32
    """Number of entries of the longest lists."""
    accounts: Annotated[int, Field(ge=1, le=8)] = 3
    """Number of accounts."""
    ask: Literal["total", "state", "both"] = "total"
    """Ask for a total (entries add and take), for a state (entries set, and the last one counts), or for one or the
    other."""
    largest: Annotated[int, Field(ge=9, le=1000)] = 20
    """No account ever holds more than this."""
    variant: Annotated[int, Field(ge=0)] = 0
    """Another number makes the same lists with other numbers."""
    question: str = "How much is on account {account} in the end? All accounts begin with 0."
    """Wording of what is asked; `{account}` is filled in."""
    entries_per_piece: Annotated[int, Field(ge=0)] = 0
    """Show the list in pieces of so many entries, one piece a round; 0: the whole list in every round."""

    @property
    def in_pieces(self) -> bool:
        """Whether questions come in pieces, one a round."""
        return self.entries_per_piece > 0

    @field_validator("question")
    @classmethod
    def _names_the_account(cls, question: str) -> str:
        if "{account}" not in question:
            raise ValueError("must contain {account}")
        return question


class CircuitConfig(TaskSection):
    """Truth tables with one output, to be written as Verilog."""

    inputs: Annotated[int, Field(ge=2, le=4)] = 4
    """Number of inputs of the function."""
    form: Literal["table", "minterms"] = "table"
    """State the truth table as bits, or as the rows in which the output is 1."""
    minterms: Annotated[int, Field(ge=0, le=15)] = 0
    """Ask only for functions that are 1 in this many rows (0: any)."""

    @model_validator(mode="after")
    def _not_constant(self) -> CircuitConfig:
        if self.minterms >= 2**self.inputs:
            raise ValueError(f"minterms must be 0 (any) to {2**self.inputs - 1} with inputs = {self.inputs}")
        return self


class DataConfig(Section):
    """Where questions come from and how answers are graded."""

    added = frozenset(PIECES)

    task: TaskName = "file"
    """A shipped task (docs/tasks.md describes them), or `file` for your own data."""
    train: str = ""
    """A JSONL, JSON, CSV, TSV or Parquet file, or a Hugging Face data set id; empty: the task's own questions."""
    test: str = ""
    """The same for held-out questions; empty: `held_out` rows of `train`, or else the task's own."""
    subset: str = ""
    """Configuration name of a Hugging Face data set (`main` for openai/gsm8k)."""
    train_split: str = "train"
    """Split of the data set that `train` names."""
    test_split: str = "test"
    """Split of the data set that `test` names."""
    question_column: str = "question"
    """Column of the question, where it is not the task's own: a text, or a chat of one user's message. What lies in a
    column has a dotted name, as in `extra_info.question` or `answers.text.0`. Several columns are joined by names in
    braces, as in "{context}\\n\\n{question}"; a list in one of them is shown as choices A, B, C, …"""
    answer_column: str = "answer"
    """Column of the gold answer, where it is not the task's own, e.g. `reward_model.ground_truth`."""
    answer_pattern: str = ""
    """Regular expression whose one group extracts the answer from the answer column, e.g. `#### (.+)`; or `boxed`: the
    content of the last `\\boxed{…}`; or the place of the right choice, read as a letter: `place` counts from 0,
    `place_from_1` from 1."""
    pieces_column: str = ""
    """Column of what a question is about, read in rounds: a list of texts, one a round, or with `piece_tokens` one long
    text. The question itself is shown in every round, and the last round asks for the answer."""
    piece_tokens: Annotated[int, Field(ge=0)] = 0
    """Cut what is in `pieces_column` into pieces of at most so many tokens, at the ends of lines and sentences. 0: it
    is a list, and taken as it is."""
    held_out: Annotated[int, Field(ge=0)] = 0
    """Number of training questions held out for testing (chosen by a hash of the question) when `test` is empty."""
    limit: Annotated[int, Field(ge=0)] = 0
    """Use only this many training questions, drawn once for all seeds (0: all)."""
    curriculum: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Train by lengths that grow: begin with the shortest questions, and let the next length join as soon as this share
    of the answers to the longest ones in use is right. 0: all lengths from the first step on (docs/long-texts.md)."""
    curriculum_questions: Annotated[int, Field(ge=1)] = 8
    """With `curriculum`: how many of the latest questions of the longest length in use that share is taken over."""
    grader: str = ""
    """How answers are compared: `exact`, `numeric`, `math`, `code`, `circuit`, or your own function as
    `module:function` or `file.py:function` (docs/tasks.md); empty: the task's own grader."""
    grader_seconds: Annotated[float, Field(gt=0)] = 5.0
    """Seconds of computing for one verdict, of an own grader that waits also by the clock. Rules that are known to need
    longer have a longer limit."""
    skip_bad: bool = False
    """Skip rows that cannot be used, count and list them, instead of stopping."""
    arithmetic: ArithmeticConfig = ArithmeticConfig()
    chain: ChainConfig = ChainConfig()
    stories: StoriesConfig = StoriesConfig()
    ledger: LedgerConfig = LedgerConfig()
    circuit: CircuitConfig = CircuitConfig()

    @field_validator("answer_pattern")
    @classmethod
    def _one_group(cls, pattern: str) -> str:
        if pattern == BOXED or pattern in PLACES:
            return pattern
        try:
            groups = re.compile(pattern).groups
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        if pattern and groups != 1:
            raise ValueError(f"needs exactly one group (...) around the answer, has {groups}")
        return pattern

    @model_validator(mode="after")
    def _only_what_is_used(self) -> DataConfig:
        if problems := [*self._of_unused_sections(), *self._of_unread_keys(), *self._of_curriculum()]:
            raise ValueError("\n".join(problems))
        return self

    def _of_unused_sections(self) -> Iterator[str]:
        source = next((f"data.{side}" for side in SOURCES if getattr(self, side)), f"task {self.task!r}")
        for task in TASK_SECTIONS:
            if task != self.task or self.active_section is None:
                for key in sorted(getattr(self, task).model_fields_set):
                    yield f"data.{task}.{key} is a setting of task {task!r}, but the questions come from {source}"

    def _of_unread_keys(self) -> Iterator[str]:
        # A resolved recipe spells out every default, so only another value is a choice of the user.
        fields = type(self).model_fields
        for key, reason in self._unread().items():
            if getattr(self, key) != fields[key].default:
                yield f"data.{key} {reason}"

    def _of_curriculum(self) -> Iterator[str]:
        section = self.active_section
        if not self.curriculum:
            if self.curriculum_questions != type(self).model_fields["curriculum_questions"].default:
                yield "data.curriculum_questions is read with data.curriculum only"
        elif isinstance(section, LengthsSection):
            if section.shortest == section.longest:
                one = f"data.{self.task}.shortest = longest = {section.longest}"
                yield f"data.curriculum needs questions of several lengths, and {one}: raise longest"
        elif not self.pieces_column:
            with_lengths = [task for task in TASK_SECTIONS if isinstance(getattr(self, task), LengthsSection)]
            yield (
                f"data.curriculum needs questions of several lengths, and those of task {self.task!r} have none: use "
                f"it with {', '.join(with_lengths)}, or with texts in pieces (data.pieces_column)"
            )

    def _unread(self) -> dict[str, str]:
        """Keys of `[data]` that neither the task nor its sources read, each with the reason."""
        makes = f"does not apply to task {self.task!r}, which has its own questions"
        if self.task in TASK_SECTIONS and self.task not in OWN_OR_ROWS:
            return dict.fromkeys((*SOURCES, *READING), makes)
        if self.task in OWN_OR_ROWS and not (self.train or self.test):
            return dict.fromkeys(READING, makes)
        unread = {f"{side}_split": f"is read with data.{side} only" for side in SOURCES if not getattr(self, side)}
        if not (self.train or self.test):
            unread["subset"] = "is read with data.train or data.test only"
        if self.task in OWN_OR_ROWS:
            gold = f"does not apply to task {self.task!r}, whose rows give the gold answer in columns of their own"
            unread |= dict.fromkeys(("answer_column", "answer_pattern"), gold)
        if self.piece_tokens and not self.pieces_column:
            unread["piece_tokens"] = "is read with data.pieces_column only"
        return unread

    @property
    def in_pieces(self) -> bool:
        """Whether questions come in pieces, one a round."""
        section = self.active_section
        return section.in_pieces if section is not None else bool(self.pieces_column)

    @property
    def own_grader(self) -> bool:
        """Whether answers are graded by a function of the user's own."""
        return ":" in self.grader

    @property
    def active_section(self) -> TaskSection | None:
        """The section whose task makes the questions; None if they are read from a source."""
        return None if self.train or self.test or self.task not in TASK_SECTIONS else getattr(self, self.task)

    def left_out(self) -> set[str]:
        """Also the sections of other tasks: they change nothing, and would be refused when the recipe is read again."""
        used = {self.task} if self.active_section is not None else set()
        newer = set() if self.curriculum else {*CURRICULUM}
        return super().left_out() | newer | {*TASK_SECTIONS} - used


TASK_SECTIONS = tuple(name for name, field in DataConfig.model_fields.items() if isinstance(field.default, TaskSection))
"""The tasks that have a section."""
