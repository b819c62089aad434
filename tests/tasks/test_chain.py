"""The chain task: right golds, no leak between the sides, and every slip shows."""

from __future__ import annotations

import random

from motif.config import ChainConfig, DataConfig
from motif.tasks import chain, load
from motif.tasks.splits import SPLITS


def test_a_chain_by_hand():
    one = chain.Chain(47, ("*3", "+8", "-5"))
    assert one.text == "47 a*3 b+8 c-5"
    assert one.states() == [47, 41, 49, 44]


def test_the_two_sides_share_no_chain_and_each_is_shuffled():
    train, test = (chain.questions(ChainConfig(), side) for side in SPLITS)
    assert not {q.text for q in train} & {q.text for q in test}
    assert 0.1 < len(test) / len(train + test) < 0.15
    assert len({q.id for q in train}) == len(train)
    lengths = [q.text.count(" ") for q in test[:800]]
    assert {lengths.count(n) > 60 for n in range(2, 10)} == {True}


def test_one_wrong_step_always_shows_in_the_answer():
    rng = random.Random(0)
    for _ in range(500):
        one = chain.draw(rng, 2, 9)
        place = rng.randrange(len(one.steps))
        number = (one.states()[place + 1] + rng.randint(1, 99)) % chain.MODULUS
        for step in one.steps[place + 1 :]:
            number = chain.apply(step, number)
        assert number != one.states()[-1]


def test_load_makes_gradable_questions_of_the_wanted_lengths():
    task = load(DataConfig(task="chain", chain=ChainConfig(shortest=3, longest=4)))
    assert task.grader == "numeric" and not task.skipped
    assert {q.text.count(" ") for q in task.train + task.test} == {3, 4}


def test_the_longest_chain_has_a_label_for_each_step():
    longest = ChainConfig(shortest=30, longest=30)
    assert len(chain.LABELS) == longest.longest
    assert {q.text.count(" ") for q in chain.questions(longest, "test")} == {30}
