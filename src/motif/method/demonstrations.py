"""Demonstrations: trees of one trajectory whose responses are given, each with advantage 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from motif.config import Example, RolloutConfig
from motif.method.rounds import Rounds
from motif.method.solutions import Cutting, Part, Solution, written
from motif.method.tree import Node, Question, Tree
from motif.text import counted


class UnfitDemonstration(Exception):
    """What is given cannot be trained on; the message says why."""


def example_of(tree: Tree, rounds: Rounds) -> Example:
    """A demonstration as a worked example for prompts."""
    think, thought = rounds.config.think_tags
    parts = []
    for node in tree.walk():
        reasoning = (rounds.opening + node.text).partition(think)[2].partition(thought)[0]
        parts.append((reasoning.strip(), rounds.final_part(node.text)))
    return Example(question=tree.question.text, answer=tree.question.gold, rounds=parts)


@dataclass(frozen=True)
class Demonstrator:
    """Builds demonstrations for one model and recipe. window: tokens of a prompt and its response together."""

    rounds: Rounds
    config: RolloutConfig
    window: int

    def limit(self, number: int) -> int:
        """The most tokens of a response of round `number`."""
        return self.config.tokens_first if number == 1 else self.config.tokens_continue

    def from_solution(self, question: Question, solution: str, cutting: Cutting) -> Tree:
        """The demonstration of a worked solution, cut into as many rounds as the recipe or the question has.

        A text in pieces needs a part of the solution for each piece.

        Raises:
            UnfitDemonstration: no way of cutting it fits.
        """
        config, count = self.rounds.config, question.rounds or self.config.rounds
        parts = Solution(cutting.pieces(solution), question.gold, count, config, self._fits, cutting)
        if question.pieces and len(parts.steps) != count:
            raise UnfitDemonstration(f"the solution has {len(parts.steps)} parts and the text {count} pieces")
        problem = UnfitDemonstration("the solution is empty" if not parts.steps else "it does not fit")
        for way in parts.ways():
            try:
                return self.from_responses(question, [written(*part, config) for part in way])
            except UnfitDemonstration as error:
                problem = error
        raise problem

    def from_responses(self, question: Question, responses: Sequence[str]) -> Tree:
        """The demonstration of these responses, one a round.

        Raises:
            UnfitDemonstration: a response is not of the asked form, does not fit its window, or loses something on the
                way to the next round; the last gives no answer.
        """
        notes: list[str] = []
        nodes: list[Node] = []
        count = len(responses)
        if self.rounds.config.may_finish:  # and does, if there are fewer
            count = max(count, question.rounds or self.config.rounds)
        for number, text in enumerate(responses[: len(question.pieces) or None], start=1):
            node = self._node(question, text, notes, number, count)
            if self.rounds.config.may_finish and node.answer is not None and number < len(responses):
                raise UnfitDemonstration(f"round {number} gives the answer, which ends it, and others follow")
            if nodes:
                nodes[-1].children = [node]
            nodes.append(node)
            notes.append(node.note)
        if not nodes:
            raise UnfitDemonstration("there are no rounds")
        if question.pieces and len(nodes) != len(question.pieces):
            raise UnfitDemonstration(
                f"there are {counted(len(nodes), 'round')} and {counted(len(question.pieces), 'piece')} of the text"
            )
        if nodes[-1].answer is None:
            opening, closing = self.rounds.config.answer_marks
            raise UnfitDemonstration(f"the final round has no answer between {opening} and {closing}")
        nodes[-1].unused = tuple(self.config.branching_in(count)[len(nodes) :])
        return Tree(question, 0, nodes[:1])

    def _node(self, question: Question, text: str, notes: list[str], number: int, count: int) -> Node:
        rounds, limit = self.rounds, self.limit(number)
        prompt, ids, text = (
            rounds.prompt(rounds.asked(question, number), notes, count),
            rounds.response(text),
            rounds.continued(text),
        )
        setting = "rollout.tokens_first" if number == 1 else "rollout.tokens_continue"
        if len(ids) > limit:
            raise UnfitDemonstration(f"round {number} has {len(ids)} tokens, more than {setting} = {limit}")
        if len(prompt) + len(ids) > self.window:
            size = len(prompt) + len(ids)
            raise UnfitDemonstration(f"round {number} has {size} tokens with its prompt; the window is {self.window}")
        if rounds.spell(ids).strip() != text.strip():
            raise UnfitDemonstration(f"round {number} has characters that the model's tokenizer cannot write")
        reading = rounds.read(text, truncated=False, final=number == count)
        if not reading.well_formed:
            raise UnfitDemonstration(
                f"round {number} is not one {rounds.config.think_tags[0]} block and then one "
                f"{rounds.config.note_tags[0]} block that says something"
            )
        if number < count and not rounds.tail and reading.note != rounds.clean(rounds.final_part(text)):
            raise UnfitDemonstration(
                f"the note of round {number} is longer than rounds.note_tokens = {rounds.config.note_tokens}"
            )
        return Node(
            path=(0,) * number,
            prompt_ids=prompt,
            token_ids=ids,
            logprobs=[],
            text=text,
            truncated=False,
            note=reading.note,
            answer=reading.answer,
            well_formed=True,
            advantage=1.0,
        )

    def _fits(self, number: int, part: Part) -> bool:
        """Whether a round has room for a part, and the prompt for its note."""
        note = len(self.rounds.response(self.rounds.quotation.quote(part[1])))
        ids = self.rounds.response(written(*part, self.rounds.config))
        return len(ids) <= self.limit(number) and note <= self.rounds.config.note_tokens
