"""Long texts cut into pieces, one a round.

A text is cut at the ends of lines and sentences, and pieces are filled up in order to a limit of tokens. A sentence
that is longer by itself is cut between words, and a word that is longer between characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from motif.method.rounds import Rounds

SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+|(?<=[。！？])")
"""Where a text may be cut: behind the end of a sentence, and between lines."""
LONGEST_SENTENCE = 4000
"""Characters of a text without any end that are looked at together."""
Lengths = Callable[[Sequence[str]], list[int]]
"""Gives the lengths of texts in tokens."""


def cut(text: str, limit: int, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The pieces of a text in order, each of at most `limit` tokens and as full as its sentences allow.

    Nothing of the text is left out but white space at the ends of pieces. Where one character has more tokens than
    that, it is a piece by itself.
    """

    def lengths(texts: Sequence[str]) -> list[int]:
        encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"]
        return [len(ids) for ids in encoded]

    parts = [part for part in _parts(text) if part]
    if not parts:
        return []
    sizes = lengths(parts)
    pieces: list[str] = []
    waiting, size = "", 0
    for part, tokens in zip(parts, sizes, strict=True):
        if waiting and size + tokens <= limit and lengths([(waiting + part).strip()])[0] <= limit:
            waiting, size = waiting + part, lengths([waiting + part])[0]
            continue
        if waiting.strip():
            pieces.append(waiting.strip())
        *full, waiting = _within(part, limit, lengths)
        pieces += full
        size = lengths([waiting])[0]
    return [*pieces, waiting.strip()] if waiting.strip() else pieces


def _parts(text: str) -> Iterator[str]:
    """The sentences and lines of a text with the white space behind them."""
    start = 0
    for match in SENTENCE.finditer(text):
        yield from _chunks(text[start : match.end()])
        start = match.end()
    yield from _chunks(text[start:])


def _chunks(part: str) -> Iterator[str]:
    for start in range(0, len(part), LONGEST_SENTENCE):
        yield part[start : start + LONGEST_SENTENCE]


def _within(part: str, limit: int, lengths: Lengths) -> list[str]:
    """A part as it is, or cut between words or characters into parts within the limit."""
    cuts = []
    while len(part) > 1 and lengths([part.strip()])[0] > limit:
        low, high = 1, len(part) - 1  # the longest beginning within the limit; one character is always taken
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if lengths([part[:middle].strip()])[0] <= limit else (low, middle - 1)
        space = max(part.rfind(mark, 1, low + 1) for mark in " \t\n")
        end = space if space > 0 else low
        cuts.append(part[:end].strip())
        part = part[end:].lstrip()
    return [*cuts, part]


def read_in_pieces(message: str, limit: int, always: bool, rounds: Rounds) -> tuple[str, tuple[str, ...]]:
    """What a message asks and the pieces of what it is about; no pieces if the message is asked as it is.

    Args:
        limit: tokens of a piece; 0: no message is cut.
        always: whether short messages are read in pieces, too, by a model that knows nothing else.
    """
    if not limit or not (always or len(rounds.encode(message)) > limit):
        return message, ()
    question, text = question_and_text(message)
    pieces = tuple(cut(text or question, limit, rounds.tokenizer))
    return (question, pieces) if text else ("", pieces)


def question_and_text(message: str) -> tuple[str, str]:
    """What a message asks, and the text that it is about.

    Its question is its first or last paragraph (line, sentence, where there is but one): the one that ends with a
    question mark, else the last.
    """
    message = message.strip()
    for mark in (r"\n\s*\n", r"\n", r"(?<=[.!?])\s+"):
        ends = list(re.finditer(mark, message))
        if ends:
            first, rest = message[: ends[0].start()], message[ends[0].end() :]
            before, last = message[: ends[-1].start()], message[ends[-1].end() :]
            return (first, rest) if first.endswith("?") and not last.endswith("?") else (last, before)
    return message, ""
