"""The marks between which a model reasons of its own accord, found out by rendering its chat template."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from motif.config.rounds import TEMPLATE_ARGUMENTS
from motif.errors import ModelError
from motif.method.template import ASSISTANT, MARK, USER, ChatTemplate

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Marks = tuple[str, str]

_REASON = "1414213562373095"
_NAMED = re.compile(r"think|thought|reason", re.IGNORECASE)


def own_marks(template: ChatTemplate | None, tokenizer: PreTrainedTokenizerBase) -> Marks:
    """What opens and what closes the reasoning of this model, without white space around it.

    A template tells it in one of four ways. It writes reasoning that a message has in a field of its own; or it writes
    an empty block before a response where a variable switches reasoning off; or it takes reasoning out of earlier
    responses, up to a mark; or it only has the marks among its tokens. Variables that the recipe sets may hide some of
    that, so each is also tried without them.

    Raises:
        ModelError: it has no such marks.
    """
    tokens = [token.content for token in tokenizer.added_tokens_decoder.values()]
    for form in (template, template.without_variables()) if template else ():
        probe = _Probe(form, tokens)
        if marks := probe.of_field() or probe.of_empty_block() or probe.of_history():
            return marks
    for closing in filter(_NAMED.search, tokens):
        if (opening := closing.replace("/", "", 1)) != closing and opening in tokens:
            return opening, closing
    raise ModelError(
        "rounds.think = 'model': neither the chat template nor the tokens of this model mark its reasoning, so leave "
        "it out, and rounds.think_tags are used"
    )


class _Probe:
    """Chats that show what a template does with reasoning. `tokens`: texts that may be marks, of the tokenizer."""

    def __init__(self, template: ChatTemplate, tokens: Iterable[str]):
        self.render, self.source = template.attempt, template.source.removeprefix(template.clock)
        self.marks = re.compile("|".join([*map(re.escape, sorted(tokens, key=len, reverse=True)), MARK.pattern]), re.I)
        self.user, self.next = {"role": "user", "content": USER}, {"role": "user", "content": "1"}
        self.begun = _after(self.render([self.user], True), USER)  # from the question to the response

    def of_field(self) -> Marks | None:
        """From a message whose reasoning stands in a field of its own."""
        said = {"role": "assistant", "content": ASSISTANT}
        earlier = _after(self.render([self.user, said, self.next], False), USER).partition(ASSISTANT)[0]
        for field in self._words(r"[.'\"]", {"role", "content"}):
            text = _after(self.render([self.user, {**said, field: _REASON}], False), USER)
            before, found, rest = text.partition(_REASON)
            between, shown, _ = rest.partition(ASSISTANT)
            if not found or not shown or ASSISTANT in before or not self.marks.search(between):
                continue
            header = min(len(_shared(before, other)) for other in (earlier, self.begun))
            opening = before[header:].strip() or self._last(before)
            if self.marks.search(opening):
                return opening, between.strip()
        return None

    def of_empty_block(self) -> Marks | None:
        """From the block that a variable adds before a response, in which nothing is reasoned."""
        bare = _after(self.render([self.user], False), USER)
        if self.begun in ("", bare):
            return None
        for other in self._varied():
            shared = _shared(self.begun, other)
            added = [text[len(shared) :] for text in (self.begun, other)]
            longer = max(added, key=len)
            if min(map(len, added)) or not (places := [match.span() for match in self.marks.finditer(longer)]):
                continue
            start, end = places[-1]
            opening = longer[:start].strip() or self._last(shared)
            if not longer[end:].strip() and self.marks.match(opening) and opening not in bare:
                return opening, longer[start:end]
        return None

    def of_history(self) -> Marks | None:
        """From earlier responses, out of which the template takes what stands before the closing mark."""
        if _REASON not in self._earlier(f"{_REASON} {ASSISTANT}"):
            return None
        for closing in dict.fromkeys(self.marks.findall(self.source)):
            text = self._earlier(f"{_REASON}{closing}{ASSISTANT}")
            if ASSISTANT in text and _REASON not in text:
                opening = closing.replace("/", "", 1)
                return (opening, closing) if opening != closing else (self._last(self.begun), closing)
        return None

    def _earlier(self, content: str) -> str:
        return str(self.render([self.user, {"role": "assistant", "content": content}, self.next], True))

    def _varied(self) -> Iterator[str]:
        """How a response begins with each variable on and off that the template might have."""
        for name in self._words(r"\b(?<![.'\"])", TEMPLATE_ARGUMENTS):
            for value in (False, True):
                if text := _after(self.render([self.user], True, {name: value}), USER):
                    yield text

    def _words(self, before: str, but: AbstractSet[str]) -> list[str]:
        """The words in the template, behind such a character, that may be names of fields or variables."""
        return sorted(set(re.findall(before + r"([A-Za-z_]\w*)", self.source)) - but)

    def _last(self, text: str) -> str:
        return ([match[0] for match in self.marks.finditer(text)] or [""])[-1]


def _after(text: str, part: str) -> str:
    return text.rpartition(part)[2] if part in text else ""


def _shared(one: str, other: str) -> str:
    """The beginning that two texts have in common."""
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return one[:length]
