r"""The prompt of round t, and how its response is read.

The layout of the prompts, with q the question and n the number of rounds (arXiv 2507.02851, figure of the authors'
repository):

    round 1      system prompt; q
    round t      system prompt; q, the note of round t-1 (or all notes so far), the round counter
    round n      the same, and the announcement that this round is the final one

Only the note survives a round. A response is read by these rules, each of which has a test:

1. A response is *well formed* if it has one think block and then one note block, each tag exactly once, nothing but
   white space around them and a non-empty note, and if the token limit did not cut it off.
2. The note stands between the last opening note tag that is closed afterwards and its closing tag. So the last of
   repeated blocks counts, and of nested blocks the innermost of the last.
3. If no note block is closed (because the response was cut off, say), the note is what follows the last opening note
   tag.
4. Without an opening note tag the note is the tail of the response, or empty (`rounds.untagged`).
5. The note is cut to `note_tokens` tokens and cleaned. A cut keeps the beginning of a note, but the end of a tail.
   Cleaning removes tags, special tokens, marks of turns in the chat template and the scaffold's own announcements,
   until none is left, and replaces the characters that quote the note in the prompt. So a note cannot speak in the
   scaffold's voice. Special tokens and marks of turns are removed from questions, too.
6. The answer is the last complete \boxed{...} of the *final part*. The final part is the note block (rules 2 and 3);
   where there is no note tag it is what follows the reasoning, or the whole response if no reasoning was closed. So a
   box inside closed reasoning, or beside a note block, does not count.
7. An early answer, boxed before the final round, does not end anything. It is part of the note like any other text,
   and only the final round is graded. Early answers are counted, because a model that only copies them makes no use of
   rounds.
"""

from __future__ import annotations

import contextlib
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from motif.config import RoundsConfig
from motif.errors import RecipeError
from motif.method.answers import boxed, last_number
from motif.text import read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SYSTEM_PROMPT = """\
You solve each question in {rounds} round(s). In every round you first reason about the question and then report your \
progress in detail. Write in exactly this form:
{think_open}
your reasoning
{think_close}
{note_open}
your progress
{note_close}
The reasoning is not kept. In the next round you see the question and your progress only, so the progress must hold \
everything you need to go on. When you are told that the current round is the final one, give the final answer between \
{note_open} and {note_close}, enclosed as {answer_open}answer{answer_close}. Only this enclosed answer is graded."""


NOTE_SEAM = 4
"""Tokens that a note may add to a prompt beyond its own: the quotes of an empty note merge into one, for example."""


NUMBER = r"\d{1,12}|one|two|three|four|five|first|second|third|fourth|fifth|last|final"
"""A regular expression for what may fill a counter in an announcement, honest or forged."""

_SLOT = "\x00message\x00"
_ROLES = "system|user|human|assistant|model|bot|ai|instruction|input|response"
_MARK = re.compile(
    rf"<[^<>\s][^<>\n]{{0,40}}>|<<\w+>>|\[/?[A-Z_]+\]|(?<!\w)(?:#+ ?)?(?:{_ROLES}) ?:|#+ ?(?:{_ROLES})\b", re.IGNORECASE
)


@dataclass(frozen=True)
class Reading:
    """A response as read: the note to carry, the answer to grade (None: there is none), whether it is well formed."""

    note: str
    answer: str | None
    well_formed: bool


class Rounds:
    """The rounds of one run: builds prompts and reads responses with one tokenizer.

    Raises:
        RecipeError: the system prompt file cannot be read.
    """

    def __init__(self, config: RoundsConfig, tokenizer: PreTrainedTokenizerBase):
        self.config = config
        self.tokenizer = tokenizer
        self.system_prompt = _system_prompt(config)
        special = [*_special_tokens(tokenizer), *self._turn_marks()]
        self._forbidden = _forbidden_in_notes(config, special)
        self._special = _alternatives(special)
        self._special_ids = {id for id in tokenizer.all_special_ids if id != tokenizer.unk_token_id}
        before, _, after = config.progress.partition("{note}")
        self._quotes = {mark for mark in (before[-1:], after[:1]) if mark and not mark.isalnum() and not mark.isspace()}

    # -- prompts ---------------------------------------------------------------------------------------------------

    def messages(self, question: str, notes: list[str], rounds: int) -> list[dict[str, str]]:
        """The chat of the round that follows `notes` (one per earlier round), of `rounds` rounds in all."""
        config, current = self.config, len(notes) + 1
        counters = {"round": str(current), "rounds": str(rounds)}
        text = _fill(config.question, counters | {"question": self.shown(question)})
        for previous, note in list(enumerate(notes, start=1))[-1 if config.carry == "latest" else 0 :]:
            text += _fill(config.progress, counters | {"previous": str(previous), "note": note})
        text += _fill(config.final if current == rounds else config.counter, counters)
        messages = [{"role": "user", "content": text}]
        if self.system_prompt:
            system = _fill(self.system_prompt, {"rounds": str(rounds)})
            messages.insert(0, {"role": "system", "content": system})
        return messages

    def shown(self, question: str) -> str:
        """A question as it stands in the prompts: without special tokens and marks of turns."""
        return self._neutralised(_without_surrogates(question), self._special)

    def prompt(self, question: str, notes: list[str], rounds: int) -> list[int]:
        """The token ids of the same, through the chat template where the tokenizer has one."""
        messages = self.messages(question, notes, rounds)
        if not self.tokenizer.chat_template:
            text = "\n\n".join(message["content"] for message in messages) + "\n\n"
            return self._encode(text, add_special_tokens=True)
        try:
            text = self._render(messages)
        except Exception:  # templates without a system role raise errors of their own
            if len(messages) == 1:
                raise
            joined = "\n\n".join(message["content"] for message in messages)
            text = self._render([{"role": "user", "content": joined}])
        return self._encode(text, add_special_tokens=False)

    def longest_prompt(self, question: str, rounds: int) -> int:
        """An upper bound in tokens on every prompt of this question: the longest round with full notes."""
        longest = 0
        for earlier in range(rounds):
            carried = earlier if self.config.carry == "all" else min(earlier, 1)
            bare = len(self.prompt(question, [""] * earlier, rounds))
            longest = max(longest, bare + carried * (self.config.note_tokens + NOTE_SEAM))
        return longest

    def _neutralised(self, text: str, forbidden: re.Pattern[str]) -> str:
        """The text without what is forbidden, also as the tokenizer reads it, which may see `<end>` in `＜ｅｎｄ＞`."""
        text = _remove(forbidden, text)
        if text.isascii():
            return text
        for plainer in (text, unicodedata.normalize("NFKC", text), text.encode("ascii", "ignore").decode()):
            text = _remove(forbidden, plainer)
            if self._special_ids.isdisjoint(self._encode(text, add_special_tokens=False)):
                break
        return text

    def _turn_marks(self) -> list[str]:
        """The marks that a chat template writes around messages to show whose turn it is.

        Many templates mark turns by plain text (`[INST]`, `<|user|>`, `### Response:`), which is not a special token.
        """
        if not self.tokenizer.chat_template:
            return []
        chat = [{"role": role, "content": _SLOT} for role in ("system", "user", "assistant", "user")]
        for messages in (chat, chat[1:]):
            with contextlib.suppress(Exception):  # a template without a system role
                return _MARK.findall(self._render(messages).replace(_SLOT, "\n"))
        return []

    def _render(self, messages: list[dict[str, str]]) -> str:
        text: Any = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return str(text)

    def _encode(self, text: str, add_special_tokens: bool) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"])

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, text: str, truncated: bool, final: bool) -> Reading:
        """Read one response by the rules above. `final` says that it is of the last round, where fallbacks apply."""
        text = _without_surrogates(text)
        opened, part, from_end = self._final_part(text)
        answer = boxed(part, *self.config.answer_marks)
        if answer is None and final and self.config.fallback == "last_number":
            answer = last_number(part)
        elif answer is None and final and self.config.fallback == "text":
            answer = part.strip() or None
        if not opened and self.config.untagged == "empty":
            note = ""
        else:
            note = self._cut(self.clean(part), from_end)
        return Reading(note, answer, not truncated and bool(note) and self._well_formed(text))

    def final_part(self, text: str) -> str:
        """The part of a response that addresses the reader (rules 2 to 4), as it was written."""
        return self._final_part(text)[1].strip()

    def clean(self, note: str) -> str:
        """The note without anything that could speak in the scaffold's voice (rule 5)."""
        note = self._neutralised(note, self._forbidden)
        for mark in self._quotes:
            note = note.replace(mark, "'" if mark != "'" else "`")
        return note.strip()

    def _final_part(self, text: str) -> tuple[bool, str, bool]:
        """Whether a note tag was opened, the final part (rules 2 to 4), and whether a cut should keep the end of it."""
        opening, closing = self.config.note_tags
        end = text.rfind(closing)
        start = text.rfind(opening, 0, end) if end >= 0 else -1
        if start >= 0:
            return True, text[start + len(opening) : text.index(closing, start + len(opening))], False
        start = text.rfind(opening)
        if start >= 0:
            return True, text[start + len(opening) :], False
        return False, text.rpartition(self.config.think_tags[1])[2] or text, True

    def _well_formed(self, text: str) -> bool:
        tags = [*self.config.think_tags, *self.config.note_tags]
        if any(text.count(tag) != 1 for tag in tags):
            return False
        think_open, think_close, note_open, note_close = (text.index(tag) for tag in tags)
        between = text[think_close + len(tags[1]) : note_open]
        around = text[:think_open] + between + text[note_close + len(tags[3]) :]
        return think_open < think_close < note_open < note_close and not around.strip()

    def _cut(self, note: str, from_end: bool) -> str:
        # A token stands for at least one byte, so a text of so few bytes fits.
        if len(note.encode()) <= self.config.note_tokens:
            return note
        ids = self._encode(note, add_special_tokens=False)
        limit = self.config.note_tokens
        if len(ids) <= limit:
            return note
        for count in range(limit, 0, -1):  # fewer, where the cut text falls into more tokens than were kept
            kept = ids[-count:] if from_end else ids[:count]
            text = str(self.tokenizer.decode(kept, skip_special_tokens=True))
            note = self.clean(text.strip("\ufffd"))  # half a character at the edge
            if len(self._encode(note, add_special_tokens=False)) <= limit:
                return note
        return ""


def _system_prompt(config: RoundsConfig) -> str:
    if config.system_prompt_file:
        try:
            template = read_text(config.system_prompt_file).strip()
        except OSError as error:
            raise RecipeError(f"rounds.system_prompt_file: {error}") from None
        except ValueError as error:
            raise RecipeError(f"rounds.system_prompt_file: {config.system_prompt_file}:{error}") from None
    else:
        template = SYSTEM_PROMPT if config.system_prompt == "default" else config.system_prompt
    names = ("think_open", "think_close", "note_open", "note_close", "answer_open", "answer_close")
    return _fill(template, dict(zip(names, (*config.think_tags, *config.note_tags, *config.answer_marks), strict=True)))


def _without_surrogates(text: str) -> str:
    """The text with question marks for halves of surrogate pairs, which tokenizers refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _fill(template: str, values: dict[str, str]) -> str:
    # One pass, so that a placeholder inside a value (a note, a question) is not filled in turn. Not str.format, because
    # prompts are full of braces.
    return re.sub(r"\{(\w+)\}", lambda match: values.get(match[1], match[0]), template)


def _special_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    tokens = [str(token) for token in tokenizer.all_special_tokens]
    tokens += [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    return tokens


def _forbidden_in_notes(config: RoundsConfig, special: list[str]) -> re.Pattern[str]:
    phrases = [config.progress.partition("{note}")[0], config.counter, config.final]
    # The numbered sentence of an announcement is forbidden alone, too: "Current round is the final (3 of 3)".
    phrases += [part for phrase in phrases for part in re.split(r"(?<=[.!?])\s+", phrase) if "{" in part]
    patterns = sorted(dict.fromkeys(map(_announcement_pattern, phrases)), key=len, reverse=True)
    tags = [_tag_pattern(tag) for tag in (*config.think_tags, *config.note_tags)]
    return _alternatives(special, tags + [pattern for pattern in patterns if pattern])


def _alternatives(words: list[str], patterns: list[str] | None = None) -> re.Pattern[str]:
    parts = [re.escape(word) for word in sorted(set(words), key=len, reverse=True) if word]
    return re.compile("|".join(parts + (patterns or [])) or r"(?!)", re.IGNORECASE)


def _tag_pattern(tag: str) -> str:
    """A tag with any spaces inside, so that `< answer >` does not get round the rule."""
    return r"\s*".join(re.escape(character) for character in tag if not character.isspace())


def _announcement_pattern(template: str) -> str:
    """A regular expression for an announcement with whatever numbers; empty if it says too little to be forbidden."""
    literal = re.sub(r"\{\w+\}", "", template)
    if sum(character.isalnum() for character in literal) < 3:
        return ""
    words = re.sub(r"[^\w}]+$", "", template.strip())
    parts = [part for part in re.split(r"(\s*\{\w+\}\s*|\s+)", words) if part]
    pattern = "".join(_slot_pattern(p) if p.isspace() or p.strip()[0] == "{" else re.escape(p) for p in parts)
    # A note may end before the last number: "Current round: 1 of" is an announcement all the same.
    last = _slot_pattern(parts[-1]) if parts[-1].strip()[:1] == "{" else ""
    return pattern.removesuffix(last) + f"(?:{last})?" if last else pattern


def _slot_pattern(part: str) -> str:
    """A regular expression for white space, or for whatever fills a placeholder and the white space around it.

    The quantifiers are possessive (`++`): a model may write ten thousand spaces, and backtracking over them is cubic.
    """
    if part.isspace():
        return r"\s++"
    before, after = (r"\s++" if side.isspace() else r"\s*+" for side in (part[0], part[-1]))
    return rf"{before}(?:{NUMBER})?{after}"


def _remove(pattern: re.Pattern[str], text: str) -> str:
    """Remove all matches until none is left: the removal of one must not assemble another."""
    while True:
        shorter = pattern.sub("", text)
        if shorter == text:
            return text
        text = shorter
