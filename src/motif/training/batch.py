"""The samples of an optimiser step, and the passes of the model over them.

Shapes: T response tokens of all samples, one after the other; D the model's width; R the response tokens of one piece.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from motif.config import Recipe
from motif.distributed import ALONE, Processes
from motif.method.rounds import Rounds
from motif.method.tree import Node, Tree
from motif.models.launches import AdapterCopies, fewer_launches
from motif.models.policy import Policy
from motif.models.prefix import (
    MIN_SHARED_TOKENS,
    Fresh,
    Segment,
    batches,
    build_prefix_tree,
    common_prefix_length,
    forward,
    forward_alone,
    shortest_shared,
    worth_a_pass,
)
from motif.training.loss import LossInputs, policy_loss, token_weights

Gradient = Callable[[], Tensor | None]
"""Returns the gradient of an output, once everything that follows the output has had its backward pass."""
Score = Callable[[Tensor, Tensor], None]
"""Takes states (R, D) and the places (R,) in the flat vector of the response tokens that follow them."""
Places = dict[Segment, list[tuple[int, int]]]
"""For each segment, pairs: the offset of a state in it, and the place in the flat vector of the token that follows."""


SUMS = ("loss", "surprise", "entropy", "kl", "clipped", "sampler_gap", "capped")
"""Statistics that are sums over pieces of a pass, in the order of `UpdateStats.add`."""
CAUSES = 20
"""Names of samples written down for a step, at most."""


@dataclass(frozen=True)
class Sample:
    """One response to train on: token ids as sampled, and the weight of its tokens in the loss."""

    prompt_ids: list[int]
    token_ids: list[int]
    sampler_logprobs: list[float]  # none, if the response was given and not sampled
    advantage: float
    temperature: float
    weight: float  # of each of its tokens, see `motif.training.loss.token_weights`
    name: str = ""  # question id and node path, as `train-17/2.0`
    part: tuple[int, int] | None = None  # its tokens that are trained, from the first to before the second; None: all

    @property
    def length(self) -> int:
        """Tokens of prompt and response."""
        return len(self.prompt_ids) + len(self.token_ids)


@dataclass
class UpdateStats:
    """What an update did, as sums over its response tokens (`tokens` counts every inner epoch)."""

    tokens: int = 0
    computed_tokens: int = 0  # forward and backward, prompts and padding included
    loss: float = 0.0
    surprise: float = 0.0  # -log p of the tokens
    entropy: float = 0.0
    kl: float = 0.0
    clipped: float = 0.0
    sampler_gap: float = 0.0
    sampler_gap_max: float = 0.0  # a maximum, not a sum
    capped: float = 0.0
    grad_norm: float = 0.0
    updates: int = 0
    skipped: int = 0  # optimiser steps not taken because their gradient was not finite; not in the sums above
    causes: list[str] = field(default_factory=list)  # names of the samples whose gradient was not finite

    def add(self, pieces: Sequence[Tensor]) -> None:
        """Add numbers of pieces, each (8,): those of `SUMS`, and the largest gap."""
        for *sums, largest in torch.stack(list(pieces)).tolist() if pieces else ():
            for name, value in zip(SUMS, sums, strict=True):
                setattr(self, name, getattr(self, name) + value)
            self.sampler_gap_max = max(self.sampler_gap_max, largest)

    def metrics(self) -> dict[str, Any]:
        """The lines of metrics about an update, as means; None where nothing was trained."""
        metrics: dict[str, Any] = {"update/skipped": self.skipped}
        if self.skipped:
            metrics["update/causes"] = self.causes[:CAUSES]
        means = {
            "loss": (self.loss, self.updates),
            "grad_norm": (self.grad_norm, self.updates),
            "entropy": (self.entropy, self.tokens),
            "kl": (self.kl, self.tokens),
            "clip_ratio": (self.clipped, self.tokens),
            "sampler/mean_gap": (self.sampler_gap, self.tokens),
            "sampler/capped": (self.capped, self.tokens),
        }
        metrics |= {name: total / count if self.tokens else None for name, (total, count) in means.items()}
        return metrics | {"sampler/max_gap": self.sampler_gap_max if self.tokens else None}


def collect(trees: Sequence[Tree], recipe: Recipe, rounds: Rounds | None = None) -> list[Sample]:
    """The samples of a batch: every node with a non-zero advantage, weighted as part of the whole batch.

    Nodes of dead groups (advantage 0) have no gradient and are left out. They still count in the weights, so leaving
    them out changes nothing. With a KL penalty they have a gradient and stay. Where `credit.tokens` trains a part of
    the tokens only, a response is as long as that part, and one without any is not there.

    Args:
        rounds: finds the notes in responses, for `credit.tokens`; None: all tokens are trained, as of demonstrations.
    """
    rollout = recipe.rollout
    named = [(tree.question.id, node) for tree in trees for node in tree.walk() if node.advantage is not None]
    parts = [trained_part(node, recipe.credit.tokens, rounds) for _, node in named]
    kept = [(*pair, part) for pair, part in zip(named, parts, strict=True) if part is None or part[0] < part[1]]
    lengths = [len(node.token_ids) if part is None else part[1] - part[0] for _, node, part in kept]
    longest = max(rollout.tokens_first, rollout.tokens_continue if recipe.credit.train_rounds == "all" else 0)
    weights = token_weights(lengths, recipe.loss.kind, longest)
    return [
        Sample(
            prompt_ids=node.prompt_ids,
            token_ids=node.token_ids,
            sampler_logprobs=node.logprobs,
            advantage=node.advantage or 0.0,
            temperature=rollout.temperature_first if node.round == 1 else rollout.temperature_continue,
            weight=weight,
            name=f"{question}/{'.'.join(map(str, node.path))}",
            part=part,
        )
        for (question, node, part), weight in zip(kept, weights, strict=True)
        if node.advantage or recipe.loss.kl_beta
    ]


def trained_part(node: Node, tokens: str, rounds: Rounds | None) -> tuple[int, int] | None:
    """The tokens of a response that `credit.tokens` trains, from the first to before the second; None: all of them."""
    if tokens == "all" or rounds is None:
        return None
    end = len(node.token_ids)
    note = rounds.note_begins(node.token_ids) if node.children else end  # nobody reads a note of the last round
    return (note, end) if tokens == "notes" else (0, note)


def split_by_work(samples: Sequence[Sample], count: int) -> list[list[Sample]]:
    """Split a batch into parts of about equal work, some of them empty if there are few samples.

    Samples are ordered by their prompts, so that most of what they share stays in one part. Work is measured in tokens;
    shared ones count once.
    """
    if count == 1 or not samples:
        return [list(samples), *([] for _ in range(count - 1))]
    ordered = sorted(samples, key=lambda sample: sample.prompt_ids)
    previous: list[Sequence[int]] = [[], *(sample.prompt_ids for sample in ordered[:-1])]
    work = [
        sample.length - common_prefix_length(sample.prompt_ids, prompt)
        for sample, prompt in zip(ordered, previous, strict=True)
    ]
    ends = list(itertools.accumulate(work))
    parts: list[list[Sample]] = [[] for _ in range(count)]
    for sample, tokens, end in zip(ordered, work, ends, strict=True):
        parts[int(count * (end - tokens / 2) / ends[-1])].append(sample)
    return parts


def groups(samples: Sequence[Sample], budget: int) -> list[list[int]]:
    """Split samples (by index) into groups whose prompts, shared parts counted once, have at most `budget` tokens.

    The activations of shared prompts are kept until all that follows them is done, so this bounds memory. A single
    prompt longer than the budget gets a group of its own.
    """
    split: list[list[int]] = []
    tokens = 0
    previous: list[int] = []
    for index in sorted(range(len(samples)), key=lambda index: samples[index].prompt_ids):
        prompt = samples[index].prompt_ids
        fresh = len(prompt) - common_prefix_length(prompt, previous)
        if split and tokens + fresh <= budget:
            split[-1].append(index)
            tokens += fresh
        else:
            split.append([index])
            tokens = len(prompt)
        previous = prompt
    return split


class Minibatch:
    """The samples of one optimiser step. All response tokens lie in one flat vector, sample after sample."""

    def __init__(self, policy: Policy, samples: Sequence[Sample], scale: float = 1.0, processes: Processes = ALONE):
        self.policy, self.samples, self.processes = policy, samples, processes
        self.worth = worth_a_pass(policy)
        lengths = torch.tensor([len(sample.token_ids) for sample in samples], dtype=torch.long)

        def repeated(values: Sequence[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32).repeat_interleave(lengths).to(policy.device)

        def concatenated(rows: Iterable[Sequence[float]], dtype: torch.dtype) -> Tensor:
            return torch.tensor([value for row in rows for value in row], dtype=dtype, device=policy.device)

        self.targets_T = concatenated((sample.token_ids for sample in samples), torch.long)
        self.given = all(not sample.sampler_logprobs for sample in samples)
        self.sampler_T = concatenated((sample.sampler_logprobs for sample in samples), torch.float32)
        self.advantages_T = repeated([sample.advantage for sample in samples])
        self.weights_T = repeated([sample.weight * scale for sample in samples])
        self.temperatures_T_1 = repeated([sample.temperature for sample in samples]).unsqueeze(-1)
        self.old_T: Tensor | None = None
        self.reference_T: Tensor | None = None
        self.nonfinite_T = torch.zeros(len(self.targets_T), dtype=torch.bool, device=policy.device)

    def nonfinite(self) -> list[str]:
        """Names of the samples with a token whose loss had a gradient that is not finite."""
        by_sample = self.nonfinite_T.cpu().split([len(sample.token_ids) for sample in self.samples])
        return [sample.name for sample, flags in zip(self.samples, by_sample, strict=True) if bool(flags.any())]

    @torch.no_grad()
    def logprobs(self, budget: int) -> Tensor:
        """Log-probabilities (T,) under the current weights, at most `budget` tokens in a pass."""
        logprobs_T = torch.empty_like(self.advantages_T)

        def keep(states: Tensor, at: Tensor) -> None:
            logprobs_T[at] = self.policy.score(states, self.targets_T[at], self.temperatures_T_1[at])[0]

        self.run_all(budget, keep, UpdateStats())
        self.policy.reshard()
        return logprobs_T

    def gradient(self, recipe: Recipe, budget: int, stats: UpdateStats) -> None:
        """Add the gradient of the batch's loss to the parameters' and its numbers to `stats`."""
        sums: list[Tensor] = []  # read at the end: asking a GPU for each number would stop it each time

        def backward(states: Tensor, at: Tensor) -> None:
            logprobs_T, entropies_T = self.policy.score(states, self.targets_T[at], self.temperatures_T_1[at])
            # With a single update the old policy is the current one, and needs no pass of its own.
            old_T = logprobs_T.detach() if self.old_T is None else self.old_T[at]
            inputs = LossInputs(
                logprobs_T=logprobs_T,
                old_logprobs_T=old_T,
                sampler_logprobs_T=old_T if self.given else self.sampler_T[at],
                advantages_T=self.advantages_T[at],
                weights_T=self.weights_T[at],
                reference_logprobs_T=None if self.reference_T is None else self.reference_T[at],
            )
            outputs = policy_loss(inputs, recipe.loss)
            outputs.loss.backward()
            if states.grad is not None:
                self.nonfinite_T[at] = ~torch.isfinite(states.grad).all(-1)
            stats.tokens += len(at)
            with torch.no_grad():
                found = outputs.loss, -logprobs_T.sum(), entropies_T.sum(), outputs.kl, outputs.clipped
                gaps = outputs.sampler_gap, outputs.capped, outputs.sampler_gap_max
                sums.append(torch.stack([*found, *gaps]))

        self.run_all(budget, backward, stats)
        stats.add(sums)

    def run_all(self, budget: int, score: Score, stats: UpdateStats) -> None:
        """Run all samples through the model, at most `budget` tokens in a pass, and let their states be scored.

        `score` gets the states before the response tokens in pieces whose logits fit in memory, and each state once
        for every token that follows it. If it runs a backward pass down to the states, it is continued from there.
        """
        parts = groups(self.samples, budget)
        (count,) = self._most_of_all(len(parts))
        with fewer_launches(self.policy), AdapterCopies(self.policy) as copies:
            for part in [*parts, *[[]] * (count - len(parts))]:
                self._run(part, budget, score, stats, copies)

    def _most_of_all(self, *counts: int) -> tuple[int, ...]:
        """The largest counts of any process where weights are sharded, because all must make equally many passes."""
        return tuple(map(max, *self.processes.gather(counts))) if self.policy.shards else counts

    def _run(self, part: Sequence[int], budget: int, score: Score, stats: UpdateStats, copies: AdapterCopies) -> None:
        """Run some samples through the model, their common prefixes once, or on the general path each by itself.

        A shared segment's keys and values collect the gradients of all that follows it, and are then sent through it
        in one backward pass.
        """
        root = Segment()
        # The last token of a response predicts nothing.
        sequences = [[*self.samples[i].prompt_ids, *self.samples[i].token_ids[:-1]] for i in part]
        general = self.policy.update_path.general
        if general:
            ends = [root.add(sequence) for sequence in sequences]
        else:
            ends = build_prefix_tree(root, sequences, shortest_shared(self.policy), self.worth)
        places = self._places(part, ends)
        inner, leaves = _plan_passes(root, budget, not self.policy.recurrent, self.worth)
        inner_count, leaf_count = self._most_of_all(len(inner), len(leaves))

        def run(segments: Sequence[Segment]) -> tuple[list[Tensor], list[Gradient], Fresh]:
            with self.policy.precision():
                hidden, fresh = (forward_alone if general else forward)(self.policy, segments)
            stats.computed_tokens += hidden.shape[0] * hidden.shape[1]
            return *self._score(segments, hidden, places, score), fresh

        shared: list[tuple[list[Tensor], list[Gradient]]] = []
        for segments in _padded(inner, inner_count):
            outputs, gradients, fresh = run(segments)
            pairs = detach_for_children(segments, fresh)
            shared.append((outputs + [tensor for tensor, _ in pairs], gradients + [gradient for _, gradient in pairs]))
        for segments in _padded(leaves, leaf_count):
            outputs, gradients, _ = run(segments)
            _backward(outputs, gradients)
            copies.collect()
        while shared:
            _backward(*shared.pop())
            copies.collect()
        root.clear()

    def _places(self, part: Sequence[int], ends: Sequence[Segment]) -> Places:
        starts = [0, *itertools.accumulate(len(sample.token_ids) for sample in self.samples)]
        places: Places = {}
        for index, end in zip(part, ends, strict=True):
            sample = self.samples[index]
            before = len(sample.prompt_ids) - 1  # position of the state before the first response token
            first, last = sample.part or (0, len(sample.token_ids))
            for segment in end.path():
                places.setdefault(segment, []).extend(
                    (position - segment.start, starts[index] + position - before)
                    for position in range(max(before + first, segment.start), min(before + last, segment.end))
                )
        return places

    def _score(
        self, segments: Sequence[Segment], hidden: Tensor, places: Places, score: Score
    ) -> tuple[list[Tensor], list[Gradient]]:
        """Score the states of a pass; returns the outputs that have a gradient, and where to get it."""
        pairs = [
            (row * hidden.shape[1] + offset, at)
            for row, segment in enumerate(segments)
            for offset, at in places.get(segment, ())
        ]
        if not pairs:
            # Sharded weights are exchanged in every layer's backward pass, so there must be one.
            through = self.policy.shards and hidden.requires_grad
            return ([hidden], [lambda: torch.zeros_like(hidden)]) if through else ([], [])
        rows, at = torch.tensor(pairs, device=hidden.device).unbind(1)
        states = hidden.flatten(0, 1)[rows]
        # A leaf of its own for each piece: its logits are gone before those of the next are made.
        pieces = [piece.detach().requires_grad_(hidden.requires_grad) for piece in self._pieces(states)]
        with self.policy.precision():
            for piece, at_piece in zip(pieces, self._pieces(at), strict=True):
                score(piece, at_piece)
        if not hidden.requires_grad:
            return [], []
        return [states], [lambda: torch.cat([piece.grad for piece in pieces if piece.grad is not None])]

    def _pieces(self, tensor: Tensor) -> Sequence[Tensor]:
        return tensor.split(max(1, self.policy.logits_at_once // self.policy.vocabulary))


def _plan_passes(
    root: Segment, budget: int, padded: bool, worth: int
) -> tuple[list[list[Segment]], list[list[Segment]]]:
    """The segments below `root` in batches: those with children, parents first, and those that end a sequence.

    `padded`: whether those with children may be. `worth`: tokens that a pass is worth; if it is worth many, those that
    end sequences at different depths run together.
    """
    inner: list[list[Segment]] = []
    ends: list[list[Segment]] = []
    level = root.children
    while level:
        parents = [segment for segment in level if segment.children]
        inner += batches(parents, budget, padded, worth)
        ends.append([segment for segment in level if not segment.children])
        level = [child for segment in parents for child in segment.children]
    if worth > MIN_SHARED_TOKENS:
        ends = [list(itertools.chain(*ends))]
    return inner, [segments for found in ends for segments in batches(found, budget, worth=worth)]


def _padded(passes: list[list[Segment]], count: int) -> list[list[Segment]]:
    """`count` passes; those that are missing run over one token, of which nothing is scored."""
    return passes + [[Segment([0], Segment())] for _ in range(count - len(passes))]


def detach_for_children(segments: Sequence[Segment], fresh: Fresh) -> list[tuple[Tensor, Gradient]]:
    """Give segments their keys, values and states, detached from the graph.

    Returns:
        The fresh ones that have a gradient, each with where to get it: from the detached ones.
    """
    pairs: list[tuple[Tensor, Gradient]] = []

    def detach(tensor: Tensor, rows: Sequence[Tensor]) -> list[Tensor]:
        leaves = [row.detach().requires_grad_(tensor.requires_grad) for row in rows]
        if tensor.requires_grad:
            pairs.append((tensor, functools.partial(_stack_gradients, leaves, tensor.shape[2])))
        return leaves

    for layer, keys_values in fresh.keys_values.items():
        detached = [
            detach(tensor, [row[:, : len(segment.tokens)] for row, segment in zip(tensor, segments, strict=True)])
            for tensor in keys_values
        ]
        for segment, keys, values in zip(segments, *detached, strict=True):
            segment.keys_values[layer] = keys, values
    for name, state in fresh.recurrent.items():
        for segment, row in zip(segments, detach(state, list(state)), strict=True):
            segment.recurrent[name] = row
    return pairs


def _stack_gradients(leaves: Sequence[Tensor], length: int) -> Tensor | None:
    """The gradients of leaves (heads, T, head size), padded to `length` and stacked; None if no leaf has one.

    Those of states have all the same shape, of two dimensions or more.
    """
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
