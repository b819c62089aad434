"""Notes: cleaned of what could speak in the scaffold's voice, and quoted in the next prompt."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from motif.config import RoundsConfig

NUMBER = (
    r"\d{1,12}(?:\.\d{1,12})?|one|two|three|four|five|six|seven|eight|nine|ten|first|second|third|fourth|fifth|last|final"
    r"|[ivx]{1,4}\b"
)
"""A regular expression for what may fill a counter in an announcement, honest or forged."""

Literal = Callable[[str], str]
"""Makes a regular expression for a text."""

_EMPHASIS = "*_`~"  # markup between the words of an announcement does not hide it
_STRANGE = "\ufffc"  # stands for a character of another script in a plain text: any of them may look like a letter
_BLANK = frozenset("\u115f\u1160\u2800\u3164\uffa0")  # letters that are not to be seen
_ALIKE = {"o": "o0", "i": "i1l|", "l": "l1i|"}
_PAIRS = frozenset({("<", ">"), ("`", "'"), ("„", "“")})


class Cleaner:
    """Removes from notes what only the scaffold may say: tags, special words, its announcements.

    An announcement is found in other letters, too: in full-width and mathematical ones, in letters of another script
    that look alike, with invisible characters or emphasis between the letters.
    """

    def __init__(self, config: RoundsConfig, special: Iterable[str]):
        phrases = [config.progress.partition("{note}")[0], config.counter, config.final]
        # The numbered sentence of an announcement is forbidden alone, too: "Current round is the final (3 of 3)".
        phrases += [part for phrase in phrases for part in re.split(r"(?<=[.!?])\s+", phrase) if "{" in part]
        tags = [*config.think_tags, *config.note_tags]
        self.forbidden = alternatives(special, _patterns(tags, phrases, _exactly))
        self._disguised = alternatives((), _patterns(map(plain, tags), map(plain, phrases), _alike))

    def reveal(self, text: str) -> str:
        """The text without the announcements and tags that are written in other letters."""
        if text.isascii() and not any(mark in text for mark in _EMPHASIS):
            return text
        while True:
            letters = [(place, letter) for place, character in enumerate(text) for letter in _plain(character)]
            shown = "".join(letter for _, letter in letters)
            spans = [match.span() for match in self._disguised.finditer(shown) if _mostly_latin(match[0])]
            if not spans:
                return text
            for start, end in reversed(spans):
                text = text[: letters[start][0]] + text[letters[end - 1][0] + 1 :]


@dataclass(frozen=True)
class Quotation:
    """The marks that a prompt puts around a note.

    Like a string of Python or a block of Markdown, a note that holds such a mark stands between more of them than it
    has in a row. So it is shown as it was written, and cannot end its own quotation.
    """

    opening: str = ""
    closing: str = ""

    @classmethod
    def of(cls, progress: str) -> Quotation:
        """The marks in `rounds.progress`; none where it has no pair of them around the note."""
        before, _, after = progress.partition("{note}")
        pair = (before[-1:], after[:1])
        if not all(pair) or any(mark.isalnum() or mark.isspace() for mark in pair):
            return cls()
        kinds = "".join(unicodedata.category(mark) for mark in pair)
        facing = kinds in ("PsPe", "PiPf") and ord(pair[1]) - ord(pair[0]) <= ord("»") - ord("«")
        return cls(*pair) if pair[0] == pair[1] or pair in _PAIRS or facing else cls()

    def quote(self, note: str) -> str:
        """What stands in the place of the note, between the marks that the prompt has anyway."""
        runs = [len(match[0]) for mark in {self.opening, self.closing} - {""} for match in _runs(mark).finditer(note)]
        if not runs:
            return note
        more = max(2, *runs)
        before = " " if note.startswith((self.opening, self.closing)) else ""
        after = " " if note.endswith((self.opening, self.closing)) else ""
        return self.opening * more + before + note + after + self.closing * more


def alternatives(words: Iterable[str], patterns: Sequence[str] = ()) -> re.Pattern[str]:
    """A regular expression for any of the words or patterns, in letters of either case."""
    parts = [re.escape(word) for word in sorted(set(words), key=len, reverse=True) if word]
    return re.compile("|".join([*parts, *patterns]) or r"(?!)", re.IGNORECASE)


def plain(text: str) -> str:
    """The text as it looks: in ASCII where it can be, without invisible characters and emphasis."""
    return "".join(map(_plain, text))


@functools.lru_cache(maxsize=4096)
def _plain(character: str) -> str:
    if character.isascii():
        return "" if character in _EMPHASIS else character
    if character in _BLANK:
        return ""
    return "".join(map(_letter, unicodedata.normalize("NFKD", character)))


def _letter(character: str) -> str:
    if character.isascii() or character == _STRANGE:
        return character
    if unicodedata.category(character) in ("Cf", "Mn", "Me"):
        return ""
    if character.isspace():
        return " "
    digit = unicodedata.digit(character, None)
    return _STRANGE if digit is None else str(digit)


def _patterns(tags: Iterable[str], phrases: Iterable[str], literal: Literal) -> list[str]:
    announcements = sorted({_announcement(phrase, literal) for phrase in phrases} - {""}, key=_length_first)
    return [_tag(tag, literal) for tag in tags if tag.strip()] + announcements


def _length_first(pattern: str) -> tuple[int, str]:
    return -len(pattern), pattern


def _exactly(text: str) -> str:
    return re.escape(text)


def _alike(text: str) -> str:
    """A regular expression for a text whose letters and marks may be replaced by what looks like them."""
    classes = (f"[{re.escape(_ALIKE.get(letter, letter))}{_STRANGE}]" for letter in text.lower())
    return "".join(classes)


def _tag(tag: str, literal: Literal = _exactly) -> str:
    """A tag with any spaces inside, so that `< answer >` does not get round the rule."""
    return r"\s*".join(literal(character) for character in tag if not character.isspace())


def _announcement(template: str, literal: Literal = _exactly) -> str:
    """A regular expression for an announcement with whatever numbers; empty if it says too little to be forbidden."""
    bare = re.sub(r"\{\w+\}", "", template)
    if sum(character.isalnum() for character in bare) < 3:
        return ""
    words = re.sub(r"[^\w}]+$", "", template.strip())
    parts = [part for part in re.split(r"(\s*\{\w+\}\s*|\s+)", words) if part]
    number = NUMBER if literal is _exactly else rf"{NUMBER}|[a-z]{{0,6}}{_STRANGE}[a-z{_STRANGE}]{{0,6}}"
    slots = [part if not part.isspace() and part.strip()[0] != "{" else None for part in parts]
    pattern = "".join(literal(word) if word else _slot(part, number) for word, part in zip(slots, parts, strict=True))
    # A note may end before the last number: "Current round: 1 of" is an announcement all the same.
    last = _slot(parts[-1], number) if parts[-1].strip()[:1] == "{" else ""
    return pattern.removesuffix(last) + f"(?:{last})?" if last else pattern


def _slot(part: str, number: str) -> str:
    """A regular expression for white space, or for whatever fills a placeholder and the white space around it.

    The quantifiers are possessive (`++`): a model may write ten thousand spaces, and backtracking over them is cubic.
    """
    if part.isspace():
        return r"\s++"
    before, after = (r"\s++" if side.isspace() else r"\s*+" for side in (part[0], part[-1]))
    return rf"{before}(?:{number})?{after}"


def _mostly_latin(text: str) -> bool:
    """Whether at most half of the letters are of another script, so that it is not a text in that language."""
    return text.count(_STRANGE) <= sum(letter.isascii() and letter.isalnum() for letter in text)


@functools.cache
def _runs(mark: str) -> re.Pattern[str]:
    return re.compile(rf"{re.escape(mark)}+")
