"""One optimiser step (or several) on the trained nodes of a step's trees."""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from motif.config import Recipe, TrainConfig
from motif.distributed import ALONE, Processes
from motif.errors import OutOfResources, out_of_memory
from motif.method.tree import Tree
from motif.models.policy import LOGIT_ELEMENTS, Policy
from motif.models.prefix import KeysValues, Segment, batches, build_prefix_tree, common_prefix_length, forward
from motif.models.sharding import full_tensor
from motif.training.loss import LossInputs, policy_loss, token_weights

T = TypeVar("T")
Gradient = Callable[[], Tensor | None]
"""A gradient that is known when it is asked for."""


@dataclass(frozen=True)
class Sample:
    """One response to train on: token ids as sampled, and what its tokens weigh in the loss."""

    prompt_ids: list[int]
    token_ids: list[int]
    sampler_logprobs: list[float]
    advantage: float
    temperature: float
    weight: float  # of each of its tokens, see `motif.training.loss.token_weights`
    name: str = ""  # question id and node path, as `train-17/2.0`

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass
class UpdateStats:
    """What an update did, in sums over its response tokens (`tokens` counts each inner epoch anew)."""

    tokens: int = 0
    computed_tokens: int = 0  # forward and backward, prompts and padding included
    loss: float = 0.0
    entropy: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    sampler_gap: float = 0.0
    sampler_gap_max: float = 0.0  # a maximum, no sum
    capped: float = 0.0
    grad_norm: float = 0.0
    updates: int = 0
    skipped: int = 0  # optimiser steps not taken, because their gradient was not finite; not in the sums above
    causes: list[str] = field(default_factory=list)  # names of the samples that made it so


@dataclass
class Budget:
    """Tokens that go through the model at once: as the recipe says, and fewer from when these did not fit in memory."""

    asked: int
    fits: int | None = None

    @property
    def tokens(self) -> int:
        """So many now."""
        return min(self.asked, self.fits or self.asked)


def collect(trees: Sequence[Tree], recipe: Recipe) -> list[Sample]:
    """The samples of a batch: every node with a non-zero advantage, weighted as part of the whole batch.

    Nodes of dead groups (advantage 0) have no gradient and are left out, but they count in the weights, so leaving
    them out changes nothing. With a KL penalty they do have a gradient and stay.
    """
    rollout = recipe.rollout
    named = [(tree.question.id, node) for tree in trees for node in tree.walk() if node.advantage is not None]
    nodes = [node for _, node in named]
    longest = max(rollout.tokens_first, rollout.tokens_continue if recipe.credit.train_rounds == "all" else 0)
    weights = token_weights([len(node.token_ids) for node in nodes], recipe.loss.kind, longest)
    return [
        Sample(
            prompt_ids=node.prompt_ids,
            token_ids=node.token_ids,
            sampler_logprobs=node.logprobs,
            advantage=node.advantage or 0.0,
            temperature=rollout.temperature_first if node.round == 1 else rollout.temperature_continue,
            weight=weight,
            name=f"{question}/{'.'.join(map(str, node.path))}",
        )
        for (question, node), weight in zip(named, weights, strict=True)
        if node.advantage or recipe.loss.kl_beta
    ]


def make_optimizer(
    parameters: Sequence[nn.Parameter], config: TrainConfig, processes: Processes = ALONE
) -> torch.optim.Optimizer:
    """AdamW with learning rate 0; with `shard = "optimizer"` its state is spread over the processes."""
    options: dict[str, Any] = {"betas": config.betas, "weight_decay": config.weight_decay, "lr": 0.0}
    if config.shard == "optimizer" and processes.count > 1:
        from torch.distributed.optim import ZeroRedundancyOptimizer

        return ZeroRedundancyOptimizer(parameters, torch.optim.AdamW, **options)
    return torch.optim.AdamW(parameters, **options)


def update(
    policy: Policy,
    optimizer: torch.optim.Optimizer,
    samples: Sequence[Sample],
    recipe: Recipe,
    processes: Processes = ALONE,
    budget: Budget | None = None,
) -> UpdateStats:
    """Train on `samples` for `inner_epochs` × `minibatches` optimiser steps.

    Gradients of micro-batches are summed before clipping, and the weights are those of the whole batch, so the result
    does not depend on the token budget beyond rounding. An optimiser step whose gradient is not finite is not taken:
    the weights and the optimiser's state stay as they are, bit for bit, and it is counted in `skipped`.

    Args:
        samples: of the whole batch, the same in every process.
        processes: among which every minibatch is divided; they take the same optimiser steps.
        budget: of tokens; by default the recipe's. Halved for good, and the pass made again, where memory runs out.

    Raises:
        OutOfResources: not even the longest sequence by itself fits in memory.
    """
    config, budget = recipe.loss, budget or Budget(recipe.train.microbatch_tokens)
    stats = UpdateStats()
    policy.reshard()
    parts = min(config.minibatches, len(samples))
    # `parts` makes an optimiser step on a part weigh like the whole.
    shares = [split_by_work(samples[start::parts], processes.count)[processes.rank] for start in range(parts)]
    minibatches = [_Batch(policy, share, scale=parts, processes=processes) for share in shares]
    for batch in minibatches:
        if parts * config.inner_epochs > 1:
            batch.old_T = _fitting(batch, budget, batch.logprobs)
        if config.kl_beta:
            with policy.adapter_disabled():
                batch.reference_T = _fitting(batch, budget, batch.logprobs)
    for _ in range(config.inner_epochs):
        for batch in minibatches:
            before = stats
            stats = _fitting(batch, budget, functools.partial(_fresh_gradient, batch, recipe, optimizer, before))
            if not policy.shards:  # which sum them on the way
                processes.sum_gradients(policy.trainable())
            norm = full_tensor(torch.nn.utils.clip_grad_norm_(policy.trainable(), recipe.train.max_grad_norm))
            if not torch.isfinite(norm):  # the same in all processes
                stats = _without(stats, before, batch, processes)
                optimizer.zero_grad(set_to_none=True)
                continue
            optimizer.step()
            stats.grad_norm += norm.item()
            stats.updates += 1
    return _summed(stats, processes)


def _fresh_gradient(
    batch: _Batch, recipe: Recipe, optimizer: torch.optim.Optimizer, stats: UpdateStats, budget: int
) -> UpdateStats:
    """Put the gradient of a batch in place of whatever there is; returns `stats` with what that took."""
    after = replace(stats)
    optimizer.zero_grad(set_to_none=True)
    with batch.policy.activation_checkpointing(recipe.train.activation_checkpointing):
        batch.gradient(recipe, budget, after)
    return after


def _fitting(batch: _Batch, budget: Budget, work: Callable[[int], T]) -> T:
    """What `work` makes of a budget in tokens, which is halved until it fits in memory.

    Raises:
        OutOfResources: the longest sequence does not fit by itself.
    """
    while True:
        try:
            return work(budget.tokens)
        except Exception as error:
            if not out_of_memory(error):
                raise
            if batch.policy.shards:
                raise OutOfResources(
                    "out of memory in the update, in the middle of an exchange with the other processes: lower "
                    "train.microbatch_tokens, and say --allow-changes"
                ) from error
            if budget.tokens == 1:  # every piece has been by itself
                longest = max(sample.length for sample in batch.samples)
                raise OutOfResources(
                    f"out of memory in the update, with a single sequence of {longest:,} tokens: set "
                    "train.activation_checkpointing = true, or lower rollout.tokens_first or rollout.tokens_continue, "
                    "and say --allow-changes"
                ) from error
        # Here, after the handler: the error's traceback held the tensors of the pass that failed.
        whole = sum(sample.length for sample in batch.samples)
        budget.fits = max(1, min(budget.tokens, whole) // 2)
        gc.collect()
        if batch.policy.device.type == "cuda":
            torch.cuda.empty_cache()


def _without(stats: UpdateStats, before: UpdateStats, batch: _Batch, processes: Processes) -> UpdateStats:
    """The numbers without those of an optimiser step that was not taken, but with its work and what made it so."""
    found = list(itertools.chain(*processes.gather(batch.nonfinite())))
    if not found:  # it overflowed on the way to the weights, in a sum of all
        found = list(itertools.chain(*processes.gather([sample.name for sample in batch.samples])))
    causes = list(dict.fromkeys([*stats.causes, *found]))
    return replace(before, computed_tokens=stats.computed_tokens, skipped=stats.skipped + 1, causes=causes)


SAME = ("grad_norm", "updates", "skipped", "causes", "sampler_gap_max")
"""Numbers that are the same in each process, or no sums."""


def _summed(stats: UpdateStats, processes: Processes) -> UpdateStats:
    """What all processes did."""
    names = [field.name for field in fields(stats) if field.name not in SAME]
    stats.sampler_gap_max = max(processes.gather(stats.sampler_gap_max))
    sums = processes.total([getattr(stats, name) for name in names])
    for name, value in zip(names, sums, strict=True):
        setattr(stats, name, value)
    return stats


def split_by_work(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """Cut a batch into parts of about equal work, some of them empty if there are few samples.

    In the order of their prompts, so that most of what samples share stays in one part; work is measured in tokens,
    shared ones counted once.
    """
    if count == 1 or not samples:
        return [list(samples), *([] for _ in range(count - 1))]
    ordered = sorted(samples, key=lambda sample: sample.prompt_ids)
    before: list[Sequence[int]] = [[], *(sample.prompt_ids for sample in ordered[:-1])]
    work = [
        sample.length - common_prefix_length(sample.prompt_ids, prompt)
        for sample, prompt in zip(ordered, before, strict=True)
    ]
    ends = list(itertools.accumulate(work))
    parts: list[list[Sample]] = [[] for _ in range(count)]
    for sample, own, end in zip(ordered, work, ends, strict=True):
        parts[int(count * (end - own / 2) / ends[-1])].append(sample)
    return parts


class _Batch:
    """The samples of one optimiser step. All response tokens lie in one flat vector, sample after sample."""

    def __init__(self, policy: Policy, samples: Sequence[Sample], scale: float = 1.0, processes: Processes = ALONE):
        self.policy, self.samples, self.processes = policy, samples, processes
        lengths = torch.tensor([len(sample.token_ids) for sample in samples], dtype=torch.long)

        def spread(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32).repeat_interleave(lengths).to(policy.device)

        def joined(rows: Iterable[Sequence[float]], dtype: torch.dtype) -> Tensor:
            return torch.tensor([value for row in rows for value in row], dtype=dtype, device=policy.device)

        self.targets_T = joined((sample.token_ids for sample in samples), torch.long)
        self.sampler_T = joined((sample.sampler_logprobs for sample in samples), torch.float32)
        self.advantages_T = spread([sample.advantage for sample in samples])
        self.weights_T = spread([sample.weight * scale for sample in samples])
        self.temperatures_T_1 = spread([sample.temperature for sample in samples]).unsqueeze(-1)
        self.old_T: Tensor | None = None
        self.reference_T: Tensor | None = None
        self.nonfinite_T = torch.zeros(len(self.targets_T), dtype=torch.bool, device=policy.device)

    def nonfinite(self) -> list[str]:
        """Names of samples with a token whose loss had a gradient that is not finite."""
        tokens = self.nonfinite_T.cpu().split([len(sample.token_ids) for sample in self.samples])
        return [sample.name for sample, own in zip(self.samples, tokens, strict=True) if bool(own.any())]

    @torch.no_grad()
    def logprobs(self, budget: int) -> Tensor:
        """Log-probabilities (T,) under the weights in force."""
        result_T = torch.empty_like(self.sampler_T)

        def keep(states: Tensor, at: Tensor) -> None:
            result_T[at] = self.policy.score(states, self.targets_T[at], self.temperatures_T_1[at])[0]

        self._sweeps(budget, keep, UpdateStats())
        self.policy.reshard()
        return result_T

    def gradient(self, recipe: Recipe, budget: int, stats: UpdateStats) -> None:
        """Add the gradient of the batch's loss to the parameters'."""

        def backward(states: Tensor, at: Tensor) -> None:
            logprobs_T, entropies_T = self.policy.score(states, self.targets_T[at], self.temperatures_T_1[at])
            inputs = LossInputs(
                logprobs_T=logprobs_T,
                # With a single update the old policy is the current one, and needs no pass of its own.
                old_logprobs_T=logprobs_T.detach() if self.old_T is None else self.old_T[at],
                sampler_logprobs_T=self.sampler_T[at],
                advantages_T=self.advantages_T[at],
                weights_T=self.weights_T[at],
                reference_logprobs_T=None if self.reference_T is None else self.reference_T[at],
            )
            outputs = policy_loss(inputs, recipe.loss)
            outputs.loss.backward()
            if states.grad is not None:
                self.nonfinite_T[at] = ~torch.isfinite(states.grad).all(-1)
            stats.tokens += len(at)
            stats.loss += outputs.loss.item()
            stats.entropy += entropies_T.sum().item()
            stats.kl += outputs.kl.item()
            stats.clipped += outputs.clipped.item()
            stats.sampler_gap += outputs.sampler_gap.item()
            stats.sampler_gap_max = max(stats.sampler_gap_max, outputs.sampler_gap_max.item())
            stats.capped += outputs.capped.item()

        self._sweeps(budget, backward, stats)

    def _sweeps(self, budget: int, score: Callable[[Tensor, Tensor], None], stats: UpdateStats) -> None:
        parts = groups(self.samples, budget)
        (most,) = self._most(len(parts))
        for part in [*parts, *[[]] * (most - len(parts))]:
            self._sweep(part, budget, score, stats)

    def _most(self, *counts: int) -> tuple[int, ...]:
        """The largest numbers of any process where weights are sharded, and all must make equally many passes."""
        return tuple(map(max, *self.processes.gather(counts))) if self.policy.shards else counts

    def _sweep(
        self, part: Sequence[int], budget: int, score: Callable[[Tensor, Tensor], None], stats: UpdateStats
    ) -> None:
        """Run some samples through the model; what they begin with in common is run once.

        `score(states (R, D), at (R,))` gets the states before the response tokens at these places of the flat vector,
        in pieces whose logits fit in memory, and each state once for every token that follows it. If it runs a
        backward pass down to the states, this method takes the gradient on from there. A shared segment's keys and
        values collect the gradients of all that comes after it, and are then sent through it in one backward pass.
        """
        root = Segment()
        # The last token of a response predicts nothing.
        ends = build_prefix_tree(root, [[*self.samples[i].prompt_ids, *self.samples[i].token_ids[:-1]] for i in part])
        places = self._places(part, ends)
        inner, leaves = _passes(root, budget)
        inners, most = self._most(len(inner), len(leaves))

        def run(segments: Sequence[Segment]) -> tuple[list[Tensor], list[Gradient], dict[int, KeysValues]]:
            with self.policy.precision():
                hidden, fresh = forward(self.policy, segments)
            stats.computed_tokens += hidden.shape[0] * hidden.shape[1]
            return *self._score(segments, hidden, places, score), fresh

        shared: list[tuple[list[Tensor], list[Gradient]]] = []
        for segments in _padded(inner, inners):
            outputs, gradients, fresh = run(segments)
            below = detach_kv_for_children(segments, fresh)
            shared.append((outputs + [t for t, _ in below], gradients + [g for _, g in below]))
        for segments in _padded(leaves, most):
            outputs, gradients, _ = run(segments)
            _backward(outputs, gradients)
        while shared:
            _backward(*shared.pop())

    def _places(self, part: Sequence[int], ends: Sequence[Segment]) -> dict[Segment, list[tuple[int, int]]]:
        """For each segment, which of its states (offset) come before which token of the flat vector."""
        offsets = [0, *itertools.accumulate(len(sample.token_ids) for sample in self.samples)]
        places: dict[Segment, list[tuple[int, int]]] = {}
        for index, end in zip(part, ends, strict=True):
            before = len(self.samples[index].prompt_ids) - 1  # position of the state before the first response token
            for segment in end.path():
                places.setdefault(segment, []).extend(
                    (position - segment.start, offsets[index] + position - before)
                    for position in range(max(before, segment.start), segment.end)
                )
        return places

    def _score(
        self,
        segments: Sequence[Segment],
        hidden: Tensor,
        places: dict[Segment, list[tuple[int, int]]],
        score: Callable[[Tensor, Tensor], None],
    ) -> tuple[list[Tensor], list[Gradient]]:
        found = [
            (row * hidden.shape[1] + offset, at)
            for row, segment in enumerate(segments)
            for offset, at in places.get(segment, ())
        ]
        if not found:
            # Sharded weights are exchanged in every layer's backward pass, so there must be one.
            through = self.policy.shards and hidden.requires_grad
            return ([hidden], [lambda: torch.zeros_like(hidden)]) if through else ([], [])
        which, at = torch.tensor(found, device=hidden.device).unbind(1)
        states = hidden.flatten(0, 1)[which]
        # A leaf of its own for each piece: its logits are gone before those of the next are made.
        pieces = [piece.detach().requires_grad_(hidden.requires_grad) for piece in self._pieces(states)]
        with self.policy.precision():
            for piece, at_piece in zip(pieces, self._pieces(at), strict=True):
                score(piece, at_piece)
        if not hidden.requires_grad:
            return [], []
        return [states], [lambda: torch.cat([piece.grad for piece in pieces if piece.grad is not None])]

    def _pieces(self, tensor: Tensor) -> Sequence[Tensor]:
        return tensor.split(max(1, LOGIT_ELEMENTS // self.policy.vocabulary))


def _passes(root: Segment, budget: int) -> tuple[list[list[Segment]], list[list[Segment]]]:
    """The segments below `root` in batches: those that others follow, parents first, and those that end a sequence."""
    inner: list[list[Segment]] = []
    leaves: list[list[Segment]] = []
    level = root.children
    while level:
        followed = [segment for segment in level if segment.children]
        inner += batches(followed, budget)
        leaves += batches([segment for segment in level if not segment.children], budget)
        level = [child for segment in followed for child in segment.children]
    return inner, leaves


def _padded(passes: list[list[Segment]], count: int) -> list[list[Segment]]:
    """So many passes; those that are missing are over one token, of which nothing is scored."""
    return passes + [[Segment([0], Segment())] for _ in range(count - len(passes))]


def detach_kv_for_children(segments: Sequence[Segment], fresh: dict[int, KeysValues]) -> list[tuple[Tensor, Gradient]]:
    """Give segments their keys and values, cut from the graph; returns the fresh ones with where their gradient is."""
    below: list[tuple[Tensor, Gradient]] = []
    for layer, pair in fresh.items():
        seen = []
        for tensor in pair:
            leaves = [
                tensor[row, :, : len(segment.tokens)].detach().requires_grad_(tensor.requires_grad)
                for row, segment in enumerate(segments)
            ]
            if tensor.requires_grad:
                below.append((tensor, functools.partial(_stacked, leaves, tensor.shape[2])))
            seen.append(leaves)
        for segment, keys, values in zip(segments, *seen, strict=True):
            segment.keys_values[layer] = keys, values
    return below


def _stacked(leaves: Sequence[Tensor], length: int) -> Tensor | None:
    """The gradients of leaves (heads, T, head size), padded to `length` and stacked."""
    if all(leaf.grad is None for leaf in leaves):
        return None
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return torch.stack([F.pad(gradient, (0, 0, 0, length - gradient.shape[1])) for gradient in gradients])


def _backward(outputs: Sequence[Tensor], gradients: Sequence[Gradient]) -> None:
    """One backward pass from all outputs that have a gradient by now."""
    pairs = [(output, gradient()) for output, gradient in zip(outputs, gradients, strict=True)]
    pairs = [(output, gradient) for output, gradient in pairs if gradient is not None]
    if pairs:
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def groups(samples: Sequence[Sample], budget: int) -> list[list[int]]:
    """Cut samples (by index) into groups whose prompts, shared parts counted once, have at most `budget` tokens.

    The activations of shared prompts are kept until all that follows them is done, so this bounds memory. A single
    prompt longer than the budget gets a group of its own.
    """
    cut: list[list[int]] = []
    tokens = 0
    previous: list[int] = []
    for index in sorted(range(len(samples)), key=lambda index: samples[index].prompt_ids):
        prompt = samples[index].prompt_ids
        fresh = len(prompt) - common_prefix_length(prompt, previous)
        if cut and tokens + fresh <= budget:
            cut[-1].append(index)
            tokens += fresh
        else:
            cut.append([index])
            tokens = len(prompt)
        previous = prompt
    return cut
