"""A session: the task, model, sampler and grader that a recipe or a run names, opened.

Everything is checked before anything is spent on it.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from motif.config import Recipe
from motif.demo import MODELS
from motif.distributed import ALONE, Processes
from motif.errors import DataError, RecipeError
from motif.grading import Grader
from motif.method.answers import boxed
from motif.method.demonstrations import Demonstrator, UnfitDemonstration, example_of
from motif.method.pieces import cut
from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree
from motif.models.hub import load_config, load_tokenizer
from motif.models.int8 import FLOAT32, Precision
from motif.models.path import Paths
from motif.models.policy import Policy
from motif.models.shape import context_limit, window_of
from motif.runs.checkpoint import checksum, load_newest_weights
from motif.runs.provenance import versions
from motif.runs.weights import load_weights
from motif.sampling.base import ServingSampler, TrainingSampler
from motif.sampling.grow import grow
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.engine import Engine
from motif.sampling.local.precision import choose_precision
from motif.sampling.vllm.launch import Colocation
from motif.tasks import BadRow, Task, load, reject, solutions, wording
from motif.tasks.rows import read
from motif.tasks.worked import cutting_of, worked
from motif.text import brief, counted

CHUNK = 1000
"""Questions that are tokenised at once: a tokenizer makes several Python objects of every token."""
UNKNOWN_WINDOW = 4096
"""Tokens of a window whose size no one tells."""
SEAM = 16
"""Tokens by which a prompt may differ from the sum of its parts."""


@dataclass
class Session:
    """The working parts of a run, built once from its recipe."""

    recipe: Recipe
    task: Task
    policy: Policy
    rounds: Rounds
    sampler: TrainingSampler
    grader: Grader
    processes: Processes = ALONE

    def sync_weights(self, version: int) -> None:
        """Let the sampler take over the policy's weights as they are after `version` steps; all processes must call."""
        self.policy.unshard()
        self.sampler.sync_weights(version)

    @property
    def paths(self) -> Paths:
        """How sampler and updates compute."""
        return Paths(self.sampler.path, self.policy.update_path)

    @property
    def precision(self) -> Precision:
        """The numbers that the sampler multiplies."""
        return self.sampler.precision

    def ways(self) -> list[tuple[str, str]]:
        """What to show of how it computes, as (name, text) pairs."""
        rows = [("paths", str(self.paths))]
        if self.precision.asked != FLOAT32.asked:
            rows.append(("precision", f"rollouts: {self.precision.describe()}; all else: float32"))
        return rows

    def summary(self) -> dict[str, Any]:
        """What a summary has of it: what is trained on what, by how many processes, and how it computes."""
        found: dict[str, Any] = {
            "skipped_rows": len(self.task.skipped),
            "trained": {
                "parameters": sum(parameter.numel() for parameter in self.policy.trainable()),
                "share": round(self.policy.trained_share, 4),
            },
            "seed": self.recipe.train.seed,
            "processes": self.processes.count,
            "paths": self.paths.to_dict(),
        }
        return found | ({"precision": self.precision.to_dict()} if self.precision.asked != FLOAT32.asked else {})

    def metrics(self) -> dict[str, str | float | None]:
        """How it computes, for a line of metrics."""
        return self.paths.metrics() | ({"sampler/precision": self.precision.name} if self.precision.int8 else {})

    @property
    def measuring(self) -> TrainingSampler:
        """The sampler for evaluations and probes: in float32 where it computes in this process."""
        return self.sampler.exact()

    def close(self) -> None:
        """End the grader's worker processes, and give back what the sampler holds."""
        self.grader.close()
        self.sampler.close()


def with_examples(recipe: Recipe) -> Recipe:
    """The recipe with its worked examples read, or drawn from the training data by the seed.

    Raises:
        DataError: the file cannot be read, or the data has too few worked solutions that fit.
        BadRows: a line of the file cannot be used.
    """
    source = recipe.rounds.examples
    if isinstance(source, list) or not source:
        return recipe
    name = recipe.model.name
    rounds = Rounds(recipe.rounds.model_copy(update={"examples": 0}), load_tokenizer(name))
    build = Demonstrator(rounds, recipe.rollout, window_of(recipe, context_limit(load_config(name))))
    drawn = _read_examples(source, build) if isinstance(source, str) else _draw_examples(source, recipe, build)
    examples = [example_of(tree, rounds) for tree in drawn]
    return recipe.with_settings("rounds", examples=examples)


def _read_examples(file: str, build: Demonstrator) -> list[Tree]:
    table, bad, trees = read(file), list[BadRow](), list[Tree]()
    for row in table.rows:
        try:
            trees.append(build.from_responses(*worked(row.columns, row.line, build.rounds.config)))
        except UnfitDemonstration as error:
            bad.append(BadRow(table.source, row.line, str(error)))
    reject([*table.bad, *bad], skip=False)
    return trees


def _draw_examples(count: int, recipe: Recipe, build: Demonstrator) -> list[Tree]:
    source, texts = solutions(recipe.data, recipe.warmstart.solution_column)
    cutting = cutting_of(recipe.warmstart)
    questions = [question for question in load(recipe.data).train if question.line in texts]
    random.Random(f"examples/{recipe.train.seed}").shuffle(questions)
    drawn: list[Tree] = []
    problem = "no question has a worked solution"
    for question in questions:
        if len(drawn) == count:
            break
        try:
            drawn.append(build.from_solution(question, texts[question.line or 0], cutting))
        except UnfitDemonstration as error:
            problem = str(error)
    if len(drawn) < count:
        raise DataError(
            f"{source}: rounds.examples = {count}, and {len(drawn)} of {counted(len(questions), 'worked solution')} "
            f"can be cut into rounds that fit (the last: {problem})"
        )
    return drawn


def open_task(recipe: Recipe, tokenizer: Any, window: int) -> Task:
    """Load the questions and refuse those that do not fit the window with their longest possible notes.

    Long texts are cut into pieces here, by the model's tokens (`data.piece_tokens`).

    Raises:
        BadRows: rows that cannot be used, unless `data.skip_bad`.
        RecipeError: the one long round of `eval.matched` does not fit.
    """
    recipe = with_examples(recipe)
    task = load(recipe.data)
    rounds = Rounds(recipe.rounds, tokenizer)
    shown = {" ".join(example.question.split()) for example in rounds.examples}
    limit = window - max(recipe.rollout.tokens_first, recipe.rollout.tokens_continue)
    count = max([recipe.rollout.longest, *recipe.eval_rounds])
    bad: list[BadRow] = []
    usable: dict[str, list[Any]] = {"train": [], "test": []}
    for split, loaded in (("train", task.train), ("test", task.test)):
        questions = [in_pieces(question, recipe.data.piece_tokens, tokenizer) for question in loaded]
        asked = [
            [rounds.asked(question, number + 1) for number in range(len(question.pieces) or 1)]
            for question in questions
        ]
        sizes = _longest_prompts([text for texts in asked for text in texts], rounds, count, limit)
        for question, texts in zip(questions, asked, strict=True):
            tokens = [next(sizes) for _ in texts]
            if " ".join(question.text.split()) in shown:
                if split == "test":
                    problem = "the test question is one of rounds.examples, which every prompt shows"
                    bad.append(BadRow(f"{task.name} {split}", question.line or 0, problem))
            elif problem := _misfit(question, tokens, recipe.rollout.most_rounds, limit, window):
                problem += " (every prompt shows rounds.examples)" if shown else ""
                bad.append(BadRow(f"{task.name} {split}", question.line or 0, problem))
            else:
                usable[split].append(question)
    reject(bad, recipe.data.skip_bad)
    if recipe.data.curriculum and len(lengths := {question.length for question in usable["train"]}) == 1:
        raise RecipeError(
            f"data.curriculum needs questions of several lengths, and all {len(usable['train']):,} training questions "
            f"have the length {lengths.pop()}: leave it out"
        )
    _check_examples(recipe, rounds, task.grader)
    if recipe.eval.matched:
        _check_matched(recipe, rounds, usable["test"][: recipe.eval.questions], window)
    return Task(task.name, usable["train"], usable["test"], task.grader, [*task.skipped, *bad])


def _check_examples(recipe: Recipe, rounds: Rounds, grader_name: str) -> None:
    """Refuse worked examples that do not end right."""
    if not rounds.examples:
        return
    marks = rounds.config.answer_marks
    pairs = [(example.answer, boxed(example.rounds[-1][1], *marks)) for example in rounds.examples]
    with Grader(grader_name, recipe.data.grader_seconds, workers=1) as grader:
        for number, (grade, (gold, given)) in enumerate(zip(grader.grade_many(pairs), pairs, strict=True), start=1):
            if grade.verdict != "right":
                raise DataError(f"rounds.examples: example {number} ends with {given!r}, and its answer is {gold!r}")


def in_pieces(question: Question, limit: int, tokenizer: Any) -> Question:
    """The question with its pieces cut to at most `limit` tokens; 0: as they are."""
    if not limit or not question.pieces:
        return question
    return replace(question, pieces=tuple(part for piece in question.pieces for part in cut(piece, limit, tokenizer)))


def _misfit(question: Question, tokens: Sequence[int], most_rounds: int, limit: int, window: int) -> str:
    """Why a question cannot be asked, if its longest prompts have so many tokens; empty: it can."""
    if len(question.pieces) > most_rounds:
        return f"{len(question.pieces)} pieces are more rounds than rollout.most_rounds = {most_rounds}"
    if max(tokens) <= limit:
        return ""
    problem = f"prompt of up to {max(tokens)} tokens leaves no room for a response in the window of {window}"
    return f"piece {tokens.index(max(tokens)) + 1}: {problem}" if question.pieces else problem


def _longest_prompts(questions: Sequence[str], rounds: Rounds, count: int, limit: int) -> Iterator[int]:
    """Tokens of each question's longest prompt in `count` rounds; exact enough to say whether it is above `limit`."""
    overhead = rounds.longest_prompt("", count)
    times = max(1, rounds.config.question.count("{question}"))
    room = (limit - overhead - SEAM) / times
    for start in range(0, len(questions), CHUNK):
        chunk = questions[start : start + CHUNK]
        sizes = [_most_tokens(question) for question in chunk]
        long = [rounds.shown(question) for question, size in zip(chunk, sizes, strict=True) if size > room]
        if long:
            encoded = iter(rounds.tokenizer(long, add_special_tokens=False, return_attention_mask=False)["input_ids"])
            sizes = [len(next(encoded)) if size > room else size for size in sizes]
        for question, size in zip(chunk, sizes, strict=True):
            # The sum is the length but for tokens that merge at the seam; only near the limit is it worth rendering.
            tokens = overhead + times * size
            yield rounds.longest_prompt(question, count) if abs(tokens - limit) <= SEAM else tokens


def _most_tokens(text: str) -> int:
    """A bound on the tokens of a text: one a byte, and as many bytes as a tokenizer's normal form can make of one.

    That is three of a space (as `▁`), and eleven of one character of 18 letters in the compatibility form of Unicode.
    """
    size = len(text.encode(errors="surrogatepass"))
    return 3 * size if text.isascii() else 11 * size - 8 * sum(map(str.isascii, text))


def _check_matched(recipe: Recipe, rounds: Rounds, questions: list[Any], window: int) -> None:
    """Refuse a matched budget that some question leaves no room for, rather than test on fewer questions."""
    longest = max((len(rounds.prompt(question.text, [], 1)) for question in questions), default=0)
    if longest + recipe.matched_tokens > window:
        raise RecipeError(
            f"eval.matched: one round of {recipe.matched_tokens} new tokens after a prompt of up to {longest} does not "
            f"fit the window of {window}: lower rollout.tokens_first or rollout.tokens_continue, or set it false"
        )


def open_sampler(
    recipe: Recipe, policy: Policy, processes: Processes = ALONE, colocation: Colocation | None = None
) -> TrainingSampler:
    """The recipe's sampler: its servers, or the policy's own weights.

    Args:
        colocation: how the server of `sampler.colocate` shares the device; None: it is not started.

    Raises:
        ModelError: the model cannot be sampled here.
        ServiceError: a server does not answer, or serves something else.
    """
    if recipe.sampler.urls or colocation:
        from motif.sampling.vllm.opening import open_servers

        return open_servers(policy, recipe, window_of(recipe, policy.max_length), processes, colocation)
    precision = processes.on_main(lambda: choose_precision(recipe, policy))
    return LocalSampler(policy, recipe.rollout.max_rows, precision=precision)


def piece_limit(recipe: Recipe, rounds: Rounds, window: int | None) -> int:
    """The tokens of a piece where a message is read in pieces, for a recipe of texts in pieces; 0 for another.

    `data.piece_tokens`, or the longest piece of a task that makes its own questions, or else what fits the window.
    """
    data, rollout = recipe.data, recipe.rollout
    if not data.in_pieces or data.piece_tokens:
        return data.piece_tokens
    if data.active_section is not None:
        pieces = [piece for question in load(data).train[:CHUNK] for piece in question.pieces]
        return max(len(rounds.encode(piece)) for piece in pieces)
    room = (window or UNKNOWN_WINDOW) - max(rollout.tokens_first, rollout.tokens_continue)
    return max(1, (room - rounds.longest_prompt("", 2)) * 3 // 4)  # the rest is for the question


@dataclass(frozen=True)
class LoadedModel:
    """A model that answers questions: its sampler and its prompts.

    window: tokens of a prompt and its response together; None if unknown. about: the model, in words. fingerprint:
    identifies all that decides its answers, where that is known.
    """

    sampler: ServingSampler
    rounds: Rounds
    window: int | None
    about: str
    fingerprint: str | None = None


def notices(recipe: Recipe) -> Callable[[str], str]:
    """What is to be said of a question before it is answered: whether an embedded model was made for others.

    Empty for a question like those that it has learnt, and for every other model.
    """
    known = wording(recipe.data) if recipe.model.name in MODELS else None

    def notice(question: str) -> str:
        if known is None or known.knows(question):
            return ""
        return (
            f"This small model was made for questions worded like “{brief(known.example, 160)}”; what it answers to "
            "others means nothing."
        )

    return notice


def open_model(recipe: Recipe, weights: Path | None, rows: int) -> LoadedModel:
    """Load a model to answer questions, with a run's trained weights; at most `rows` responses are decoded at once.

    Raises:
        ModelError: the model cannot be loaded or sampled here.
        RunFolderError: the run holds no weights, or they are damaged.
    """
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    recipe = with_examples(recipe)
    policy = Policy(recipe.model, recipe.train.seed)
    about = f"{recipe.model.name}, untrained"
    if weights is not None:
        step = load_newest_weights(weights, policy)
        about = f"weights of {weights}"
        if step is not None:
            about += f", an unfinished run: its checkpoint of step {step}"
    rounds = Rounds(recipe.rounds, policy.tokenizer)
    window = window_of(recipe, policy.max_length)
    engine = Engine(policy, rows, choose_precision(recipe, policy))
    precision = engine.sampler.precision
    if precision.asked != FLOAT32.asked:
        about += f", sampled in {precision.describe()}"
    return LoadedModel(engine, rounds, window, about, _fingerprint(recipe, policy, precision))


def _fingerprint(recipe: Recipe, policy: Policy, precision: Precision) -> str:
    parts: tuple[Any, ...] = (versions(), recipe.model.name, str(policy.device), policy.autocast, checksum(policy))
    parts += ("int8",) if precision.int8 else ()
    scaffold = recipe.rounds.model_dump_json()
    return "motif-" + hashlib.sha256(repr((*parts, scaffold)).encode()).hexdigest()[:12]


def open_session(
    recipe: Recipe,
    task: Task | None = None,
    run: str | Path | None = None,
    processes: Processes = ALONE,
    colocation: Colocation | None = None,
) -> Session:
    """Build all parts; with `run`, the policy gets that run's trained weights. `colocation`: see `open_sampler`.

    Raises:
        RecipeError, BadRows: see `Policy`, `open_task`.
    """
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    recipe = with_examples(recipe)
    shard = recipe.train.shard == "weights" and processes.count > 1
    policy = Policy(recipe.model, recipe.train.seed, shard)
    if run is not None:
        load_weights(Path(run), policy)
    if task is None:
        task = open_task(recipe, policy.tokenizer, window_of(recipe, policy.max_length))
    sampler = open_sampler(recipe, policy, processes, colocation)
    if sampler.path:
        recipe = recipe.with_precision(sampler.precision.name)
    return Session(
        recipe=recipe.with_importance_cap(policy.half),
        task=task,
        policy=policy,
        rounds=Rounds(recipe.rounds, policy.tokenizer),
        sampler=sampler,
        grader=Grader(task.grader, recipe.data.grader_seconds, workers=2),
        processes=processes,
    )


def solve(
    question: str,
    session: Session,
    *,
    rounds: int | None = None,
    greedy: bool = True,
    seed: int = 0,
    on_round: Callable[[Node, int], None] | None = None,
) -> Node:
    """Answer a question in rounds and return the first response, with those of the later rounds below it.

    The `answer` of the last one is the answer; None: the model gave none.

    Args:
        rounds: by default as many as the recipe has.
        on_round: called with each round's response as soon as it ends, and the number of rounds.
    """
    count = rounds or session.recipe.rollout.rounds
    shape = session.recipe.rollout.model_copy(update={"branching": [1] * count, "continuation_policy": "current"})

    def on_response(node: Node) -> None:
        if on_round:
            on_round(node, count)

    asked_question = Question(id=f"solve/{question}", text=question, gold="")
    parts = (session.sampler, session.rounds, shape)
    [tree] = grow([asked_question], *parts, seed=seed, step="solve", greedy=greedy, on_response=on_response)
    return tree.roots[0]
