"""Trees whose number of rounds is the question's own, is drawn for it, or ends where an answer is given."""

from __future__ import annotations

from typing import Any

import pytest

from motif.config import RolloutConfig, RoundsConfig, load_recipe
from motif.errors import RecipeError
from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree
from motif.sampling.base import Completion, Request
from motif.sampling.grow import RoundLimits, TreeShape, continue_from, grow
from motif.sampling.stepping import SteppingSampler
from motif.training.schedule import draw_questions, draw_rounds
from support.tiny import char_tokenizer

DEMO = load_recipe("demo").rounds
TOKENIZER = char_tokenizer()


class Says(SteppingSampler):
    """Says what a function of the response's path says, and remembers what it was asked."""

    def __init__(self, says: Any):
        super().__init__()
        self.says, self.requests = says, []
        self.waiting: list[Request] = []

    def enqueue(self, request: Request, first: bool) -> None:
        self.requests.append(request)
        self.waiting.append(request)

    async def compute(self) -> None:
        while self.waiting:
            request = self.waiting.pop()
            for index, path in enumerate(request.paths):
                text = self.says(path)
                ids = [*TOKENIZER(text, add_special_tokens=False)["input_ids"], TOKENIZER.eos_token_id]
                await self.hand_over([Completion(request, index, ids, [-1.0] * len(ids), truncated=False)])


def say(note: str) -> str:
    return f"<think>a</think><note>{note}</note>"


def rounds(**settings: Any) -> Rounds:
    return Rounds(RoundsConfig(**(DEMO.model_dump() | settings)), TOKENIZER)


def grown(says: Any, questions: list[Question], branching: list[int], **settings: Any) -> tuple[list[Tree], Says]:
    sampler = Says(says)
    config = RolloutConfig(branching=branching, tokens_first=24, tokens_continue=20)
    return grow(questions, sampler, rounds(**settings), config), sampler


def paths(tree: Tree) -> list[tuple[int, ...]]:
    return [node.path for node in tree.walk()]


def prompt_of(node: Node) -> str:
    return str(TOKENIZER.decode(node.prompt_ids))


# -- a question's own number of rounds ---------------------------------------------------------------------------------


def test_each_question_has_its_own_number_of_rounds():
    asked = [Question("one", "1", "1", rounds=1), Question("three", "3", "3"), Question("five", "5", "5", rounds=5)]
    (one, three, five), sampler = grown(lambda path: say("n"), asked, [2, 2, 1])
    assert paths(one) == [(0,), (1,)]
    assert max(map(len, paths(three))) == 3
    assert len(list(five.leaves())) == len(list(three.leaves())) == 4  # beyond round 3 nothing branches
    assert {leaf.round for leaf in five.leaves()} == {5}
    assert "Round 1/1, final." in prompt_of(one.roots[0])
    assert "Round 5/5, final." in prompt_of(next(five.leaves()))
    assert {request.max_tokens for request in sampler.requests if len(request.paths[0]) > 1} == {20}


def test_a_single_round_goes_on_with_the_limits_of_later_rounds():
    _, sampler = grown(lambda path: say("n"), [Question("q", "q", "1", rounds=2)], [3])
    assert [request.max_tokens for request in sampler.requests] == [24, 20, 20, 20]


def test_a_shape_in_other_rounds():
    shape = TreeShape([4, 2, 1], [RoundLimits(9, 1.0), RoundLimits(5, 1.0), RoundLimits(5, 1.0)])
    assert shape.in_rounds(3) is shape
    assert (shape.in_rounds(2).branching, len(shape.in_rounds(2).limits)) == ([4, 2], 2)
    assert (shape.in_rounds(5).branching, len(shape.in_rounds(5).limits)) == ([4, 2, 1, 1, 1], 5)


# -- drawn for it ------------------------------------------------------------------------------------------------------

QUESTIONS = [Question(str(number), str(number), "1") for number in range(40)]


def drawn(step: int, seed: int = 0, counts: tuple[int, ...] = (2, 3, 4, 5)) -> list[int | None]:
    recipe = load_recipe({"train": {"seed": seed}, "rollout": {"rounds_vary": list(counts)}})
    return [draw_rounds(question, step, recipe).rounds for question in draw_questions(QUESTIONS, step, 20, seed)]


def test_numbers_of_rounds_depend_on_seed_question_and_step_only():
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(1, seed=1)
    assert drawn(1) != drawn(3)  # the same questions in another order, and other numbers
    assert drawn(1, counts=()) == [None] * 20
    often = [number for step in range(1, 101) for number in drawn(step)]
    assert {number: often.count(number) // 100 for number in set(often)} == dict.fromkeys(
        (2, 3, 4, 5), pytest.approx(5, abs=1)
    )


def test_a_question_with_a_number_of_its_own_keeps_it():
    recipe = load_recipe({"rollout": {"rounds_vary": [2, 3]}})
    assert draw_rounds(Question("q", "q", "1", rounds=7), 1, recipe).rounds == 7


@pytest.mark.parametrize(("value", "counts"), [("2-5", [2, 3, 4, 5]), ([3, 3, 6], [3, 3, 6]), ("4-4", [4])])
def test_ranges_and_lists(value, counts):
    assert RolloutConfig(rounds_vary=value).counts == counts


@pytest.mark.parametrize("value", ["5-2", "0-3", "two", "2", "2-200", [0], [100]])
def test_numbers_that_cannot_be(value):
    with pytest.raises(RecipeError, match=r"rounds_vary|most_rounds"):
        load_recipe({"rollout": {"rounds_vary": value}})


def test_work_is_counted_over_the_numbers():
    shape = RolloutConfig(branching=[4, 2, 1], rounds_vary=[2, 4])
    assert (shape.generations_in(2), shape.generations_in(4), shape.generations) == (12, 28, 20)
    assert (shape.rounds, shape.longest) == (3, 4)


# -- an answer that ends it --------------------------------------------------------------------------------------------


def answers(path: tuple[int, ...]) -> str:
    """Response 0 answers at once; below response 1 the first trajectory answers in round 2."""
    return say("\\boxed{7}" if path in ((0,), (1, 0)) or len(path) == 3 else "half")


def test_an_early_answer_is_the_end_where_it_may_be():
    [tree], _ = grown(answers, [Question("q", "q", "7")], [2, 2, 1], may_finish=True)
    assert paths(tree) == [(0,), (1,), (1, 0), (1, 1), (1, 1, 0)]
    assert [leaf.unused for leaf in tree.leaves()] == [(2, 1), (1,), ()]
    assert [leaf.answer for leaf in tree.leaves()] == ["7"] * 3


def test_an_early_answer_is_a_note_like_any_other_where_it_may_not():
    [tree], _ = grown(answers, [Question("q", "q", "7")], [2, 2, 1])
    assert len(paths(tree)) == 10
    assert {leaf.unused for leaf in tree.leaves()} == {()}


def test_fallbacks_end_nothing():
    """What is graded in a final response without a box is not an answer before."""
    [tree], _ = grown(
        lambda path: say("12"), [Question("q", "q", "12")], [1, 1], may_finish=True, fallback="last_number"
    )
    assert [node.answer for node in tree.walk()] == [None, "12"]


def test_what_has_ended_is_not_continued():
    [tree], _ = grown(answers, [Question("q", "q", "7")], [2, 2, 1], may_finish=True)
    before = paths(tree)
    config = RolloutConfig(branching=[2, 2, 1], tokens_first=24, tokens_continue=20)
    sampler = Says(answers)
    continue_from([tree], sampler, rounds(may_finish=True), config)
    assert paths(tree) == before
    assert not sampler.requests
