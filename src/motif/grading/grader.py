"""`Grader`: grades in this process where that is safe, and in a worker that can be killed where it is not."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from motif.errors import DataError
from motif.grading import registry
from motif.grading.given import GIVEN, GivenFunction
from motif.grading.numeric import number
from motif.grading.own import MADE_UP, Answered
from motif.grading.verdict import Grade
from motif.grading.worker import REASON, Worker
from motif.method.tree import Question

TIME_LIMIT = 5.0  # seconds for one verdict
CACHED = 20_000  # verdicts kept
CACHED_LENGTH = 20_000  # characters; longer pairs are rare, and many of them would fill the memory

PAIR = {"gold", "answer", "prediction"}

Pair = tuple[str, str | None]


class Grader:
    """Grades answers by one rule, each within `time_limit` seconds of computing (or the rule's own, if longer).

    On a busy machine these take longer, at most ten times as long. An answer that takes more, or more memory than a
    worker has, is wrong: if it were ungraded, and so left out of all means, a policy could learn to hide there. What is
    not the answer's fault is `ungraded` with a reason: the worker was killed from outside; a user's grader raised an
    error, or spent `time_limit` seconds by the clock mostly waiting.

    A grader may be used from several threads. Use it as a context manager or call `close`. Its workers, and what a
    user's grader has started in them, never outlive this process.

    Raises:
        DataError: there is no rule of this name; the message names the nearest.
        ValueError: a time limit or a number of workers that is not positive.
    """

    def __init__(self, name: str, time_limit: float = TIME_LIMIT, workers: int = 1) -> None:
        self.rule = registry.find(name)
        if not time_limit > 0 or workers < 1:
            raise ValueError(f"time_limit and workers must be positive, got {time_limit} and {workers}")
        self.name, self.workers = name, workers
        self.time_limit = max(time_limit, self.rule.seconds)
        self.asks_pairs = False  # whether a function of the user's own asks for no more than gold answer and answer
        self._cache: dict[tuple[str, str], Grade] = {}
        self._writing = threading.Lock()
        self._all = [Worker(self.rule, self.time_limit) for _ in range(workers)]
        self._idle: queue.LifoQueue[Worker] = queue.LifoQueue()  # last used, first out: the others may never start
        for worker in self._all:
            self._idle.put(worker)
        weakref.finalize(self, _stop, self._all)  # runs when this object is collected, or at exit

    def grade(self, gold: str, prediction: str | None) -> Grade:
        """Judge one answer. A missing answer (None) is wrong.

        Raises:
            DataError: a worker cannot load the rule; the message says what to install or to correct.
        """
        return self.judge(Answered(prediction, gold))

    def judge(self, answered: Answered) -> Grade:
        """Judge one answer with all that is known of it; only a function of the user's own asks for more than `grade`.

        A function from a file that asks for no more than these judges equal pairs once.

        Raises:
            DataError: a worker cannot load the rule.
        """
        if isinstance(self.rule, GivenFunction):
            return self._judge_here(self.rule, answered)
        return self._ask_function(answered) if self.rule.own else self._compare(answered.gold, answered.answer)

    def _compare(self, gold: str, prediction: str | None) -> Grade:
        if prediction is None:
            return Grade("wrong", "no answer")
        cached = self._cache.get((gold, prediction))
        if cached is not None:
            return cached
        grade, final = self._judge(gold, prediction)
        if final:
            self._remember(gold, prediction, grade)
        return grade

    def _ask_function(self, answered: Answered) -> Grade:
        gold, answer = answered.gold, answered.answer or ""
        if self.asks_pairs and answered.answer is not None and (cached := self._cache.get((gold, answer))):
            return cached
        worker = self._idle.get()
        try:
            grade, final = worker.grade(gold, answer, answered)
            self.asks_pairs = worker.asks is not None and {*worker.asks} <= PAIR
        finally:
            self._idle.put(worker)
        if final and self.asks_pairs and answered.answer is not None:
            self._remember(gold, answer, grade)
        return grade

    def _judge_here(self, rule: GivenFunction, answered: Answered) -> Grade:
        started = time.perf_counter()
        try:
            grade = rule.judge(answered, self.time_limit)
        except Exception as error:
            grade = Grade("ungraded", f"{type(error).__name__}: {error}"[:REASON])
        return replace(grade, seconds=time.perf_counter() - started)

    def try_out(self, question: Question) -> Grade:
        """Call a function of the user's own on one question, with its gold answer as the answer.

        Raises:
            DataError: it fails, asks for what there is not, or returns what is not a reward; says which.
        """
        answer = question.gold or MADE_UP
        grade = self.judge(Answered.given(question, answer))
        if grade.verdict == "ungraded":
            name = self.name.removeprefix(GIVEN)
            reason = grade.reason or "it returned that it cannot grade it"
            raise DataError(f"reward {name!r}, tried on the first question with the answer {answer[:60]!r}: {reason}")
        if isinstance(self.rule, GivenFunction):
            several = len(self.rule.reward.calls) > 1
            parts = list(self.rule.reward.calls if several or not grade.parts else grade.parts)
            if unknown := [part for part in self.rule.reward.weights if part not in parts]:
                raise DataError(f"reward_weights: no part {unknown[0]!r} (there are {', '.join(parts)})")
        return grade

    def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """Judge (gold, prediction) pairs on all workers and keep their order. Equal pairs are judged once."""
        return self._judge_all([Answered(prediction, gold) for gold, prediction in pairs])

    def grade_answers(self, pairs: Sequence[tuple[Question, str | None]]) -> list[Grade]:
        """Judge answers that no trajectory led to, such as those of demonstrations, in order."""
        return self._judge_all([Answered.given(question, answer) for question, answer in pairs])

    def _judge_all(self, asked: Sequence[Answered]) -> list[Grade]:
        keys = [_key(answered, self.rule.own) for answered in asked]
        distinct = dict(zip(keys, asked, strict=True))
        at_once = 1 if self.rule.in_process else self.rule.at_once or (1 if self.rule.here else self.workers)
        if at_once == 1:
            grades = [self.judge(answered) for answered in distinct.values()]
        else:
            with ThreadPoolExecutor(at_once) as pool:
                grades = list(pool.map(self.judge, distinct.values()))
        grade_of = dict(zip(distinct, grades, strict=True))
        return [grade_of[key] for key in keys]

    def check(self, golds: Iterable[str]) -> list[Grade]:
        """Whether each gold answer can tell right from wrong: `right` if so, else the verdict and reason against it.

        A response with the gold answer in its box must be right, without the shortcut that equal texts are equal
        answers. Neither an empty answer nor "0" or "0.0" may pass for it, unless it is 0. Worked solutions, headings
        and missing values (nan) are refused. Rules for programs and circuits have checks of their own.
        """
        golds = list(golds)
        distinct = list(dict.fromkeys(golds))
        if self.rule.in_process:  # a thread's turn costs more than such a check
            grade_of = {gold: self._check(gold) for gold in distinct}
        else:
            with ThreadPoolExecutor(self.workers) as pool:
                grade_of = dict(zip(distinct, pool.map(self._check, distinct), strict=True))
        return [grade_of[gold] for gold in golds]

    def close(self) -> None:
        """Stop the workers. A later `grade` starts them again."""
        _stop(self._all)

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge(self, gold: str, prediction: str) -> tuple[Grade, bool]:
        """The verdict, and whether it is final: whether another try would give the same."""
        started = time.perf_counter()
        try:
            inline = (self.rule.grade if self.rule.in_process else self.rule.quick)(gold, prediction)
        except Exception as error:
            inline = Grade("ungraded", f"{type(error).__name__}: {error}")
        if inline is not None:
            return Grade(inline.verdict, inline.reason, time.perf_counter() - started), True
        return self._in_worker(gold, prediction)

    def _check(self, gold: str) -> Grade:
        itself = self.judge(Answered(gold, gold)) if self.rule.own else self.rule.quick_check(gold)
        if itself is None:
            itself = self.rule.check_gold(gold) if self.rule.in_process else self._in_worker(gold, None)[0]
        if itself.verdict != "right":
            return Grade("right") if itself.verdict == "partial" else itself  # a gold text may earn less than all
        for answer in self.rule.wrong_answers:
            if not _same(gold, answer) and self.grade(gold, answer).verdict == "right":
                return Grade("wrong", f"the answer {answer!r} passes for it")
        return itself

    def _in_worker(self, gold: str, prediction: str | None) -> tuple[Grade, bool]:
        worker = self._idle.get()
        try:
            return worker.grade(gold, prediction)
        finally:
            self._idle.put(worker)

    def _remember(self, gold: str, prediction: str, grade: Grade) -> None:
        if len(gold) + len(prediction) > CACHED_LENGTH:
            return
        with self._writing:
            while len(self._cache) >= CACHED:
                del self._cache[next(iter(self._cache))]  # the oldest
            self._cache[gold, prediction] = grade


def _key(answered: Answered, own: bool) -> Hashable:
    """What a verdict depends on: a function of the user's own may look at everything."""
    pair = (answered.gold, answered.answer)
    columns = id(answered.columns) if answered.columns else 0
    return (*pair, answered.question, answered.responses, answered.notes, columns) if own else pair


def _same(gold: str, answer: str) -> bool:
    return gold.strip() == answer or (answer in ("0", "0.0") and number(gold) == 0)


def _stop(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()
