r"""The prompt of round t, and how its response is read.

The layout of the prompts, with q the question and n the number of rounds (arXiv 2507.02851, figure of the authors'
repository):

    round 1      system prompt; q
    round t      system prompt; q, the note of round t-1 (or all notes so far), the round counter
    round n      the same, and the announcement that this round is the final one

The number of rounds and the last round need not be told (`rounds.total`, `rounds.announce_final`). Then the prompt of a
round is the same whatever n is.

Of a text in pieces, q in round t is the question with piece t (`rounds.piece`), so the last round has the last piece.

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
   until none is left (`motif.method.notes`). A note that holds the marks that quote it in the prompt stands between
   more of them. So a note cannot speak in the scaffold's voice, and what it says is shown as it was written. Special
   tokens and marks of turns are removed from questions, too.
6. The answer is the last complete \boxed{...} of the *final part*. The final part is the note block (rules 2 and 3);
   where there is no note tag it is what follows the reasoning, or the whole response if no reasoning was closed. So a
   box inside closed reasoning, or beside a note block, does not count.
7. An early answer, boxed before the final round, does not end anything. It is part of the note like any other text,
   and only the final round is graded. Early answers are counted, because a model that only copies them makes no use of
   rounds. With `rounds.may_finish` an early answer by rule 6 is the answer: it ends the trajectory and is graded.
8. What the chat template writes of a response itself, such as an opening think tag, counts as written by the model.
9. With `rounds.carry = "tail"` no form is asked for, so note tags mean nothing and every response is well formed. The
   note is the end of the whole response, reasoning included, cut and cleaned by rule 5. The answer is the last box
   behind the reasoning, or of the whole response if no reasoning was closed.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from motif.config import Example, RoundsConfig
from motif.errors import RecipeError
from motif.method.answers import boxed, last_number
from motif.method.notes import Cleaner, alternatives
from motif.method.prompts import Prompts, prompt_text
from motif.method.reasoning import own_marks
from motif.method.template import ChatTemplate
from motif.method.tokens import control_tokens, padding, spell
from motif.method.tree import Question

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NOTE_SEAM = 4
"""Tokens that a note may add to a prompt beyond its own: the quotes of an empty note merge into one, for example."""


@dataclass(frozen=True)
class Reading:
    """A response as read: the note to carry, the answer to grade (None: there is none), whether it is well formed."""

    note: str
    answer: str | None
    well_formed: bool


class Rounds:
    """The rounds of one run: builds prompts and reads responses with one tokenizer.

    `opening`: what the chat template writes of every response itself. `end_ids`: the tokens that end a response as far
    as the tokenizer and the chat template know; a model's own settings may name more.

    `config`: the settings, in which the think tags are the model's own with `think = "model"`.

    Raises:
        RecipeError: the system prompt file cannot be read, or the chat template has no such variable.
        ModelError: the chat template cannot be used, or the model has no marks of its own where they are asked for.
    """

    def __init__(self, config: RoundsConfig, tokenizer: PreTrainedTokenizerBase):
        self.tokenizer = tokenizer
        text = prompt_text(config)
        if config.think == "model":
            config = _with_own_marks(config, text, tokenizer)
        self.config, self.tail = config, config.carry == "tail"
        self.prompts = Prompts(config, text, lambda example: self._neutralised(example, self._special))
        self.system_prompt, self.quotation = self.prompts.system_prompt, self.prompts.quotation
        if isinstance(config.examples, int | str) and config.examples:
            raise RecipeError("rounds.examples: they have not been read; motif.session.with_examples does that")
        self._systems: dict[int, str] = {}
        self.template: ChatTemplate | None = None
        self.opening, turn_end, marks = "", None, []
        if tokenizer.chat_template:
            system = self.system_prompt or ("examples" if config.examples else "")
            self.template = ChatTemplate(tokenizer, system, config.template_variables, config.date)
            self.opening = self.template.opening((*config.think_tags, *config.note_tags))
            turn_end, marks = self.template.turn_end(), self.template.marks()
        elif config.template_variables:
            raise RecipeError("rounds.template_variables: this model has no chat template, so leave them out")
        control = control_tokens(tokenizer)
        self.special = [*control, *marks]
        ends = {tokenizer.eos_token_id, turn_end} - {None}
        self.end_ids: set[int] = ends | padding(tokenizer)
        self.end_id = tokenizer.eos_token_id if turn_end is None else turn_end
        tags = (*config.think_tags, *config.note_tags)
        self._control_ids = {id for token, id in control.items() if not any(token.strip() in tag for tag in tags)}
        self._unwanted_ids = set(control.values()) - {tokenizer.unk_token_id}
        self._special = alternatives(self.special)
        self._cleaner = Cleaner(config, [*config.think_tags, *self.special])

    # -- prompts ---------------------------------------------------------------------------------------------------

    def messages(self, question: str, notes: list[str], rounds: int) -> list[dict[str, str]]:
        """The chat of the round that follows `notes` (one per earlier round), of `rounds` rounds in all."""
        turn = self.prompts.turn(self.shown(question), notes, rounds)
        messages = [{"role": "user", "content": "".join(turn)}]
        if system := self.system(rounds):
            messages.insert(0, {"role": "system", "content": system})
        return self.template.form.join(messages) if self.template else messages

    def system(self, rounds: int) -> str:
        """The system message for so many rounds: the system prompt, and the examples in this form."""
        if rounds not in self._systems:
            self._systems[rounds] = self.prompts.system(rounds)
        return self._systems[rounds]

    @property
    def examples(self) -> list[Example]:
        """The worked examples that every prompt shows."""
        return self.prompts.examples

    def asked(self, question: Question, number: int) -> str:
        """What round `number` (from 1) is asked: the question, with that round's piece of what it is about."""
        return self.prompts.asked(question, number)

    def shown(self, question: str) -> str:
        """A question as it stands in the prompts: without special tokens and marks of turns."""
        return self._neutralised(_without_surrogates(question), self._special)

    def prompt(self, question: str, notes: list[str], rounds: int) -> list[int]:
        """The token ids of the same, through the chat template where the tokenizer has one."""
        messages = self.messages(question, notes, rounds)
        if self.template:
            return self.encode(self.template.render(messages))
        text = "\n\n".join(message["content"] for message in messages) + "\n\n"
        ids = list(self.tokenizer(text, add_special_tokens=True)["input_ids"])
        while ids and ids[-1] in self._control_ids:  # some tokenizers end every text, but this one goes on
            ids.pop()
        return ids

    def response(self, text: str) -> list[int]:
        """The token ids of a response with this text, as a model would sample them."""
        end = [] if self.end_id is None else [self.end_id]
        return self.encode(self.continued(text)) + end

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
            if self._unwanted_ids.isdisjoint(self.encode(text)):
                break
        return text

    def encode(self, text: str) -> list[int]:
        """The token ids of a text by itself."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    # -- reading ---------------------------------------------------------------------------------------------------

    def read(self, text: str, truncated: bool, final: bool) -> Reading:
        """Read one response by the rules above. `final` says that it is of the last round, where fallbacks apply."""
        text = self.opening + _without_surrogates(text)
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
        if self.tail:
            return Reading(self._cut(self.clean(text), from_end=True), answer, well_formed=True)
        return Reading(note, answer, not truncated and bool(note) and self._well_formed(text))

    def note_begins(self, ids: Sequence[int]) -> int:
        """The place of the first sampled token of the note, its tag included; without a tag, the number of tokens."""
        text = self.spell(ids)
        opening, closing = self.config.note_tags
        end = text.rfind(closing)
        start = text.rfind(opening, 0, end) if end >= 0 else -1
        start = text.rfind(opening) if start < 0 else start
        if start < 0:
            return len(ids)
        return bisect.bisect_right(range(len(ids)), start, key=lambda count: len(self.spell(ids[: count + 1])))

    def begins_in_form(self, text: str) -> bool:
        """Whether a response opens with the reasoning, as one in the form does."""
        return (self.opening + text).lstrip().startswith(self.config.think_tags[0])

    def ends(self, ids: Sequence[int]) -> bool:
        """Whether sampled tokens end with one that ends a response."""
        return bool(ids) and (ids[-1] in self.end_ids or ids[-1] in self._control_ids)

    def spell(self, ids: Sequence[int]) -> str:
        """The text of a response from its tokens, without the end and padding tokens behind it."""
        last = {ids[-1]} if self.ends(ids) else set()
        return spell(self.tokenizer, ids, self.end_ids | last)

    def continued(self, text: str) -> str:
        """A response as a chat server tells it, without the opening of the prompt, which some servers add to it."""
        opening, start = self.opening.strip(), text.lstrip()
        return start[len(opening) :] if opening and start.startswith(opening) else text

    def final_part(self, text: str) -> str:
        """The part of a response that addresses the reader (rules 2 to 4), as it was written."""
        return self._final_part(self.opening + text)[1].removeprefix(self.opening).strip()

    def clean(self, note: str) -> str:
        """The note without anything that could speak in the scaffold's voice (rule 5)."""
        while True:
            plain = self._neutralised(note, self._cleaner.forbidden)
            note = self._cleaner.reveal(plain)
            if note == plain:
                return note.strip()

    def _final_part(self, text: str) -> tuple[bool, str, bool]:
        """Whether a note tag was opened, the final part (rules 2 to 4), and whether a cut should keep the end of it."""
        if self.tail:
            return False, text.rpartition(self.config.think_tags[1])[2] or text, True
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
        limit, quoted = self.config.note_tokens, self.quotation.quote(note)
        if len(quoted.encode()) <= limit:
            return note
        ids = self.encode(note)
        if len(ids) <= limit and (quoted == note or len(self.encode(quoted)) <= limit):
            return note
        for count in range(min(limit, len(ids)), 0, -1):  # fewer, where the cut text is longer than what was kept
            kept = ids[-count:] if from_end else ids[:count]
            text = spell(self.tokenizer, kept, ())
            note = self.clean(text.strip("\ufffd"))  # half a character at the edge
            if self._fits(note):
                return note
        return ""

    def _fits(self, note: str) -> bool:
        """Whether a note is within its limit, with what quotes it in the prompt."""
        return all(len(self.encode(text)) <= self.config.note_tokens for text in {note, self.quotation.quote(note)})


def _with_own_marks(config: RoundsConfig, text: str, tokenizer: PreTrainedTokenizerBase) -> RoundsConfig:
    """The settings with the model's own marks as think tags; `text` is the system prompt.

    Raises:
        RecipeError: the text would show the model a control token, which it takes for a part of the chat.
        ModelError: it has no such marks.
    """
    template = None
    if tokenizer.chat_template:
        template = ChatTemplate(tokenizer, text, config.template_variables, config.date)
    marks = own_marks(template, tokenizer)
    held = [token for token in control_tokens(tokenizer) if any(token in mark for mark in marks)]
    if held and re.search(r"\{think_(open|close)\}", text):
        raise RecipeError(
            f"rounds.system_prompt: control tokens such as {held[0]} mark this model's reasoning and may not stand in "
            "a prompt: leave {think_open} and {think_close} out"
        )
    return config.model_copy(update={"think_tags": marks})


def _without_surrogates(text: str) -> str:
    """The text with question marks for halves of surrogate pairs, which tokenizers refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _remove(pattern: re.Pattern[str], text: str) -> str:
    """Remove all matches until none is left: the removal of one must not assemble another."""
    while True:
        shorter = pattern.sub("", text)
        if shorter == text:
            return text
        text = shorter
