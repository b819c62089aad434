"""`[rounds]`: the prompt of each round, what is carried to the next one, and how a response is read."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from motif.config.sections import Section

TEMPLATE_ARGUMENTS = frozenset(
    {"messages", "conversation", "chat_template", "add_generation_prompt", "continue_final_message", "tokenize"}
    | {"padding", "truncation", "max_length", "return_tensors", "return_dict", "return_assistant_tokens_mask"}
    | {"tokenizer_kwargs", "sanitize_control_tokens", "tools", "documents", "strftime_now", "raise_exception"}
)
"""Names that are not variables of a chat template, because rendering takes them for something else."""


class Example(Section):
    """A worked example: a question, its answer, and the reasoning and the note of each of its rounds."""

    question: Annotated[str, Field(min_length=1)]
    answer: Annotated[str, Field(min_length=1)]
    rounds: Annotated[list[tuple[str, str]], Field(min_length=1)]


class BuiltIn(NamedTuple):
    """Other words for a text of the prompts, where `rounds.carry` is `tail`, and where `rounds.total` is off."""

    tail: str = ""
    without_total: str = ""


BUILT_IN = {
    "progress": BuiltIn(tail=' Your work so far ends with: "{note}"'),
    "counter": BuiltIn(without_total=" Current round: {round}."),
    "final": BuiltIn(without_total=" Current round is the final round. Provide a final answer."),
}


class RoundsConfig(Section):
    """The prompt of each round and how its response is read (see `motif.method.rounds` for the rules)."""

    added = frozenset({"examples", "total", "announce_final", "may_finish", "piece"})

    system_prompt: str = "default"
    """`default` for the built-in text, or your own text; `{rounds}` and the tags are filled in. Empty: none."""
    system_prompt_file: str = ""
    """A file whose text replaces `system_prompt`."""
    think: Literal["tags", "model"] = "tags"
    """What encloses the reasoning of a round: `think_tags`, which the prompt asks for, or the marks that the model was
    made with, such as `<think>` or a channel of its own, found from its chat template and tokens."""
    think_tags: tuple[str, str] = ("<reasoning>", "</reasoning>")
    """Marks around the reasoning. With `think = "model"` they are the model's own and cannot be set."""
    note_tags: tuple[str, str] = ("<answer>", "</answer>")
    question: str = "{question}"
    piece: str = "{question}\n\n{piece}"
    """What stands for `{question}` where it is about a text in pieces: in round t it holds piece t."""
    progress: str = ' Progress in round {previous}: "{note}"'
    """Appended in rounds 2 to n, once for each carried note."""
    counter: str = " Current round: {round} of {rounds}."
    """Appended in every round but the last."""
    final: str = " Current round is the final ({round} of {rounds}) round. Provide a final answer."
    """Appended in the last round."""
    examples: Annotated[int, Field(ge=0)] | str | list[Example] = 0
    """Worked examples that every prompt shows, behind the system prompt: a file of JSON lines like `warmstart.file`, or
    how many of the training data's worked solutions are shown, cut into rounds. A run keeps the examples themselves."""
    total: bool = True
    """Tell the model how many rounds there are. If off, texts of your own may not hold `{rounds}`, and the built-in
    ones do not: so a model can go on for more rounds than it was trained in."""
    announce_final: bool = True
    """Tell the model which round is the last. If off, `counter` stands in the last round, too, and the model has to box
    its answer as soon as it knows it."""
    may_finish: bool = False
    """A response that gives an answer between the answer marks is the last of its trajectory, in whatever round."""
    answer_marks: tuple[str, str] = ("\\boxed{", "}")
    """Marks around the final answer."""
    fallback: Literal["none", "last_number", "text"] = "none"
    """What is graded in a final response without answer marks: nothing, its last number, or its whole final part."""
    carry: Literal["latest", "all", "tail"] = "latest"
    """Carry only the latest note (the paper), or every note so far. `tail`: no note and no form is asked for; the last
    `note_tokens` tokens of a response are carried (Delethink, arXiv 2510.06557)."""
    note_tokens: Annotated[int, Field(ge=1)] = 512
    """Token limit of a note; longer notes are cut."""
    untagged: Literal["tail", "empty"] = "tail"
    """What is carried from a response without note tags: its last `note_tokens` tokens, or nothing."""
    date: datetime.date = datetime.date(2025, 1, 1)
    """The day that the model's chat template is told where it asks for the date. It does not change with the calendar,
    so neither do the prompts."""
    template_variables: dict[str, Any] = Field(default_factory=dict)
    """Variables for the model's chat template, such as `enable_thinking = false`."""

    @field_validator("question", "piece", "progress", "counter", "final")
    @classmethod
    def _placeholders(cls, text: str, info: Any) -> str:
        allowed = {"question": {"question"}, "progress": {"previous", "note"}}.get(info.field_name, set())
        allowed |= {"question", "piece"} if info.field_name == "piece" else {"round", "rounds"}
        unknown = set(re.findall(r"\{(\w*)\}", text)) - allowed
        if unknown:
            raise ValueError(f"unknown placeholder {{{sorted(unknown)[0]}}}; known are {sorted(allowed)}")
        if info.field_name in ("question", "piece", "progress"):
            needed = "note" if info.field_name == "progress" else info.field_name
            if "{" + needed + "}" not in text:
                raise ValueError(f"must contain {{{needed}}}")
        return text

    @field_validator("examples", mode="before")
    @classmethod
    def _known_kinds(cls, examples: Any) -> Any:
        if not isinstance(examples, int | str) and not all(isinstance(item, dict | Example) for item in examples):
            raise ValueError("must be a number, a file, or a list of {question, answer, rounds}")
        return examples

    @field_validator("template_variables")
    @classmethod
    def _variables(cls, variables: dict[str, Any]) -> dict[str, Any]:
        for name, value in variables.items():
            if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
                raise ValueError(f"{name!r} is not the name of a variable")
            if name in TEMPLATE_ARGUMENTS:
                raise ValueError(f"{name!r} is not a variable of templates: motif sets it itself")
            for part in value if isinstance(value, list) else [value]:
                if not isinstance(part, bool | int | float | str):
                    raise ValueError(f"{name!r} must be true, false, a number, a text, or a list of them")
        return variables

    @model_validator(mode="after")
    def _built_in_texts(self) -> RoundsConfig:
        """Built-in texts that say what they should; frozen for users, but still being validated here."""
        fields = type(self).model_fields
        for name, texts in BUILT_IN.items():
            for applies, text in ((self.carry == "tail", texts.tail), (not self.total, texts.without_total)):
                if applies and text and getattr(self, name) == fields[name].default:
                    object.__setattr__(self, name, text)
        return self

    @model_validator(mode="after")
    def _number_of_rounds(self) -> RoundsConfig:
        shown = ["system_prompt", "question", "progress", "counter", *["final"] * self.announce_final]
        told = [name for name in shown if "{rounds}" in getattr(self, name)]
        if told and not self.total:
            raise ValueError(f"total = false, but {told[0]} tells the number of rounds: leave {{rounds}} out of it")
        if told and not self.announce_final:
            raise ValueError(f"announce_final = false, but {told[0]} tells the number of rounds: use total = false")
        return self

    @model_validator(mode="after")
    def _tail(self) -> RoundsConfig:
        if self.carry == "tail" and self.untagged != "tail":
            raise ValueError("carry = 'tail' carries the tail of every response: leave untagged out")
        if self.carry == "tail" and self.examples:
            raise ValueError("carry = 'tail' asks for no form, and examples show one: leave examples out")
        return self

    @model_validator(mode="after")
    def _one_pair(self) -> RoundsConfig:
        if self.think == "model" and self.think_tags != type(self).model_fields["think_tags"].default:
            raise ValueError("think = 'model' takes the model's own marks: leave think_tags out")
        return self

    @field_validator("think_tags", "note_tags", "answer_marks")
    @classmethod
    def _marks(cls, marks: tuple[str, str]) -> tuple[str, str]:
        if not all(mark.strip() for mark in marks):
            raise ValueError("needs two non-empty strings")
        return marks
