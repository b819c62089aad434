"""The probe against the truth: a sampler whose notes have known values, and runs with and without a probe."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from motif.config import CreditConfig, ProbeConfig, Recipe, RolloutConfig, RoundsConfig, load_recipe
from motif.display import Display
from motif.errors import RecipeError
from motif.evaluation.probe import ProbedQuestion, ProbeResult, measure, probe, probe_questions
from motif.grading import Grader
from motif.method.credit import assign
from motif.method.keys import sampling_key
from motif.method.rounds import Rounds
from motif.method.tree import Node, Question, Tree
from motif.sampling.base import Completion, OnText, Request, Usage
from motif.sampling.grow import continue_from, grow
from motif.statistics.variance import Components, components
from motif.tasks import Task
from motif.training.loop import train
from support.runs import metric_lines
from support.tiny import char_tokenizer
from support.wordings import COMPACT

TOKENIZER = char_tokenizer()
PROTOCOL = RoundsConfig(**COMPACT | {"untagged": "empty"})
CHANCES = {"a": 0.9, "b": 0.5, "c": 0.2, "": 0.05}
"""How often a continuation of each note ends right."""
QUESTIONS = [Question(f"q{i}", f"What is {i} + {i}?", str(2 * i)) for i in range(1, 9)]


@functools.cache
def encoded(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


@functools.cache
def decoded(ids: tuple[int, ...]) -> str:
    return TOKENIZER.decode(ids)


class KnownSampler:
    """Writes the notes a, b, c or none, passes them on, and at the end is right as often as `CHANCES` says."""

    def __init__(self, writes: str = "abc", base: float | None = None) -> None:
        self.usage = Usage()
        self.writes, self.base = writes, base  # base: how often the base model is right, whatever the note
        self.runs: list[int] = []
        self.loop: asyncio.AbstractEventLoop | None = None

    async def sample(self, request: Request, on_text: OnText | None = None) -> AsyncIterator[Completion]:
        if self.loop is not (loop := asyncio.get_running_loop()):  # each growing of trees has a loop of its own
            self.loop = loop
            self.runs.append(0)
        for index, key in enumerate(request.keys):
            ids = encoded(self.answer(request, key))
            self.usage.generated_tokens += len(ids)
            self.runs[-1] += 1
            yield Completion(request, index, ids, [0.0] * len(ids), False)

    def answer(self, request: Request, key: int) -> str:
        prompt = decoded(tuple(request.prompt_ids))
        note = re.search(r'Note \d: "(\w?)"', prompt)
        if note is None:
            return f"<think>x</think><note>{self.writes[key % len(self.writes)]}</note>"
        if "final" not in prompt:
            return f"<think>x</think><note>{note[1]}</note>"
        left, right = re.search(r"What is (\d+) \+ (\d+)", prompt).groups()
        chance = CHANCES[note[1]] if self.base is None or request.policy == "current" else self.base
        lucky = key / 2**64 < chance
        return f"<note>\\boxed{{{int(left) + int(right) if lucky else 0}}}</note>"


def recipe(rounds: int = 3, continuations: int = 32, k: int = 2, **rollout) -> Recipe:
    shape = RolloutConfig(branching=[4, k] + [1] * (rounds - 2), **rollout)
    return Recipe(
        rounds=PROTOCOL, rollout=shape, credit=CreditConfig(format_weight=0.2),
        probe=ProbeConfig(questions=len(QUESTIONS), continuations=continuations),
    )  # fmt: skip


def probed(sampler: KnownSampler, settings: Recipe) -> ProbeResult:
    with Grader("numeric") as grader:
        return probe(QUESTIONS, sampler, Rounds(PROTOCOL, TOKENIZER), grader, settings)


# -- growing on from a note --------------------------------------------------------------------------------------------


def given(note: str, index: int = 0) -> Node:
    return Node((index,), prompt_ids=[], token_ids=[], logprobs=[], text="", truncated=False, note=note)


def test_continuing_the_notes_of_a_tree_grows_the_rest_of_that_tree():
    shape, rounds = recipe().rollout, Rounds(PROTOCOL, TOKENIZER)
    whole = grow(QUESTIONS, KnownSampler(), rounds, shape, seed=3, step="x")
    halves = [Tree(tree.question, 0, [given(root.note, root.path[0]) for root in tree.roots]) for tree in whole]
    leaves: list[Node] = []
    continue_from(
        halves, KnownSampler(), rounds, shape, seed=3, step="x", on_leaf=lambda tree, leaf: leaves.append(leaf)
    )
    for tree, half in zip(whole, halves, strict=True):
        below = [[(node.path, node.prompt_ids, node.token_ids) for node in root.walk()][1:] for root in tree.roots]
        assert below == [[(n.path, n.prompt_ids, n.token_ids) for n in root.walk()][1:] for root in half.roots]
    assert len(leaves) == len(QUESTIONS) * 4 * 2


# -- the true values ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rounds", [2, 3])
def test_equals_brute_force(rounds):
    """Every number that the keys determine is computed again from the keys alone."""
    settings, sampler = recipe(rounds), KnownSampler()
    found = probed(sampler, settings)
    K, later = settings.probe.continuations, (0,) * (rounds - 2)
    own = [["abc"[sampling_key(0, "probe", q.id, (i,)) % 3] for i in range(4)] for q in QUESTIONS]
    pairs, values, distinct = [], {"own": [], "empty": [], "shuffled": []}, 0
    for at, question in enumerate(QUESTIONS):
        foreign = own[(at + 1) % len(QUESTIONS)][at % 4]
        notes = list(dict.fromkeys([*own[at], "", foreign]))
        distinct += len(notes)

        def right(step: str, path: tuple[int, ...], note: str, id: str = question.id) -> bool:
            return sampling_key(0, step, id, (*path, *later)) / 2**64 < CHANCES[note]

        value = {
            note: np.mean([right("probe/continued", (index, j), note) for j in range(K)])
            for index, note in enumerate(notes)
        }
        rewards = [np.mean([right("probe", (i, j), note) for j in range(2)]) for i, note in enumerate(own[at])]
        spread = np.std(rewards, ddof=1)
        advantages = (rewards - np.mean(rewards)) / (spread + 1e-4) if spread else np.zeros(4)
        true = np.array([value[note] for note in own[at]])
        pairs += list(zip(advantages, true - true.mean(), strict=True))
        for kind, mean in (("own", true.mean()), ("empty", value[""]), ("shuffled", value[foreign])):
            values[kind].append(mean)
    x, y = np.array(pairs).T
    assert found.correlation.value == pytest.approx(x @ y / np.sqrt((x @ x) * (y @ y)))
    for kind, means in values.items():
        assert found.values[kind].value == pytest.approx(np.mean(means))
    difference = np.subtract(values["own"], values["empty"])
    interval = found.values["own_minus_empty"]
    assert interval.value == pytest.approx(difference.mean())
    assert interval.high - interval.low == pytest.approx(2 * 2.3646 * difference.std(ddof=1) / np.sqrt(8), rel=1e-3)
    assert (found.notes, found.responses, found.ungraded) == (distinct, 32, 0)
    # One run of the sampler for all continuations, and equal notes continued once.
    assert sampler.runs == [8 * settings.rollout.generations, distinct * K * (rounds - 1)]
    assert found.generated_tokens == sampler.usage.generated_tokens


def test_responses_that_gave_the_answer_are_not_probed():
    """One first-round response in four boxes the answer at once, and leaves no note."""

    class Finishing(KnownSampler):
        def answer(self, request: Request, key: int) -> str:
            answers = (
                request.paths and request.paths[0][0] == 0 and len(request.paths[0]) == 1 and key == request.keys[0]
            )
            return "<think>x</think><note>\\boxed{0}</note>" if answers else super().answer(request, key)

    settings = recipe()
    settings = settings.model_copy(update={"rounds": PROTOCOL.model_copy(update={"may_finish": True})})
    with Grader("numeric") as grader:
        found = probe(QUESTIONS, Finishing(), Rounds(settings.rounds, TOKENIZER), grader, settings)
    assert found.responses == 3 * len(QUESTIONS)
    assert found.values["own"].value > found.values["empty"].value


def test_finds_the_values_that_the_notes_have():
    found = probed(KnownSampler(), recipe(continuations=400, k=8))
    assert found.values["empty"].value == pytest.approx(0.05, abs=0.02)
    assert found.values["own"].low < np.mean([0.9, 0.5, 0.2]) < found.values["own"].high
    between, within = np.var([0.9, 0.5, 0.2]), np.mean([0.09, 0.25, 0.16])
    assert found.icc.value == pytest.approx(between / (between + within), abs=0.1)
    assert found.rewards[0].variance == pytest.approx(within, abs=0.04)
    assert found.trained_bias.value == pytest.approx(0, abs=0.05)


def test_rewards_by_another_policy_than_the_deployed_one_are_seen_to_be_biased():
    found = probed(KnownSampler(base=0.0), recipe(continuation_policy="base"))
    assert found.trained_bias.high < -0.2
    assert found.values["own"].value > 0.4
    assert found.correlation.value is None  # no advantage was given at all


def test_the_same_numbers_at_every_probe_and_others_for_another_seed():
    settings = recipe()
    other = settings.model_copy(update={"train": settings.train.model_copy(update={"seed": 1})})
    assert probed(KnownSampler(), settings) == probed(KnownSampler(), settings)
    assert probed(KnownSampler(), settings) != probed(KnownSampler(), other)


# -- the measures ------------------------------------------------------------------------------------------------------


def made(rng: np.random.Generator, questions: int, K: int, oracle: bool = True) -> list[ProbedQuestion]:
    """Questions with eight responses of Beta(2, 2) true values, some of which share a note."""
    found = []
    for _ in range(questions):
        notes = [0, 0, 1, 2, 3, 4, 5, 6]
        outcomes = [(rng.random(K) < rng.beta(2, 2)).astype(float) for _ in range(9)]
        values = np.array([outcomes[note].mean() for note in notes])
        advantages = 0.7 * (values - values.mean()) if oracle else rng.normal(size=8)
        found.append(ProbedQuestion(notes, advantages.tolist(), values.tolist(), outcomes, empty=7, shuffled=8))
    return found


def test_an_oracle_correlates_perfectly_and_chance_does_not():
    rng = np.random.default_rng(0)
    assert measure(made(rng, 10, 32), 32).correlation.value == pytest.approx(1)
    chance = measure(made(rng, 60, 32, oracle=False), 32).correlation
    assert chance.low < 0 < chance.high
    assert abs(chance.value) < 0.15


@pytest.mark.parametrize("K", [16, 40])
def test_the_spread_of_true_values_is_not_inflated_by_few_continuations(K):
    """Beta(2, 2) values have variance 1/20 and leave 1/5 to luck; two of eight responses share a note."""
    found = measure(made(np.random.default_rng(1), 600, K), K)
    between = 1 / 20 * (1 - 2 / 56)  # 2 of the 56 ordered pairs of responses are equal
    assert found.icc.value == pytest.approx(between / (between + 1 / 5), abs=0.015)
    assert found.icc.low < between / (between + 1 / 5) < found.icc.high


def test_variance_of_rewards_falls_with_their_trajectories_and_bias_does_not_appear():
    found = measure(made(np.random.default_rng(2), 500, 64), 64)
    for reward in found.rewards:
        assert reward.bias.low < 0 < reward.bias.high
        assert reward.variance == pytest.approx(1 / 5 / reward.k, rel=0.05)
    reliabilities = [reward.reliability for reward in found.rewards]
    assert all(a < b for a, b in itertools.pairwise(reliabilities))
    assert reliabilities[0] == pytest.approx(found.icc.value)


def test_what_could_not_be_graded_is_counted_and_left_out():
    questions = made(np.random.default_rng(3), 12, 32)
    questions[0].outcomes[0] = questions[0].outcomes[0][:10]  # too few are left
    questions[1].advantages_M[3] = None
    found = measure(questions, 32)
    assert found.ungraded == 22
    assert found.correlation.value == pytest.approx(1, abs=0.02)
    nothing = measure([ProbedQuestion([0], [None], [None], [np.zeros(0)] * 3, 1, 2)] * 2, 32)
    assert nothing.correlation.value is nothing.icc.value is nothing.values["own"].value is None
    json.dumps(nothing.to_dict(), allow_nan=False)


def test_probe_and_trees_agree_on_the_intraclass_correlation():
    """The probe's hundreds of continuations and the trees' k estimate the same share."""
    settings, rounds = recipe(k=4), Rounds(PROTOCOL, TOKENIZER)
    truth = probed(KnownSampler(), recipe(continuations=400)).icc
    parts = Components()
    for step in range(12):
        trees = grow(QUESTIONS, KnownSampler(), rounds, settings.rollout, step=step)
        for tree in trees:
            for leaf in tree.leaves():
                leaf.verdict = "right" if leaf.answer == tree.question.gold else "wrong"
            assign(tree, settings.credit)
        parts += components(trees)
    assert truth.low < parts.icc < truth.high


# -- in a run ----------------------------------------------------------------------------------------------------------

SMALL = ["rollout.questions_per_step=2", "rollout.branching=[3,2,1]", "train.steps=2", "eval.questions=0",
         "model.adapter=lora", "model.lora_rank=4", "train.save_every=1", "rollout.tokens_first=18",
         "rollout.tokens_continue=16", "rounds.note_tokens=12", "data.arithmetic.smallest=10",
         "data.arithmetic.largest=16"]  # fmt: skip
PROBE = ["probe.questions=2", "probe.continuations=16"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    quiet = Display(quiet=True)
    train("demo", folder / "without", settings=SMALL, display=quiet)
    train("demo", folder / "with", settings=[*SMALL, *PROBE, "probe.every=1"], display=quiet)
    short = [*SMALL, *PROBE, "probe.every=1", "train.steps=1"]
    train("demo", folder / "resumed", settings=short, display=quiet)
    # A line of a step after the checkpoint, as a run that was killed leaves it.
    with (folder / "resumed" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "probe": {}}\n')
    train("demo", folder / "resumed", settings=[*short, "train.steps=2"], resume=True, display=quiet)
    return {path.name: path for path in folder.iterdir()}


def test_a_probe_changes_nothing_else(runs):
    one, two = runs["without"], runs["with"]
    assert metric_lines(one)[-1]["ledger/trained_tokens"] > 0
    for name in ("adapter/adapter_model.safetensors", "trees.jsonl"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
    assert metric_lines(one) == [line for line in metric_lines(two) if "probe" not in line]  # the ledger too
    found = [line for line in metric_lines(two) if "probe" in line]
    assert [line["step"] for line in found] == [0, 1, 2]
    assert found[0]["probe"]["questions"] == 2
    assert found[0]["probe"]["continuations"] == 16


def test_a_resumed_run_probes_as_an_uninterrupted_one(runs):
    assert metric_lines(runs["resumed"]) == metric_lines(runs["with"])


def test_the_probe_is_in_the_report(runs):
    from motif.report.data import RunView

    view = RunView(runs["with"])
    view.refresh()
    [section] = [one for one in view.data("with")["sections"] if one["id"] == "diagnostics"]
    assert "rewards" in [chart["id"] for chart in section["charts"]]


def test_refused_before_anything_is_spent(tmp_path):
    with pytest.raises(RecipeError, match="several rounds"):
        load_recipe("vanilla-grpo", ["probe.questions=20"])
    with pytest.raises(RecipeError, match="at least 2"):
        load_recipe("demo", ["probe.questions=1"])
    with pytest.raises(RecipeError, match="only 1,384 held-out"):
        train("demo", tmp_path / "run", settings=["probe.questions=5000"], display=Display(quiet=True))
    assert not (tmp_path / "run").exists()


def test_questions_are_held_out_fixed_by_the_seed_and_different():
    task = Task("t", QUESTIONS[:2], QUESTIONS[2:], "exact", [])

    def drawn(seed: int) -> list[str]:
        settings = load_recipe("demo", ["probe.questions=4", f"train.seed={seed}"])
        return [question.id for question in probe_questions(task, settings)]

    assert drawn(0) == drawn(0)
    assert len(set(drawn(0))) == 4
    assert not {"q1", "q2"} & set(drawn(0))
    assert len({tuple(drawn(seed)) for seed in range(5)}) > 1
    assert probe_questions(task, load_recipe("demo")) == []
