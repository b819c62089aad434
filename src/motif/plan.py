"""What a run will do and roughly need, told before anything is spent on it, and refused if it cannot fit.

Counts are exact. Memory is an estimate from the model's shape; time is a rough one, from a quarter of a second of
matrix products on this machine and from how far real steps were seen to stay below them. Once steps run, the display
goes by them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from motif.config import Recipe, RecipeError
from motif.evaluate import answers_in, rows
from motif.policy import context_limit, load_tokenizer, locate, pick_device
from motif.probe import probe_questions
from motif.processes import ALONE, Processes
from motif.rounds import Rounds
from motif.session import open_task, window_of
from motif.tasks import Task

GIB = 2**30
DECODE_EFFICIENCY, UPDATE_EFFICIENCY = 0.3, 0.5
"""Share of the measured matrix-product rate that decoding and training reach; seen on a CPU with small models."""
STEP_OVERHEAD = 1e-4
"""Seconds a layer costs per decoding step however few rows there are."""


@dataclass(frozen=True)
class Shape:
    """What the estimates need to know of a model."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    vocabulary: int
    cache_per_token: int  # numbers (not bytes) of keys and values
    max_length: int


@dataclass(frozen=True)
class Plan:
    """Derived totals of a recipe on this machine. Memory in bytes (of each process), time in seconds."""

    recipe: Recipe
    shape: Shape
    device: str
    train_questions: int
    test_questions: int
    skipped: int
    prompt_tokens: int  # of a typical first-round prompt
    memory: dict[str, float]
    available: float
    step_seconds: float
    eval_seconds: float
    processes: int = 1

    @property
    def evaluations(self) -> int:
        """How often the run evaluates."""
        train, every = self.recipe.train, self.recipe.eval.every
        return (2 if train.steps else 1) + (max(0, train.steps - 1) // every if every else 0)

    @property
    def run_seconds(self) -> float:
        """Of the whole run, if every response used up its tokens."""
        return self.recipe.train.steps * self.step_seconds + self.evaluations * self.eval_seconds

    def rows(self) -> list[tuple[str, str]]:
        """What to show, as (name, text) pairs."""
        recipe, rollout = self.recipe, self.recipe.rollout
        generations = rollout.generations * rollout.questions_per_step
        limit = rollout.questions_per_step * (
            rollout.responses * rollout.tokens_first
            + (rollout.generations - rollout.responses) * rollout.tokens_continue
        )
        trained = "round 1" if recipe.credit.train_rounds == "first" else "all rounds"
        total = sum(self.memory.values())
        evaluations, duration = self.evaluations, _duration(self.run_seconds)
        tested = min(recipe.eval.questions, self.test_questions)
        counts = " and ".join(str(count) for count in recipe.eval_rounds)
        matched = f", and one of {recipe.matched_tokens:,} tokens" if recipe.eval.matched else ""
        skipped = f", {self.skipped:,} rows skipped" if self.skipped else ""
        parts = ", ".join(f"{name} {part / GIB:.1f}" for name, part in self.memory.items())
        steps, questions = recipe.train.steps, rollout.questions_per_step
        each = " for each process" if self.processes > 1 else ""
        counted = (
            "sampling on the servers not included" if recipe.sampler.urls else "if every response used up its tokens"
        )
        return [
            ("recipe", f"{recipe.name}: {recipe.about}" if recipe.about else recipe.name),
            (
                "model",
                f"{recipe.model.name}, {_count(self.shape.parameters)} parameters, {self._adapter()}, {self.device}",
            ),
            ("data", f"{self.train_questions:,} questions to train on, {self.test_questions:,} held out{skipped}"),
            (
                "each step",
                f"{questions} questions × {rollout.responses} responses × {rollout.trajectories} trajectories, "
                f"{rollout.rounds} rounds (branching {rollout.branching}): {generations:,} generations, "
                f"at most {limit:,} new tokens; trained: {trained}",
            ),
            ("the run", f"{steps:,} steps, {steps * questions:,} questions, {steps * generations:,} generations"),
            (
                "evaluation",
                f"{tested:,} questions at {counts} rounds{matched}, {evaluations} times" if tested else "none",
            ),
            *([("probe", self._probe())] if recipe.probe.questions else []),
            *([("processes", self._processes())] if self.processes > 1 else []),
            *([("sampling", self._servers())] if recipe.sampler.urls else []),
            ("memory", f"about {total / GIB:.1f} GiB of {self.available / GIB:.1f} GiB free{each}: {parts}"),
            ("time", f"very roughly {duration}, {counted}"),
        ]

    def refuse_if_too_big(self) -> None:
        """Stop before anything is loaded if the estimate exceeds the free memory.

        Raises:
            RecipeError: names the largest part and what makes it smaller.
        """
        total = sum(self.memory.values())
        if total <= self.available:
            return
        largest = max(self.memory, key=lambda name: self.memory[name])
        advice = {
            "weights": "a smaller model, model.dtype = 'bfloat16' or model.four_bit = true",
            "sampling": "a smaller rollout.max_rows, rollout.tokens_continue or rounds.note_tokens",
            "update": "a smaller train.microbatch_tokens, or train.activation_checkpointing = true",
            "optimiser": "a smaller model.lora_rank, or model.adapter = 'lora'",
        }[largest]
        raise RecipeError(
            f"this needs about {total / GIB:.1f} GiB, and {self.available / GIB:.1f} GiB are free on {self.device}. "
            f"The largest part is {largest} ({self.memory[largest] / GIB:.1f} GiB): use {advice}"
        )

    def _probe(self) -> str:
        probe, rollout, steps = self.recipe.probe, self.recipe.rollout, self.recipe.train.steps
        times = 2 + (max(0, steps - 1) // probe.every if probe.every else 0)
        continued = (rollout.responses + 2) * probe.continuations * (rollout.rounds - 1)
        total = probe.questions * (rollout.generations + continued)
        return f"{probe.questions:,} questions, at most {total:,} generations, {times} times; not in the time below"

    def _processes(self) -> str:
        questions = self.recipe.rollout.questions_per_step
        idle = self.processes - questions
        text = (
            f"{self.processes}, each with the whole model and the trees of up to {-(-questions // self.processes)} of "
        )
        text += f"{questions} questions"
        return text + (f"; {idle} of them have nothing to sample: raise rollout.questions_per_step" if idle > 0 else "")

    def _servers(self) -> str:
        sampler = self.recipe.sampler
        beside = ", each step's while the one before trains" if sampler.overlap else ""
        count = len(sampler.urls)
        return f"on {count} vLLM server{'s' if count > 1 else ''}{beside}: {', '.join(sampler.urls)}"

    def _adapter(self) -> str:
        model = self.recipe.model
        return f"LoRA r = {model.lora_rank}" if model.adapter == "lora" else "all weights trained"


def make_plan(recipe: Recipe, processes: Processes = ALONE) -> tuple[Plan, Task]:
    """Plan a run from the model's configuration and the data, without loading any weights; returns the loaded task too.

    Args:
        processes: among which the questions of a step and of an evaluation are divided.

    Raises:
        RecipeError, BadRows: the model cannot be found or the data cannot be used.
    """
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    shape = model_shape(recipe.model.name)
    tokenizer = load_tokenizer(recipe.model.name)
    task = open_task(recipe, tokenizer, window_of(recipe, shape.max_length))
    if not task.train:
        raise RecipeError(f"task {task.name!r} has no training questions: set data.train")
    probe_questions(task, recipe)  # refuses more than there are
    device = pick_device(recipe.model.device)
    rounds = Rounds(recipe.rounds, tokenizer)
    sample = [len(rounds.prompt(question.text, [], recipe.rollout.rounds)) for question in task.train[:50]]
    prompt = round(sum(sample) / len(sample))
    rate = _matmul_rate(device, shape)
    share = -(-recipe.rollout.questions_per_step // processes.count)
    one = recipe.model_copy(update={"rollout": recipe.rollout.model_copy(update={"questions_per_step": share})})
    plan = Plan(
        recipe=recipe,
        shape=shape,
        device=str(device),
        train_questions=len(task.train),
        test_questions=len(task.test),
        skipped=len(task.skipped),
        prompt_tokens=prompt,
        memory=_memory(one, shape, device, prompt, processes.count if recipe.train.shard_optimizer else 1),
        available=_available(device) / (processes.local_count if device.type == "cpu" else 1),
        step_seconds=_step_seconds(one, shape, prompt, rate),
        eval_seconds=_eval_seconds(recipe, shape, len(task.test), rate) / processes.count,
        processes=processes.count,
    )
    return plan, task


def model_shape(name: str) -> Shape:
    """A model's sizes from its configuration alone.

    Raises:
        RecipeError: the model cannot be found.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config: Any = AutoConfig.from_pretrained(locate(name))
    except RecipeError:
        raise
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise RecipeError(f"model {name!r} could not be found: {first}") from error
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_heads = getattr(config, "num_key_value_heads", None) or heads
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        vocabulary=config.vocab_size,
        cache_per_token=2 * config.num_hidden_layers * key_heads * head_size,
        max_length=context_limit(config),
    )


def _memory(recipe: Recipe, shape: Shape, device: torch.device, prompt: int, shards: int) -> dict[str, float]:
    rollout, model, train = recipe.rollout, recipe.model, recipe.train
    half = model.dtype == "bfloat16" or (model.dtype == "auto" and device.type == "cuda")
    size = 0.6 if model.four_bit else 2 if half and model.adapter == "lora" else 4
    # Sampling has weights of its own: the adapter folded in, or on a CPU those laid out for few rows.
    copied = not model.four_bit and (model.adapter == "lora" or (device.type == "cpu" and not half))
    copy = size * shape.parameters if copied else 0
    linear = 4 * shape.hidden * shape.hidden + 3 * shape.hidden * shape.intermediate
    adapter = shape.layers * model.lora_rank * (8 * shape.hidden + 3 * (shape.hidden + shape.intermediate))
    trainable = shape.parameters if model.adapter == "full" else min(adapter, shape.layers * linear)
    rows = min(rollout.max_rows, rollout.questions_per_step * rollout.responses * rollout.trajectories)
    length = (
        prompt
        + min(recipe.rounds.note_tokens, rollout.tokens_first)
        + max(rollout.tokens_first, rollout.tokens_continue)
    )
    activation = 2 if half else 4
    per_token = shape.layers * (14 * shape.hidden + 5 * shape.intermediate)
    if train.activation_checkpointing:
        per_token = shape.layers * shape.hidden + 14 * shape.hidden + 5 * shape.intermediate
    # A pass over responses beside the prompts they share, which stay until all that follows them is done.
    shared = max(prompt, min(train.microbatch_tokens, rollout.questions_per_step * prompt))
    tokens = max(train.microbatch_tokens, length) + shared
    sampling = copy + rows * (length * shape.cache_per_token * activation + 16.0 * shape.vocabulary)
    return {
        "weights": 0.5 * GIB + size * shape.parameters,  # half a GiB for Python and the libraries
        "sampling": 0.0 if recipe.sampler.urls else sampling,
        "update": activation * tokens * per_token + 4 * 4 * 2.0**24,
        "optimiser": (8.0 + 8.0 / shards) * trainable,  # value, gradient and two moments, float32
    }


def _available(device: torch.device) -> float:
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    import psutil

    return float(psutil.virtual_memory().available)


def _matmul_rate(device: torch.device, shape: Shape) -> float:
    """FLOP per second of matrix products of this model's size on this device."""
    a = torch.randn(64, shape.hidden, device=device)
    b = torch.randn(shape.hidden, shape.intermediate, device=device)
    torch.mm(a, b)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.25:
        for _ in range(10):
            c = torch.mm(a, b)
        count += 10
    c.sum().item()  # waits for the device
    return 2.0 * a.shape[0] * shape.hidden * shape.intermediate * count / (time.perf_counter() - start)


def _step_seconds(recipe: Recipe, shape: Shape, prompt: int, rate: float) -> float:
    rollout = recipe.rollout
    first = rollout.questions_per_step * rollout.responses
    later = rollout.questions_per_step * (rollout.generations - rollout.responses)
    new = first * rollout.tokens_first + later * rollout.tokens_continue
    prefill = rollout.questions_per_step * prompt + later / max(1, rollout.branching[-1]) * prompt
    rows = min(rollout.max_rows, first * rollout.trajectories)
    trained = first if recipe.credit.train_rounds == "first" else first + later
    updated = trained * (prompt + rollout.tokens_first)
    sampling = (
        2.0 * shape.parameters * (new + prefill) / (DECODE_EFFICIENCY * rate)
        + new / rows * shape.layers * STEP_OVERHEAD
    )
    if recipe.sampler.urls:
        sampling = 0.0
    return sampling + 6.0 * shape.parameters * updated * recipe.loss.inner_epochs / (UPDATE_EFFICIENCY * rate)


def _eval_seconds(recipe: Recipe, shape: Shape, held_out: int, rate: float) -> float:
    if recipe.sampler.urls:
        return 0.0
    answers = answers_in(recipe, min(recipe.eval.questions, held_out))
    each = [row.tokens_first + (row.rounds - 1) * row.tokens_continue for row in rows(recipe)]
    tokens = answers * sum(each) / len(each)
    batch = max(1, min(recipe.rollout.max_rows, answers / len(each)))
    return 2.0 * shape.parameters * tokens / (DECODE_EFFICIENCY * rate) + tokens / batch * shape.layers * STEP_OVERHEAD


def _count(number: int) -> str:
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e3, "K")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _duration(seconds: float) -> str:
    from motif.display import duration

    return duration(seconds)
