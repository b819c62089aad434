"""The source `teacher`: another model on a server answers in the same rounds, and what ends right is imitated.

What it has answered is recorded question by question, so that an interrupted run asks for nothing twice.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from motif.config import RolloutConfig, WarmstartConfig
from motif.display import Display
from motif.errors import DataError, RecipeError, SamplerError
from motif.method.demonstrations import Demonstrator, UnfitDemonstration
from motif.method.rounds import Rounds
from motif.method.tree import Question, Tree
from motif.sampling.base import Completion, OnText, Request
from motif.sampling.concurrency import run, sample_each, together
from motif.sampling.grow import Grower, TreeShape
from motif.sampling.openai import OpenAISampler, UpstreamAddress, UpstreamError
from motif.session import Session
from motif.tasks import BadRow
from motif.training.record import AnswerLog
from motif.training.schedule import draw_questions
from motif.training.sources import Demonstrations, demonstrator

SECONDS = 600.0
"""Without a word from the teacher until a response counts as lost."""
RETRIES, PAUSE = 5, 1.0
"""How often a failed request is sent again, and the first pause before it in seconds, which doubles each time."""
PATIENCE = 24
"""Questions after which a teacher that has never been right is asked no more."""


@dataclass
class Answers:
    """What the teacher answers to a question: trajectories of [text, cut off] a round, and what they took."""

    trajectories: list[list[tuple[str, bool]]]
    prompt_tokens: int = 0
    tokens: int = 0


@dataclass
class Lesson:
    """The demonstrations that a teacher's answers make, and the tokens that they took. complete: nobody stopped it."""

    found: Demonstrations = field(default_factory=Demonstrations)
    prompt_tokens: int = 0
    tokens: int = 0
    complete: bool = True


def check_teacher(config: WarmstartConfig, rounds: Rounds) -> str:
    """Ask the teacher what it serves; its model, in words.

    Raises:
        RecipeError: it does not answer, or the model is not there.
    """

    async def asked() -> str:
        sampler = _sampler(config, rounds)
        try:
            await sampler.start()
            return f"{sampler.model} at {sampler.url}"
        finally:
            await sampler.aclose()

    try:
        return run(asked())
    except UpstreamError as error:
        raise RecipeError(f"warmstart.teacher cannot be used: {error}") from error


def _sampler(config: WarmstartConfig, rounds: Rounds) -> OpenAISampler:
    key = os.environ.get(config.teacher_key_variable, "")
    address = UpstreamAddress.parse(config.teacher, key, "warmstart.teacher")
    return OpenAISampler(address, "chat", rounds, config.teacher_model, {}, SECONDS, "warmstart.teacher_model")


def ask_teacher(session: Session, display: Display, record: Path, stopped: Callable[[], bool]) -> Lesson:
    """The teacher's right answers as demonstrations. What `record` holds of earlier attempts is not asked again.

    Raises:
        SamplerError: the teacher cannot be asked; what it has answered is recorded.
        DataError: none of its answers is right.
    """
    recipe, train = session.recipe, session.task.train
    config, count = recipe.warmstart, min(recipe.warmstart.questions, len(train))
    drawn = draw_questions(train, 1, count, recipe.train.seed)
    book = _Record(record, session)
    judge = _Judge(session, demonstrator(session))
    lesson = Lesson()
    with display.sampling(len(drawn) * config.samples) as advance:
        asking = _Asking(session, book, judge, stopped)
        run(asking.ask([question for question in drawn if question not in book], advance))
    for question in drawn:
        if question not in book:
            lesson.complete = False
            continue
        answers = book[question]
        kept, problem = judge.kept(question, answers)
        lesson.found.trees += kept
        lesson.prompt_tokens += answers.prompt_tokens
        lesson.tokens += answers.tokens
        if not kept:
            lesson.found.dropped.append(BadRow(question.id, question.line or 0, problem))
    return lesson


class _Asking:
    """Asks the teacher, a few questions at a time, and records what it answers."""

    def __init__(self, session: Session, book: _Record, judge: _Judge, stopped: Callable[[], bool]):
        self.session, self.book, self.judge, self.stopped = session, book, judge, stopped
        self.config = session.recipe.warmstart
        self.wrong = 0

    async def ask(self, questions: Sequence[Question], advance: Any) -> None:
        sampler, slots = _sampler(self.config, self.session.rounds), asyncio.Semaphore(self.config.teacher_concurrency)
        waiting = asyncio.Semaphore(max(1, self.config.teacher_concurrency // self.config.samples))
        try:
            if questions:
                try:
                    await sampler.start()
                except UpstreamError as error:
                    raise SamplerError(f"warmstart.teacher: {error}") from error
            async with together() as group:
                for question in questions:
                    await waiting.acquire()
                    if self.stopped():
                        break
                    task = group.create_task(self._one(question, _Patient(sampler, slots), advance))
                    task.add_done_callback(lambda _: waiting.release())
        finally:
            await sampler.aclose()

    async def _one(self, question: Question, sampler: _Patient, advance: Any) -> None:
        tree = Tree(question, 0)
        shape = teacher_shape(self.session)
        grower = Grower(sampler, self.session.rounds, TreeShape.of(shape), self.session.recipe.train.seed, "teacher")
        await grower.grow([tree])
        trajectories = [[(node.text, node.truncated) for node in root.walk()] for root in tree.roots]
        answers = Answers(trajectories, sampler.prompt_tokens, sampler.tokens)
        self.book.add(question, answers)
        for leaf in tree.leaves():
            advance(tree, leaf)
        await asyncio.to_thread(self._judge, question, answers)

    def _judge(self, question: Question, answers: Answers) -> None:
        """Count questions in a row, from the first, of which no answer is right; too many end it."""
        if self.wrong < 0:
            return
        right, last = self.judge.right(question, answers)
        self.wrong = -1 if right else self.wrong + 1
        if self.wrong >= PATIENCE:
            raise DataError(
                f"warmstart.teacher: none of its answers to {self.wrong} questions is right (the last: {last[:60]!r}, "
                f"and the answer is {question.gold[:60]!r}): read {self.book.file.path}, or choose another teacher or "
                "grader"
            )


class _Patient:
    """A sampler that asks the teacher again where it failed for a reason that may pass, and counts tokens."""

    def __init__(self, sampler: OpenAISampler, slots: asyncio.Semaphore):
        self.sampler, self.slots = sampler, slots
        self.prompt_tokens = self.tokens = 0

    def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        """One completion per key, each from a call of its own."""
        return sample_each(request, self._complete)

    async def _complete(self, request: Request, index: int) -> Completion:
        one = replace(request, keys=[request.keys[index]], paths=[request.paths[index]])
        for attempt in range(RETRIES + 1):
            try:
                async with self.slots:
                    completion = await anext(aiter(self.sampler.sample(one)))
            except UpstreamError as error:
                if not error.may_pass or attempt == RETRIES:
                    raise SamplerError(f"warmstart.teacher: {error}") from error
                await asyncio.sleep(error.retry_after or PAUSE * 2**attempt)
            else:
                self.prompt_tokens += completion.prompt_tokens or 0
                self.tokens += completion.completion_tokens or 0
                return replace(completion, request=request, index=index)
        raise AssertionError("unreachable")


def teacher_shape(session: Session) -> RolloutConfig:
    """How a teacher's trees grow: some responses, each continued once, in the recipe's rounds and limits."""
    config, rollout = session.recipe.warmstart, session.recipe.rollout
    branching = [config.samples, *[1] * (rollout.rounds - 1)]
    update: dict[str, Any] = {"branching": branching, "top_p_first": 1.0, "top_p_continue": 1.0}
    update |= {"temperature_first": config.temperature, "temperature_continue": config.temperature}
    return rollout.model_copy(update=update | {"continuation_policy": "current"})


class _Judge:
    """Which of a teacher's answers are right, and which of these can be imitated."""

    def __init__(self, session: Session, build: Demonstrator):
        self.session, self.build = session, build
        self._graded: dict[tuple[str, str], list[tuple[str, str]]] = {}

    def _verdicts(self, question: Question, answers: Answers) -> list[tuple[str, str]]:
        """The verdict on each answer, and the answer; each is graded once."""
        name = question.id, question.whole
        if name not in self._graded:
            self._graded[name] = self._grade(question, answers)
        return self._graded[name]

    def _grade(self, question: Question, answers: Answers) -> list[tuple[str, str]]:
        given = [self.session.rounds.read(*path[-1], final=True).answer for path in answers.trajectories]
        grades = self.session.grader.grade_answers([(question, answer) for answer in given])
        return [(grade.verdict, answer or "") for grade, answer in zip(grades, given, strict=True)]

    def right(self, question: Question, answers: Answers) -> tuple[bool, str]:
        """Whether any answer is right, and the last one."""
        verdicts = self._verdicts(question, answers)
        return any(verdict == "right" for verdict, _ in verdicts), verdicts[-1][1] if verdicts else ""

    def kept(self, question: Question, answers: Answers) -> tuple[list[Tree], str]:
        """At most `warmstart.keep` demonstrations; or why there is none."""
        kept, problem = list[Tree](), "no answer of the teacher is right"
        for (verdict, _), path in zip(self._verdicts(question, answers), answers.trajectories, strict=True):
            if verdict != "right" or len(kept) == self.session.recipe.warmstart.keep:
                continue
            try:
                if any(truncated for _, truncated in path):
                    raise UnfitDemonstration("a right answer of the teacher is cut off by its limit of tokens")
                kept.append(self.build.from_responses(question, [text for text, _ in path]))
            except UnfitDemonstration as error:
                problem = str(error)
        return kept, problem


class _Record:
    """What the teacher has answered, by question."""

    def __init__(self, path: Path, session: Session):
        config, recipe = session.recipe.warmstart, session.recipe
        parts = (config.teacher, config.teacher_model, recipe.rounds.model_dump_json(), recipe.train.seed)
        key = hashlib.sha256(repr((*parts, teacher_shape(session))).encode()).hexdigest()[:16]
        self.file, self.answers = AnswerLog(path, key), dict[tuple[str, str], Answers]()
        self.file.restore(self._take)

    def _take(self, entry: dict[str, Any]) -> None:
        trajectories = [[(str(text), bool(cut)) for text, cut in path] for path in entry["trajectories"]]
        answers = Answers(trajectories, int(entry["prompt_tokens"]), int(entry["tokens"]))
        self.answers[entry["question"], entry["text"]] = answers

    def __contains__(self, question: Question) -> bool:
        return (question.id, question.whole) in self.answers

    def __getitem__(self, question: Question) -> Answers:
        return self.answers[question.id, question.whole]

    def add(self, question: Question, answers: Answers) -> None:
        """Write a line."""
        self.answers[question.id, question.whole] = answers
        entry: dict[str, Any] = {"question": question.id, "text": question.whole, "answer": question.gold}
        entry |= {"trajectories": answers.trajectories, "tokens": answers.tokens}
        self.file.add([entry | {"prompt_tokens": answers.prompt_tokens}])
