"""A model's chat template: which chat it shows whole, what it writes before a response, and what it writes after one.

A template is a program that came with a model, and nothing is known of it. What it does is found out by rendering chats
whose messages are numbers that no template changes.
"""

from __future__ import annotations

import contextlib
import copy
import datetime
import difflib
import json
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motif.errors import ModelError, RecipeError, first_line
from motif.method.runaway import runs_away
from motif.method.tokens import is_ordinary

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = dict[str, str]

# Digits: templates strip, escape and capitalise, and none of that changes them.
_SYSTEM, USER, ASSISTANT = "3141592653589793", "2718281828459045", "1618033988749894"
_ROLES = "system|user|human|assistant|model|bot|ai|instruction|input|response"
MARK = re.compile(
    rf"<[^<>\s][^<>\n]{{0,40}}>|<<\w+>>|\[/?[A-Z_]+\]|(?<!\w)(?:#+ ?)?(?:{_ROLES}) ?:|#+ ?(?:{_ROLES})\b", re.IGNORECASE
)
_LONG = f"{USER} " * 120  # a question of some length


@dataclass(frozen=True)
class Form:
    """How messages must be given to a template for it to show them whole.

    `system`: the system message has a role of its own; otherwise it is joined to the user's. `parts`: contents are
    lists of parts, as templates of models that also read images want them.
    """

    system: bool = True
    parts: bool = False

    def join(self, messages: Sequence[Message]) -> list[Message]:
        """The messages, with the system's joined to the user's where it has no role of its own."""
        if self.system or len(messages) < 2 or messages[0]["role"] != "system":
            return list(messages)
        first, second, *rest = messages
        return [{**second, "content": f"{first['content']}\n\n{second['content']}"}, *rest]

    def shape(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """The messages as the template takes them."""
        chat = [dict[str, Any](message) for message in self.join(messages)]
        if self.parts:
            chat = [{**message, "content": [{"type": "text", "text": message["content"]}]} for message in chat]
        return chat


class ChatTemplate:
    """The chat template of a tokenizer that has one. `clock`: what is put before it, so that its clock stands still.

    Args:
        system: the system message that it will be given, or empty. variables: further variables for the template.
        date: what it gets for the clock, so that the same chat makes the same prompt on any day.

    Raises:
        ModelError: the template fails, or does not show what it is given.
        RecipeError: it does not use one of the variables.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        system: str = "",
        variables: Mapping[str, Any] | None = None,
        date: datetime.date = datetime.date(2025, 1, 1),
    ):
        self.tokenizer, self.variables = tokenizer, dict(variables or {})
        try:
            source = tokenizer.get_chat_template()
        except ValueError as error:
            raise ModelError(f"the chat template of this model cannot be used: {first_line(error)}") from None
        _refuse_unused(self.variables, source)
        self.clock = stopped_clock(date) if "strftime_now" in source else ""
        self.source = self.clock + source
        self._system = bool(system)
        self._refuse_runaway()
        self.form = self._find_form(system)

    def render(self, messages: Sequence[Message], generation: bool = True) -> str:
        """The text of a chat, with the beginning of a response where `generation`.

        Raises:
            ModelError: the template fails on it.
        """
        try:
            return self._render(self.form.shape(messages), generation)
        except Exception as error:  # a template may raise anything
            raise ModelError(f"the chat template of this model fails: {first_line(error)}") from error

    def attempt(self, turns: Sequence[Message], generation: bool, variables: Mapping[str, Any] | None = None) -> str:
        """The text of these turns behind a system message where there will be one; empty where the template fails."""
        try:
            return self._render(self.form.shape([*self._chat(), *turns]), generation, variables)
        except Exception:  # a template may raise anything
            return ""

    def without_variables(self) -> ChatTemplate:
        """The same template with none of the variables set."""
        other = copy.copy(self)
        other.variables = {}
        return other

    def opening(self, tags: Sequence[str]) -> str:
        """What the template writes of a response itself: from the first of the tags in it, empty if it writes none.

        Templates of models that always reason open the think tag, or write an empty think block where reasoning is
        switched off.
        """
        chat = self._chat(("user", USER))
        text, written = self.render(chat), ""
        with contextlib.suppress(ModelError):  # some want a question to be followed by a response
            bare = self.render(chat, generation=False)
            written = text[len(bare) :] if text.startswith(bare) else ""
        written = written or text.rpartition(USER)[2]
        places = [place for tag in tags if (place := written.find(tag)) >= 0]
        return written[min(places) :] if places else ""

    def turn_end(self) -> int | None:
        """The token that the template writes after a response; None if it writes text, or nothing.

        The response is the last message, or, for templates that leave the last one open, it is followed by another.
        """
        user, assistant = ("user", USER), ("assistant", ASSISTANT)
        added = self.tokenizer.added_tokens_decoder.items()
        tokens = {token.content: id for id, token in added if not is_ordinary(token.content)}
        named = re.compile("|".join(map(re.escape, sorted(tokens, key=len, reverse=True))) or r"(?!)")
        for turns in ((user, assistant), (user, assistant, user)):
            with contextlib.suppress(ModelError):
                _, shown, after = self.render(self._chat(*turns), generation=False).rpartition(ASSISTANT)
                token = named.search(after) if shown else None
                if token and not any(map(str.isalnum, after[: token.start()])):  # a closing quotation mark at most
                    return tokens[token[0]]
        return None

    def marks(self) -> list[str]:
        """The marks that show whose turn it is. Many are plain text (`[INST]`, `<|user|>`, `### Response:`)."""
        turns = [("user", USER), ("assistant", ASSISTANT), ("user", USER)]
        for chat in (_messages([("system", _SYSTEM), *turns]), _messages(turns)):
            with contextlib.suppress(ModelError):
                return MARK.findall(re.sub("|".join((_SYSTEM, USER, ASSISTANT)), "\n", self.render(chat)))
        return []

    def _chat(self, *turns: tuple[str, str]) -> list[dict[str, str]]:
        """A chat of these turns, with a system message where there will be one."""
        return _messages([("system", _SYSTEM)] * self._system + list(turns))

    def _refuse_runaway(self) -> None:
        chats = [
            {**self.tokenizer.special_tokens_map, **self.variables}
            | {"messages": _messages(turns), "add_generation_prompt": generation}
            for turns in ([("system", _LONG), ("user", _LONG)], [("user", _LONG)])
            for generation in (True, False)
        ]
        if runs_away(self.source, json.dumps(chats, default=str)):
            raise ModelError(
                "the chat template of this model takes seconds or gigabytes for one question: take another model, or "
                "mend chat_template in its folder"
            )

    def _find_form(self, system: str) -> Form:
        """The first form in which the template shows both messages from their beginning to their end."""
        chat = [{"role": "user", "content": f"{USER} {USER}"}]
        if system:
            chat.insert(0, {"role": "system", "content": f"{_SYSTEM}\n{system}\n{_SYSTEM}"})
        failure: Exception | None = None
        for parts in (False, True):
            for own in (True, False) if system else (True,):
                form = Form(own, parts)
                try:
                    text = self._render(form.shape(chat), True)
                except Exception as error:  # a template without a system role raises an error of its own
                    failure = failure or error
                    continue
                printed = parts and re.search(r"[\"']text[\"']:", text)  # as Python's list, by a template for texts
                if text.count(USER) >= 2 and (not system or text.count(_SYSTEM) >= 2) and not printed:
                    return form
        if failure:
            raise ModelError(f"the chat template of this model fails: {first_line(failure)}") from failure
        raise ModelError(
            "the chat template of this model leaves out a part of what it is given, so the model would not see the "
            "question: take another model, or mend chat_template in its folder"
        )

    def _render(
        self, messages: list[dict[str, Any]], generation: bool, variables: Mapping[str, Any] | None = None
    ) -> str:
        text: Any = self.tokenizer.apply_chat_template(
            messages,
            chat_template=self.source,
            add_generation_prompt=generation,
            tokenize=False,
            **self.variables | dict(variables or {}),
        )
        return str(text)


def _messages(turns: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def stopped_clock(date: datetime.date) -> str:
    """The beginning of a template in which `strftime_now` tells noon of this day, whatever the time is."""
    moment = datetime.datetime.combine(date, datetime.time(12))
    told = "format"
    for letter in string.ascii_letters.replace("s", ""):  # %s would depend on the time zone
        for directive in (f"%-{letter}", f"%{letter}"):
            with contextlib.suppress(ValueError):
                if (text := moment.strftime(directive)) != directive:
                    told += f".replace({directive!r}, {text!r})"
    return "{%- macro strftime_now(format) -%}{{ " + told + " }}{%- endmacro %}\n"


def _refuse_unused(variables: Mapping[str, Any], source: str) -> None:
    for name in variables:
        if not re.search(rf"\b{re.escape(name)}\b", source):
            near = difflib.get_close_matches(name, re.findall(r"\b[a-z]\w+\b", source), n=1, cutoff=0.7)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise RecipeError(f"rounds.template_variables: the model's chat template has no variable {name!r}.{hint}")
