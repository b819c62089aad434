"""Rewards of the user's own, given in Python or from a file: what they ask for, what they return, and how they fail."""

from __future__ import annotations

import asyncio
import functools
import operator
import signal
import threading
import time
from fractions import Fraction

import pytest
import torch

from motif.errors import DataError
from motif.grading import Grade, Grader, given
from motif.grading.beside import grading_beside
from motif.grading.given import digest_of, give
from motif.grading.own import Answered
from motif.method.tree import Node, Question, Tree

QUESTION = Question(
    "q", "What is 2 + 3?", "5", columns={"level": 3, "tests": ["a", "b"], "answer": "2 + 3 = 5\n#### 5"}
)


def node(path, text, note="", answer=None, children=()):
    return Node(path, [], [], [], text, False, note=note, answer=answer, children=list(children))


@pytest.fixture
def tree():
    last = node((0, 0), "so \\boxed{5}", answer="5")
    return Tree(QUESTION, 0, [node((0,), "2 + 3 is 5, I think", "it is 5", children=[last])])


def graded(reward, tree, weights=None):
    with Grader(give(reward, weights)) as grader:
        with grading_beside(grader) as on_leaf:
            for leaf in tree.leaves():
                on_leaf(tree, leaf)
        return next(tree.leaves())


def test_a_reward_gets_all_that_it_asks_for(tree):
    asked = {}

    def reward(answer, gold, question, response, responses, notes, level, row, prediction, missing="none"):
        asked.update(locals())
        return 0.25

    leaf = graded(reward, tree)
    assert (leaf.verdict, leaf.score, leaf.outcome) == ("partial", 0.25, 0.25)
    assert asked["answer"] == asked["prediction"] == asked["gold"] == "5"
    assert (asked["question"], asked["level"], asked["missing"]) == ("What is 2 + 3?", 3, "none")
    assert asked["responses"] == ["2 + 3 is 5, I think", "so \\boxed{5}"]
    assert asked["response"] == "so \\boxed{5}" and asked["notes"] == ["it is 5"]
    assert asked["row"] == QUESTION.columns


def test_trl_reward_functions_work_as_they_are(tree):
    seen = {}

    def correct(prompts, completions, answer, **kwargs):
        seen.update(prompts=prompts, answer=answer, more=kwargs)
        return [float(target.rpartition("#### ")[2] in text) for text, target in zip(completions, answer, strict=True)]

    assert graded(correct, tree).verdict == "right"
    assert seen == {
        "prompts": ["What is 2 + 3?"],
        "answer": [QUESTION.columns["answer"]],
        "more": {"level": [3], "tests": [["a", "b"]]},
    }
    messages = [{"role": "user", "content": "What is 2 + 3?"}]
    tree.question = Question("q", "What is 2 + 3?", "5", columns={"prompt": messages})
    assert graded(lambda completions, **_: [completions[0][0]["content"].endswith("{5}")], tree).verdict == "right"


@pytest.mark.parametrize(
    ("returned", "outcome"),
    [
        *(
            (True, 1.0),
            (False, 0.0),
            (1, 1.0),
            (0, 0.0),
            (0.5, 0.5),
            (Fraction(1, 4), 0.25),
            (torch.tensor(0.75), 0.75),
        ),
        *(("right", 1.0), ("wrong", 0.0), ("ungraded", None), (Grade.of(0.1, "late"), 0.1), ({"a": 1, "b": 0.5}, 0.75)),
    ],
)
def test_what_a_reward_may_return(tree, returned, outcome):
    assert graded(lambda answer: returned, tree).outcome == outcome


@pytest.mark.parametrize(
    ("reward", "words"),
    [
        (lambda answer: None, "returned None, not a number from 0 to 1"),
        (lambda answer: float("nan"), "returned nan, and a reward is a number from 0 to 1"),
        (lambda answer: 1.5, "returned 1.5, and a reward is a number from 0 to 1: divide"),
        (lambda answer: "yes", "returned 'yes' (str), not a number"),
        (lambda answer: [1.0, 0.5], "returned [1.0, 0.5] (list), not a number"),
        (lambda answer: {"form": 2}, "part 'form' is 2, and"),
        (lambda answer: {}, "no part at all"),
        (lambda answer: asyncio.sleep(0), "write the reward itself as async def"),
        (lambda answer: 1 / 0, "ZeroDivisionError: division by zero"),
        (
            lambda answer, target: 1.0,
            "asks for 'target', which is neither a column of the data (level, tests, answer) nor",
        ),
        (lambda completions: 1.0, "must return a list of one reward"),
    ],
)
def test_a_bad_reward_is_told_before_training_and_only_costs_its_answers_later(tree, reward, words):
    with Grader(give(reward)) as grader, pytest.raises(DataError) as error:
        grader.try_out(QUESTION)
    assert words in str(error.value) and "tried on the first question with the answer '5'" in str(error.value)
    leaf = graded(reward, tree)
    assert leaf.verdict == "ungraded" and words in leaf.reason


@pytest.mark.parametrize("reward", ["correct", 3, None])
def test_what_cannot_be_called_is_no_reward(reward):
    with pytest.raises(DataError, match="a reward is a function, not"):
        give(reward)


def test_parts_are_weighed_and_kept_apart(tree):
    def right(answer, gold):
        return answer == gold

    def short(response):
        return 0.5

    leaf = graded([right, short], tree)
    assert (leaf.outcome, leaf.parts) == (0.75, {"right": 1.0, "short": 0.5})
    assert graded([right, short], tree, [3, 1]).outcome == 0.875
    leaf = graded({"exact": right, "length": short}, tree, {"length": 0})
    assert (leaf.verdict, leaf.parts) == ("right", {"exact": 1.0, "length": 0.5})
    leaf = graded(lambda answer: {"a": 0.5, "b": 0.25}, tree, {"a": 1, "b": 3})
    assert leaf.outcome == pytest.approx(0.3125)
    with pytest.raises(DataError, match="no reward is called 'lenght'"):
        give({"exact": right, "length": short}, {"lenght": 0})
    with pytest.raises(DataError, match="1 weights for 2 functions"):
        give([right, short], [1])


def test_an_answer_that_is_missing_is_wrong_unless_the_reward_wants_to_see_it(tree):
    leaf = next(tree.leaves())
    leaf.answer = None
    assert graded(lambda answer: len(answer) > 0, tree).verdict == "wrong"
    assert graded(lambda answer=None: 0.5, tree).outcome == 0.5
    assert graded(lambda response: 0.25, tree).outcome == 0.25


class Judge:
    """A grader with state."""

    def __init__(self):
        self.calls = 0

    def __call__(self, answer, gold):
        self.calls += 1
        return answer == gold


def test_objects_classes_and_others_that_can_be_called(tree):
    judge = Judge()
    assert graded(judge, tree).verdict == graded(Judge, tree).verdict == graded(operator.eq, tree).verdict == "right"
    assert judge.calls == 1
    assert graded(functools.partial(lambda answer, most: len(answer) / most, most=4), tree).outcome == 0.25


def test_a_function_is_called_in_the_thread_of_its_caller_and_one_call_at_a_time(tree):
    threads = set()
    graded(lambda answer: threads.add(threading.current_thread()) or 1.0, tree)
    assert threads == {threading.current_thread()}


def test_coroutines_run_together_on_one_loop_within_their_time(tree):
    running, most, loops = 0, 0, set()

    async def judge(answer):
        nonlocal running, most
        loops.add(asyncio.get_running_loop())
        running += 1
        most = max(most, running)
        while most < 8:
            await asyncio.sleep(0.001)
        running -= 1
        return 0.5

    tree.roots[0].children += [node((0, index), "\\boxed{5}", answer="5") for index in range(1, 8)]
    assert graded(judge, tree).outcome == 0.5
    assert most == 8 and len(loops) == 1

    async def slow(answer):
        await asyncio.sleep(60)

    with Grader(give(slow)) as grader, pytest.warns(RuntimeWarning, match="'slow' did not return"):
        grader.time_limit = 0.05
        assert grader.judge(Answered("5", "5")).reason == "timed out after 0.05 s"


@pytest.mark.parametrize("hang", [lambda answer: time.sleep(60), lambda answer: spin()])
def test_a_reward_that_hangs_is_interrupted_and_named(tree, monkeypatch, hang):
    monkeypatch.setattr(given, "SECONDS", 0.05)
    before = signal.getsignal(signal.SIGALRM), signal.setitimer(signal.ITIMER_REAL, 500)
    try:
        with Grader(give(hang), 0.05) as grader, pytest.warns(RuntimeWarning, match="reward 'lambda' did not return"):
            assert grader.judge(Answered("5", "5")).reason == "timed out after 0.05 s"
        left = signal.getitimer(signal.ITIMER_REAL)[0]
        assert signal.getsignal(signal.SIGALRM) is before[0] and 400 < left < 500  # somebody else's alarm is kept
    finally:
        signal.setitimer(signal.ITIMER_REAL, *before[1])
    told = pytest.raises(DataError, match=r"tried on the first question .* timed out")
    with Grader(give(hang), 0.05) as grader, pytest.warns(RuntimeWarning), told:
        grader.try_out(QUESTION)


def spin():
    while True:
        pass


def test_a_coroutine_that_blocks_its_loop_is_named(monkeypatch):
    monkeypatch.setattr(given, "SECONDS", 0.05)
    monkeypatch.setattr(given, "GRACE", 0.05)

    async def blocking(answer):
        time.sleep(0.5)

    with Grader(give(blocking), 0.05) as grader, pytest.warns(RuntimeWarning, match="'blocking' did not return"):
        assert grader.judge(Answered("5", "5")).verdict == "ungraded"


def test_equal_answers_to_one_question_are_asked_about_once():
    asked = []

    def product(question, answer):
        asked.append((question, answer))
        return 1.0

    other = Question("r", "What is 3 + 2?", "5")
    with Grader(give(product)) as grader:
        grades = grader.grade_answers([(QUESTION, "5"), (other, "5"), (QUESTION, "5"), (QUESTION, "6")])
    assert len(grades) == 4 and [answer for _, answer in asked] == ["5", "5", "6"]


def test_the_same_code_has_the_same_digest():
    def made(limit, text="return len(answer) < limit"):
        space = {"limit": limit}
        exec(f"def make(limit):\n  def reward(answer):\n    {text}\n  return reward", space)
        return digest_of(give(space["make"](limit)))

    assert made(3) == made(3) != made(4) != made(3, "return len(answer) > limit")
    assert digest_of(give(lambda answer: 1.0)) == digest_of(give(lambda answer: 1.0))
    assert digest_of(give(lambda answer: 1.0)) != digest_of(give(lambda answer: 0.5))


@pytest.mark.parametrize(
    ("source", "outcome"),
    [
        ("def judge(answer, level): return level / 4 if answer == '5' else 0", 0.75),
        ("def judge(gold, given): return {'same': gold == given, 'short': 0.5}", 0.75),
        ("async def judge(notes, responses): return 0.5 if notes == ['it is 5'] and len(responses) == 2 else 0", 0.5),
        ("class judge:\n    def __call__(self, **all): return 0.5 if all['tests'] == ['a', 'b'] else 0", 0.5),
    ],
)
def test_functions_from_files_get_and_return_the_same(tree, tmp_path, source, outcome):
    (tmp_path / "mine.py").write_text(source)
    with Grader(f"{tmp_path}/mine.py:judge") as grader, grading_beside(grader) as on_leaf:
        on_leaf(tree, next(tree.leaves()))
    assert next(tree.leaves()).outcome == outcome, next(tree.leaves()).reason


def test_a_leaf_is_graded_as_it_was_when_it_ended_while_its_tree_goes_on(tree):
    waits = threading.Event()

    class Slow:
        at_once = 1  # graded in another thread

        def __call__(self, responses: list[str]) -> float:
            return float(waits.wait(120) and len(responses) == 2)

    leaf = next(tree.leaves())
    with Grader(give(Slow())) as grader, grading_beside(grader) as on_leaf:
        on_leaf(tree, leaf)
        on_leaf(tree, leaf)  # waits for the first
        tree.roots = []  # as a list looks while it is being sorted
        waits.set()
    assert leaf.outcome == 1.0


def test_a_reward_of_another_session_has_to_be_given_again():
    with pytest.raises(DataError, match="the reward 'gone' was given in Python: give it again"):
        Grader("python:gone")


def test_a_weight_of_a_part_that_there_is_not_is_told():
    def reward(answer):
        return {"right": 1.0, "short": 0.5}

    told = pytest.raises(DataError, match=r"no part 'rihgt' \(there are right, short\)")
    with Grader(give(reward, {"rihgt": 1, "short": 1})) as grader, told:
        grader.try_out(QUESTION)
    with Grader(give(reward, {"right": 1, "short": 0})) as grader:
        assert grader.try_out(QUESTION).outcome == 1.0
