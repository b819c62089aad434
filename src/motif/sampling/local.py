"""Sampling with the live weights of the policy, on one device.

Rows (responses in progress) share one decoding batch. A prompt is run through the model once and its keys and values
are copied to all its forks; what the prompts of a batch begin with in common is run once for all of them. A row leaves
the batch when it ends, and others enter: nothing waits for a whole round. Every token is drawn by inverting the
cumulative distribution at a uniform number computed from the response's key and the token's position, so the batch a
row happens to be in does not matter (up to rounding of the logits).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache

from motif.config import RecipeError
from motif.policy import Policy
from motif.sampling import Completion, Request, Usage

PREFILL_TOKENS = 8192
"""Prompt tokens (with padding) in one forward pass."""
SHARED_TOKENS = 16
"""A shared beginning shorter than this is not worth a forward pass of its own."""


class LocalSampler:
    """Answers requests with `policy`; at most `max_rows` responses are decoded at once.

    Raises:
        RecipeError: a prompt with its response does not fit the model's context.
    """

    def __init__(self, policy: Policy, max_rows: int = 256):
        self.policy = policy
        self.max_rows = max_rows
        self.usage = Usage()
        self._check()
        self.usage = Usage()

    def run(self, requests: Iterable[Request], then: Callable[[Completion], Iterable[Request]]) -> None:
        """Answer all requests and those that `then` returns.

        Requests for the base model wait until no request for the current policy is left, and the other way round:
        there is one set of weights, and switching it every token would cost more than waiting. Children go before
        what waited already: trees are finished one after the other, and few are open at a time.
        """
        queues: dict[str, deque[tuple[Request, range]]] = {"current": deque(), "base": deque()}

        def enqueue(more: Iterable[Request], first: bool) -> None:
            for request in more:
                self._check_length(request)
                # More forks than rows are answered in turns.
                for start in range(0, len(request.keys), self.max_rows):
                    turn = (request, range(start, len(request.keys))[: self.max_rows])
                    queue = queues[request.policy]
                    queue.appendleft(turn) if first else queue.append(turn)

        enqueue(requests, first=False)
        while any(queues.values()):
            for name, queue in queues.items():
                if queue:
                    with self._weights(name), torch.inference_mode(), self.policy.precision():
                        _Batch(self.policy, self.max_rows, self.usage).run(
                            queue, lambda done: enqueue(then(done), first=True)
                        )

    def _weights(self, name: str) -> AbstractContextManager[None]:
        return self.policy.merged() if name == "current" else self.policy.base()

    def _check(self) -> None:
        """Refuse a model that this sampler would drive wrongly, a recurrent one say: compare to the trainer's pass."""
        end = self.policy.end_ids[0]
        prompts = [[end] * 5, [end] * 2]  # of unequal length, so that one row is padded
        done: list[Completion] = []
        requests = [Request(prompt, [7, 8], max_tokens=3) for prompt in prompts]
        try:
            self.run(requests, lambda completion: done.append(completion) or [])  # type: ignore[func-returns-value]
        except (TypeError, AttributeError, NotImplementedError, RuntimeError, IndexError, KeyError) as error:
            raise RecipeError(f"model type {self.policy.model.config.model_type!r} cannot be sampled here") from error
        with torch.no_grad():
            theirs, _ = self.policy.token_logprobs(
                [done_.request.prompt_ids for done_ in done], [done_.token_ids for done_ in done], [1.0] * len(done)
            )
        ours = torch.tensor([value for done_ in done for value in done_.logprobs], device=theirs.device)
        gap = (ours - theirs).abs().max().item()
        if not gap < (0.5 if self.policy.autocast else 1e-3):
            kind = self.policy.model.config.model_type
            raise RecipeError(f"model type {kind!r} cannot be sampled here: log-probabilities are off by {gap:.2g}")

    def _check_length(self, request: Request) -> None:
        needed, limit = len(request.prompt_ids) + request.max_tokens, self.policy.max_length
        if needed > limit:
            raise RecipeError(
                f"a prompt of {len(request.prompt_ids)} tokens and {request.max_tokens} new ones do not fit the "
                f"model's {limit}: lower rollout.tokens_first, rollout.tokens_continue or rounds.note_tokens"
            )


class _Batch:
    """The rows being decoded. Rows 0..count-1 are alive; a row that ends is filled with the last one."""

    def __init__(self, policy: Policy, max_rows: int, usage: Usage):
        self.policy, self.max_rows, self.usage = policy, max_rows, usage
        self.device = policy.device
        self.cache = _Rows()
        self.beginning: list[int] = []  # the tokens whose keys and values the cache keeps for all prompts
        self.count = 0
        self.ends = torch.tensor(policy.end_ids, device=self.device)
        self.rows: list[tuple[Request, int]] = []  # request and index of the fork, per row
        self.state: dict[str, Tensor] = {}  # per row: position, produced, limit, temperature, top_p
        self.keys = np.zeros(0, dtype=np.uint64)
        self.tokens = torch.zeros(0, 0, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(0, 0, device=self.device)

    def run(self, queue: deque[tuple[Request, range]], then: Callable[[Completion], None]) -> None:
        while queue or self.count:
            # Prompts are let in by the batch: a forward pass for every single newcomer would stall the others.
            waiting = sum(len(forks) for _, forks in queue)
            if waiting and (self.count == 0 or 4 * min(waiting, self.max_rows - self.count) >= self.count):
                self._admit(queue)
            else:
                self._decode()
            for completion in self._finished():
                then(completion)

    # -- entering --------------------------------------------------------------------------------------------------

    def _admit(self, queue: deque[tuple[Request, range]]) -> None:
        """Move waiting requests into free rows: one prefill for their prompts, then the first token of every fork."""
        chosen: list[tuple[Request, range]] = []
        free, longest = self.max_rows - self.count, 0
        while queue and len(queue[0][1]) <= free:
            longest = max(longest, len(queue[0][0].prompt_ids))
            if chosen and longest * (len(chosen) + 1) > PREFILL_TOKENS:
                break
            request, forks = queue.popleft()
            chosen.append((request, forks))
            free -= len(forks)
        if not chosen:
            return self._decode()
        shared = self._share([request.prompt_ids for request, _ in chosen])
        lengths = torch.tensor([len(request.prompt_ids) for request, _ in chosen])
        ids = torch.zeros(len(chosen), int(lengths.max()) - shared, dtype=torch.long)
        for row, (request, _) in enumerate(chosen):
            ids[row, : lengths[row] - shared] = torch.tensor(request.prompt_ids[shared:])
        prompt_of_fork = torch.tensor([i for i, (_, forks) in enumerate(chosen) for _ in forks])
        first, last = self.count, self.count + len(prompt_of_fork)
        new = [(request, fork) for request, forks in chosen for fork in forks]
        self._grow(last, max(len(request.prompt_ids) + request.max_tokens for request, _ in chosen), new)

        hidden = self._prefill(ids.to(self.device), shared)
        self.cache.end_prefill(slice(first, last), prompt_of_fork.to(self.device))
        self.usage.prefill_tokens += int((lengths - shared).sum())
        self.usage.requested_prompt_tokens += int(lengths[prompt_of_fork].sum())

        self.state["position"][first:last] = lengths[prompt_of_fork].to(self.device)
        self.count = last
        final = hidden[torch.arange(len(chosen), device=self.device), (lengths - shared - 1).to(self.device)]
        self._draw(self.policy.head(final)[prompt_of_fork.to(self.device)], first)

    def _share(self, prompts: Sequence[Sequence[int]]) -> int:
        """Make the beginning that all prompts have in common the cache's, and return its length.

        At least one token of every prompt is left over, whose state is needed to go on from.
        """
        beginning = common_beginning([list(prompt)[:-1] for prompt in prompts])
        known = len(common_beginning([beginning, self.beginning]))
        if len(beginning) - known >= SHARED_TOKENS:
            fresh = torch.tensor([beginning[known:]], device=self.device)
            self._prefill(fresh, known)
            self.cache.keep_beginning()
            self.usage.prefill_tokens += len(beginning) - known
            self.beginning, known = beginning, len(beginning)
        return known if known >= SHARED_TOKENS else 0

    def _prefill(self, ids: Tensor, shared: int) -> Tensor:
        """Hidden states (prompts, T, D) of `ids` (prompts, T) after the first `shared` tokens of the kept beginning."""
        self.cache.begin_prefill(shared)
        mask = positions = None
        if shared:
            places = torch.arange(shared + ids.shape[1], device=self.device)
            positions = places[shared:].unsqueeze(0)
            mask = self._mask((places <= places[shared:, None])[None, None])
        states: Tensor = self.policy.decoder(
            input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=self.cache, use_cache=True
        ).last_hidden_state
        return states

    def _mask(self, visible: Tensor) -> Tensor:
        """The attention mask as the model's kernels want it, from booleans."""
        model = self.policy.model
        if model.config._attn_implementation != "eager":
            return visible
        # Eager kernels add the mask to their scores.
        return torch.where(visible, 0.0, torch.finfo(model.dtype).min).to(model.dtype)

    def _grow(self, rows: int, length: int, new: list[tuple[Request, int]]) -> None:
        """Make room for `rows` rows of `length` tokens and write the newcomers' settings."""
        self.cache.reserve(rows, length)
        requests = [request for request, _ in new]
        values = {
            "position": [0] * len(new),
            "produced": [0] * len(new),
            "limit": [request.max_tokens for request in requests],
            "temperature": [request.temperature for request in requests],
            "top_p": [request.top_p for request in requests],
        }
        for name, column in values.items():
            added = torch.tensor(column, device=self.device)
            kept = self.state[name][: self.count] if name in self.state else added[:0]
            self.state[name] = torch.cat([kept, added])
        keys = np.array([request.keys[fork] for request, fork in new], dtype=np.uint64)
        self.keys = np.concatenate([self.keys[: self.count], keys])
        width = max(self.tokens.shape[1], *(request.max_tokens for request in requests))
        for name in ("tokens", "logprobs"):
            old = getattr(self, name)
            fresh = old.new_zeros(rows, width)
            fresh[: self.count, : old.shape[1]] = old[: self.count]
            setattr(self, name, fresh)
        self.rows = self.rows[: self.count] + new

    # -- going on --------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        """One token for every row."""
        rows = torch.arange(self.count, device=self.device)
        last = self.tokens[rows, self.state["produced"] - 1]
        position = self.state["position"]
        self.cache.begin_decode(position)
        length = self.cache.length
        seen = torch.arange(length, device=self.device) <= position.unsqueeze(-1)
        hidden = self.policy.decoder(
            input_ids=last.unsqueeze(-1),
            attention_mask=self._mask(seen[:, None, None, :]),
            position_ids=position.unsqueeze(-1),
            past_key_values=self.cache,
            use_cache=True,
        ).last_hidden_state
        self.state["position"] = position + 1
        self._draw(self.policy.head(hidden[:, -1]), 0)

    def _draw(self, logits: Tensor, first: int) -> None:
        """Sample one token for rows first..count-1 from logits (rows, V) and write it down."""
        rows = slice(first, self.count)
        produced = self.state["produced"][rows]
        uniform = torch.from_numpy(uniforms(self.keys[rows], produced.cpu().numpy())).to(self.device)
        chosen, logprobs = draw(logits, self.state["temperature"][rows], self.state["top_p"][rows], uniform)
        index = torch.arange(first, self.count, device=self.device)
        self.tokens[index, produced] = chosen
        self.logprobs[index, produced] = logprobs
        self.state["produced"][rows] = produced + 1

    # -- leaving ---------------------------------------------------------------------------------------------------

    def _finished(self) -> list[Completion]:
        """Take out the rows that ended."""
        produced = self.state["produced"]
        last = self.tokens[torch.arange(self.count, device=self.device), produced - 1]
        ended = torch.isin(last, self.ends)
        done = torch.nonzero(ended | (produced >= self.state["limit"])).flatten().tolist()
        completions = []
        for row in done:
            request, fork = self.rows[row]
            length = int(produced[row])
            self.usage.generated_tokens += length
            completions.append(
                Completion(
                    request=request,
                    index=fork,
                    token_ids=self.tokens[row, :length].tolist(),
                    logprobs=self.logprobs[row, :length].tolist(),
                    truncated=not bool(ended[row]),
                )
            )
        if done:
            self._remove(done)
        return completions

    def _remove(self, done: list[int]) -> None:
        left = self.count - len(done)
        gone = set(done)
        holes = [row for row in done if row < left]
        movers = [row for row in range(left, self.count) if row not in gone]
        target, source = torch.tensor(holes, device=self.device), torch.tensor(movers, device=self.device)
        if holes:
            for column in (*self.state.values(), self.tokens, self.logprobs):
                column[target] = column[source]
            self.keys[holes] = self.keys[movers]
            for hole, mover in zip(holes, movers, strict=True):
                self.rows[hole] = self.rows[mover]
            self.cache.move(source, target, int(self.state["position"].max()) + 1)
        self.count = left
        self.state = {name: column[:left] for name, column in self.state.items()}
        self.rows = self.rows[:left]


class _Layer:
    """Keys and values of one attention layer, (rows, heads, length, head size), with room to spare."""

    keys: Tensor | None = None
    values: Tensor | None = None


class _Rows(Cache):
    """A key-value cache whose rows are written in place, each at its own position.

    During prefill a layer attends to the kept beginning and to the fresh keys and values, and puts those aside for
    `end_prefill` to copy to the rows of all forks, or for `keep_beginning`. During decoding it writes each row's new
    key at that row's position and attends to the first `length` positions of the rows alive; the caller's mask hides
    what lies beyond a row's own position.
    """

    def __init__(self) -> None:
        super().__init__(layers=[])
        self._layers: dict[int, _Layer] = {}
        self._fresh: dict[int, tuple[Tensor, Tensor]] | None = None
        self._beginning: dict[int, tuple[Tensor, Tensor]] = {}
        self._shared = 0
        self._capacity = (0, 0)
        self._position: Tensor | None = None
        self.length = 0

    def reserve(self, rows: int, length: int) -> None:
        """Room for this many rows and positions, at least doubling what was there, so that growing stays rare."""
        have_rows, have_length = self._capacity
        if rows > have_rows or length > have_length:
            self._capacity = (
                max(rows, min(2 * have_rows, have_rows + 64)) if rows > have_rows else have_rows,
                max(length, have_length),
            )
            for layer in self._layers.values():
                layer.keys, layer.values = self._resized(layer.keys), self._resized(layer.values)

    def _resized(self, old: Tensor | None) -> Tensor:
        assert old is not None
        rows, length = self._capacity
        new = old.new_zeros(rows, old.shape[1], length, old.shape[3])
        new[: old.shape[0], :, : old.shape[2]] = old
        return new

    def begin_prefill(self, shared: int) -> None:
        """What comes follows the first `shared` tokens of the kept beginning."""
        self._fresh, self._shared = {}, shared

    def keep_beginning(self) -> None:
        """Keep what was just computed, with the shared tokens before it, as the beginning of later prompts."""
        assert self._fresh is not None
        self._beginning = {index: self._seen(index) for index in self._fresh}
        self._fresh = None

    def _seen(self, index: int) -> tuple[Tensor, Tensor]:
        """A layer's fresh keys and values behind the shared part of the beginning."""
        assert self._fresh is not None
        keys, values = self._fresh[index]
        if not self._shared:
            return keys, values
        old_keys, old_values = (t[:, :, : self._shared].expand(len(keys), -1, -1, -1) for t in self._beginning[index])
        return torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)

    def end_prefill(self, rows: slice, prompt_of_fork: Tensor) -> None:
        """Copy the prompts' keys and values (prompts, heads, T, D) to the rows of their forks."""
        assert self._fresh is not None
        for index in self._fresh:
            layer = self._layers.setdefault(index, _Layer())
            for name, tensor in zip(("keys", "values"), self._seen(index), strict=True):
                if getattr(layer, name) is None:
                    setattr(
                        layer,
                        name,
                        tensor.new_zeros(self._capacity[0], tensor.shape[1], self._capacity[1], tensor.shape[3]),
                    )
                getattr(layer, name)[rows, :, : tensor.shape[2]] = tensor[prompt_of_fork]
        self._fresh = None

    def begin_decode(self, position: Tensor) -> None:
        """`position` (rows,): where each row's next key goes."""
        self._position = position
        self._row_index = torch.arange(len(position), device=position.device)
        self.length = int(position.max()) + 1

    def move(self, source: Tensor, target: Tensor, length: int) -> None:
        """Copy the first `length` positions of rows."""
        for layer in self._layers.values():
            assert layer.keys is not None and layer.values is not None
            layer.keys[target, :, :length] = layer.keys[source, :, :length]
            layer.values[target, :, :length] = layer.values[source, :, :length]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Called by each attention layer with its new keys and values; returns what it attends to."""
        if self._fresh is not None:
            self._fresh[layer_idx] = (key_states, value_states)
            return self._seen(layer_idx)
        layer = self._layers[layer_idx]
        assert layer.keys is not None and layer.values is not None
        layer.keys[self._row_index, :, self._position] = key_states[:, :, 0]
        layer.values[self._row_index, :, self._position] = value_states[:, :, 0]
        rows = len(self._row_index)
        return layer.keys[:rows, :, : self.length], layer.values[:rows, :, : self.length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        return self._shared if self._fresh is not None else self.length - 1

    def get_mask_sizes(self, query_length: int, layer_idx: int = 0) -> tuple[int, int]:
        return (self._shared + query_length, 0) if self._fresh is not None else (self.length, 0)


def common_beginning(sequences: Sequence[list[int]]) -> list[int]:
    """The tokens that all sequences begin with."""
    # Whatever lies between the least and the greatest in lexicographic order begins as both do.
    low, high = min(sequences), max(sequences)
    length = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return low[:length]


def uniforms(keys: np.ndarray, counters: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1), one per (key, counter): SplitMix64 (Steele et al., 2014), addressed by position."""
    with np.errstate(over="ignore"):
        x = keys + (counters.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        x = x ^ (x >> np.uint64(31))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def draw(logits: Tensor, temperature: Tensor, top_p: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """One token per row.

    Args:
        logits: (rows, V). temperature, top_p: (rows,); temperature 0 is greedy. uniform: (rows,) in [0, 1), float64.

    Returns:
        Token ids (rows,) and their log-probabilities (rows,) under softmax(logits / temperature), before top-p.
    """
    greedy = temperature == 0
    scale = torch.where(greedy, torch.ones_like(temperature), temperature).unsqueeze(-1)
    logprobs = torch.log_softmax(logits.float() / scale, dim=-1)
    if bool(greedy.all()):
        chosen = logits.argmax(-1)
    else:
        probabilities = logprobs.exp()
        if bool((top_p < 1).any()):
            ordered, order = probabilities.sort(dim=-1, descending=True)
            before = ordered.cumsum(-1) - ordered  # mass of the more likely tokens
            ordered = ordered.masked_fill(before >= top_p.unsqueeze(-1), 0.0)
            probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
        cumulative = probabilities.cumsum(-1, dtype=torch.float64 if logits.device.type != "mps" else torch.float32)
        point = uniform.to(cumulative.dtype).unsqueeze(-1) * cumulative[:, -1:]
        chosen = torch.searchsorted(cumulative, point, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
        chosen = torch.where(greedy, logits.argmax(-1), chosen)
    return chosen, logprobs.gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
