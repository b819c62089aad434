r"""Worked solutions cut into rounds, by rules that hold for any data.

* A solution is cut at the ends of lines (or also of sentences, or at blank lines only), never inside a formula.
* Each round gets about equally many pieces, from the first round on. Where a part does not fit its window, rounds are
  filled in order instead.
* A function of one's own may cut instead, and another make the notes (`Cutting`).
* What a piece has *found* is its calculator annotations (`<<48/2=24>>`, GSM8K), or else its equations, or else the
  piece itself. The note of a round is what all pieces so far have found, the oldest left out where it grows too long.
* The final round ends with the gold answer between the answer marks.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from motif.config import RoundsConfig

ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[^\sa-z])")
FORMULA = re.compile(r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
EQUATION = re.compile(r"[-(]?[$\d][\d\s.,()+*/×÷%$^-]*=\s*[-$]?\d[\d.,]*%?")
PAIRS = (("\\[", "\\]"), ("\\(", "\\)"), ("\\begin{", "\\end{"))

Part = tuple[str, str]
"""The reasoning and the note of a round."""


def pieces(solution: str, cut: str) -> list[str]:
    """The pieces of a solution, in order: `lines`, `sentences` or `steps`."""
    raw = re.split(r"\n\s*\n", solution) if cut == "steps" else solution.splitlines()
    if cut == "sentences":
        raw = [sentence for line in raw for sentence in SENTENCE.split(line)]
    whole: list[str] = []
    waiting = ""
    for piece in raw:
        waiting = f"{waiting}\n{piece}" if waiting else piece
        if _closed(waiting):
            whole.append(waiting.strip())
            waiting = ""
    return [piece for piece in [*whole, waiting.strip()] if piece]


def found(piece: str, marks: tuple[str, str]) -> str:
    """What a piece of a solution has found, for the note."""
    if annotations := ANNOTATION.findall(piece):
        return "; ".join(annotations)
    formulas = [next(filter(None, match)).strip() for match in FORMULA.findall(piece)]
    equations = [formula for formula in formulas if "=" in formula] or [
        match.strip().rstrip(".,") for match in EQUATION.findall(FORMULA.sub(" ", piece))
    ]
    return without_marks("; ".join(equations) or ANNOTATION.sub("", piece), marks)


def without_marks(text: str, marks: tuple[str, str]) -> str:
    """A text whose answers stand without their marks, so that a note does not answer before the final round."""
    opening, closing = marks
    while (start := text.find(opening)) >= 0:
        inside, depth, end = start + len(opening), 1, -1
        for place in range(inside, len(text)):
            if text.startswith(closing, place):
                depth -= 1
            elif closing == "}" and text[place] == "{":
                depth += 1
            if depth == 0:
                end = place
                break
        answer, rest = (text[inside:end], text[end + len(closing) :]) if end >= 0 else (text[inside:], "")
        text = text[:start] + answer + rest
    return text


def written(reasoning: str, note: str, config: RoundsConfig) -> str:
    """A response with this reasoning and this note, in the form that is asked for."""
    (think, thought), (open_note, noted) = config.think_tags, config.note_tags
    return f"{think}\n{reasoning}\n{thought}\n{open_note}\n{note}\n{noted}"


def spread(parts: Sequence[Part], rounds: int, marks: tuple[str, str]) -> list[Part]:
    """The rounds of a demonstration as so many rounds: neighbours are joined; with nothing left to do, a round repeats.

    marks: around the answer, which stands in the last note only.
    """
    ends = [-(-len(parts) * number // rounds) for number in range(rounds + 1)]
    result: list[Part] = []
    for number, (start, end) in enumerate(itertools.pairwise(ends), start=1):
        note = parts[end - 1][1] if number == rounds else without_marks(parts[end - 1][1], marks)
        reasoning = "\n".join(reasoning for reasoning, _ in parts[start:end])
        result.append((reasoning or result[-1][1], note))
    return result


@dataclass(frozen=True)
class Cutting:
    """How worked solutions are cut, and what notes say.

    pieces: cuts a solution. note: makes the note after these pieces; None: what they have found. latest: only what the
    latest has found.
    """

    pieces: Callable[[str], list[str]] = lambda solution: pieces(solution, "lines")
    note: Callable[[list[str]], str] | None = None
    latest: bool = False


@dataclass(frozen=True)
class Solution:
    """The pieces of a worked solution and its answer, to be cut into `rounds` rounds.

    fits: whether a round (from 1) has room for a part.
    """

    steps: Sequence[str]
    gold: str
    rounds: int
    config: RoundsConfig
    fits: Callable[[int, Part], bool]
    cutting: Cutting = Cutting()

    def ways(self) -> Iterator[list[Part]]:
        """The ways to cut it: equally, and filling each round in order (if so many rounds hold it)."""
        count = len(self.steps)
        if count:
            yield self._parts([-(-count * number // self.rounds) for number in range(self.rounds + 1)])
            if ends := self._filled():
                yield self._parts(ends)

    def _parts(self, ends: Sequence[int]) -> list[Part]:
        return [self._part(number, *pair) for number, pair in enumerate(itertools.pairwise(ends), start=1)]

    def _filled(self) -> list[int]:
        """The ends of rounds that are filled one after the other; empty if so many rounds do not hold the solution."""
        ends = [0]
        for number in range(1, self.rounds + 1):
            end = ends[-1]
            while end < len(self.steps) and self.fits(number, self._part(number, ends[-1], end + 1)):
                end += 1
            if not end:
                return []
            ends.append(end)
        return ends if ends[-1] == len(self.steps) else []

    def _part(self, number: int, start: int, end: int) -> Part:
        """What round `number` writes, if it has the pieces from `start` to `end`."""
        marks = self.config.answer_marks
        reasoning = "\n".join(without_marks(ANNOTATION.sub("", step), marks) for step in self.steps[start:end])
        if self.cutting.note:
            findings = [without_marks(self.cutting.note(list(self.steps[:end])), marks)]
        else:
            findings = [found(step, marks) for step in self.steps[:end]]
        reasoning = reasoning or findings[-1]  # with nothing left to do, a round reads what has been found
        if number == self.rounds:
            return reasoning, f"{marks[0]}{self.gold}{marks[1]}"
        oldest_first = range(len(findings) - 1 if self.cutting.latest else 0, len(findings))
        parts = ((reasoning, "; ".join(findings[oldest:])) for oldest in oldest_first)
        return next((part for part in parts if self.fits(number, part)), (reasoning, findings[-1]))


def _closed(text: str) -> bool:
    """Whether no formula is open at the end of a text."""
    return text.replace("\\$", "").count("$") % 2 == 0 and all(text.count(a) == text.count(b) for a, b in PAIRS)
