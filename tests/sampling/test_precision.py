"""bfloat16: what an adapter has learnt reaches the sampler, and a way of sampling that is broken is not taken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from motif.config import ModelConfig
from motif.errors import ModelError
from motif.models.adapter import lora_layers
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local import attention, batch, graphs
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.packing import sampling_weights
from support.tiny import SMALL, write_model

Patch = Callable[[pytest.MonkeyPatch], None]


def half(folder: str, dtype: str = "bfloat16", **options: Any) -> Policy:
    return Policy(ModelConfig(name=folder, lora_rank=4, lora_alpha=4, device="cpu", dtype=dtype, **options))


# -- what was learnt ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(tiny_tokenizer, tmp_path_factory) -> tuple[Policy, list]:
    """An adapter trained by small steps on one text, as training makes them: most changes are below a bfloat16 step."""
    sizes = SMALL | {"hidden_size": 256, "intermediate_size": 256, "initializer_range": 0.5}
    config = write_model(tmp_path_factory.mktemp("wide"), "LlamaConfig", sizes, tiny_tokenizer)
    policy = Policy(config.model_copy(update={"dtype": "bfloat16", "lora_rank": 16, "lora_alpha": 16}))
    text = [[7 + (place * place + 3 * row) % 90 for place in range(40)] for row in range(4)]
    sequences = [[row[:4] for row in text], [row[4:] for row in text], [1.0] * 4]
    optimizer = torch.optim.Adam(policy.trainable(), lr=5e-5)
    for _ in range(30):
        optimizer.zero_grad()
        (-policy.token_logprobs(*sequences)[0].mean()).backward()
        optimizer.step()
    return policy, sequences


@torch.no_grad()
def mean_logprob(policy: Policy, sequences: list) -> float:
    return policy.token_logprobs(*sequences)[0].double().mean().item()


def test_the_sampler_gains_what_the_trainer_gains(learnt):
    policy, sequences = learnt
    with policy.adapter_disabled():
        base = mean_logprob(policy, sequences)
    trainer = mean_logprob(policy, sequences) - base
    with sampling_weights(policy, "current"):
        sampler = mean_logprob(policy, sequences) - base
    assert trainer > 0.1
    assert 0.95 * trainer <= sampler <= 1.05 * trainer
    # The adapter folded into weights in bfloat16 would lose much of it: the test can tell.
    for layer in lora_layers(policy.wrapped):
        layer.get_base_layer().weight.data += layer.get_delta_weight("default").to(torch.bfloat16)
    with policy.adapter_disabled():
        assert mean_logprob(policy, sequences) - base < 0.85 * trainer


def test_sampled_log_probabilities_are_the_trainers_up_to_rounding(tiny_model):
    policy = half(tiny_model)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.normal_(0, 0.2)
    done = complete(LocalSampler(policy), [Request(list(range(20, 50)), [1, 2, 3], max_tokens=20)])
    prompts, responses = [one.request.prompt_ids for one in done], [one.token_ids for one in done]
    ours, _ = policy.token_logprobs(prompts, responses, [1.0] * len(done))
    theirs = torch.tensor([value for one in done for value in one.logprobs])
    assert (ours - theirs).abs().mean() < 0.05


def test_in_float32_computes_in_float32_and_ends(tiny_model):
    rounded, exact = half(tiny_model), half(tiny_model, "float32")
    for one, other in zip(rounded.model.parameters(), exact.model.parameters(), strict=True):
        other.data.copy_(one.data)  # on bfloat16's grid
    sequences: Any = ([[5, 6, 7]], [[8, 9, 10, 11]], [1.0])
    with torch.no_grad():
        wanted = exact.token_logprobs(*sequences)[0]
        with rounded.in_float32():
            assert torch.allclose(rounded.token_logprobs(*sequences)[0], wanted, atol=1e-5)
        assert (rounded.token_logprobs(*sequences)[0] - wanted).abs().max() > 1e-4
    assert rounded.autocast and not exact.autocast


# -- samplers broken on purpose ----------------------------------------------------------------------------------------


def around(owner: Any, name: str, change: Callable[..., Any]) -> Patch:
    """Replace a function by one that gets the old one first."""

    def patch(patcher: pytest.MonkeyPatch) -> None:
        old = getattr(owner, name)
        patcher.setattr(owner, name, lambda *args, **kwargs: change(old, *args, **kwargs))

    return patch


def _see(change: Callable[[Tensor], Tensor]) -> Patch:
    def place(old: Any, self: Any, *args: Any) -> None:
        old(self, *args)
        self.visible = change(self.visible)

    return around(attention._Level, "place", place)


def _last_two(visible: Tensor) -> Tensor:
    return visible & (torch.arange(visible.shape[1]) >= visible.shape[1] - 2)


def _without_first(visible: Tensor) -> Tensor:
    return visible & (torch.arange(visible.shape[1]) > 0)


def _decoder(tokens: int = 0, positions: int = 0) -> Patch:
    return around(
        graphs.Decoder, "__call__", lambda old, self, ids, at: old(self, (ids + tokens) % 100, at + positions)
    )


def _values_reversed(old: Any, self: Any, layer: int, kind: int) -> Tensor:
    return old(self, layer, kind).flip(2) if kind else old(self, layer, kind)


def _draw(temperature: float = 1.0, uniform: float = 1.0, twice: bool = False) -> Patch:
    def change(old: Any, logits: Tensor, heat: Any, top_p: Any, points: Tensor, row_of: Tensor) -> Any:
        return old(logits, heat * (heat if twice else temperature), top_p, points * uniform, row_of)

    return around(batch, "draw", change)


def _cousins(old: Any, self: Any, at: Any, device: Any) -> None:
    old(self, [at[0], *at[:-1]], device)


def _rotary(patcher: pytest.MonkeyPatch) -> None:
    """Decoding turns queries and keys by another base than reading prompts does."""

    def call(old: Any, self: Any, *args: Any) -> Tensor:
        rotary = self.policy.decoder.rotary_emb
        before = rotary.inv_freq
        rotary.inv_freq = before * 0.7
        try:
            return old(self, *args)
        finally:
            rotary.inv_freq = before

    around(graphs.Decoder, "__call__", call)(patcher)


def _no_norm(patcher: pytest.MonkeyPatch) -> None:
    def call(old: Any, self: Any, *args: Any) -> Tensor:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self.policy.decoder.norm, "forward", lambda states: states)
            return old(self, *args)

    around(graphs.Decoder, "__call__", call)(patcher)


def _scale(old: Any, self: Any, query: Tensor, *args: Any) -> Tensor:
    return old(self, 1.1 * query, *args)


@contextmanager
def _half_of_it(old: Any, policy: Policy, name: str) -> Iterator[None]:
    for layer in lora_layers(policy.wrapped):
        layer.scaling["default"] /= 2
    with old(policy, name):
        yield
    for layer in lora_layers(policy.wrapped):
        layer.scaling["default"] *= 2


BROKEN: dict[str, Patch] = {
    "the first prompt token hidden": _see(_without_first),
    "only the last two prompt tokens seen": _see(_last_two),
    "padding seen": _see(torch.ones_like),
    "values of prompts in reverse": around(attention._Level, "_stacked", _values_reversed),
    "positions off by 100": _decoder(positions=100),
    "positions off by one": _decoder(positions=1),
    "another last token": _decoder(tokens=1),
    "another rotary base": _rotary,
    "another scale of attention": around(attention.TreeCache, "attend", _scale),
    "no last norm": _no_norm,
    "keys not copied when rows part or move": around(attention.TreeCache, "copy", lambda old, *args: None),
    "rows below another's prompt": around(attention._Level, "place", _cousins),
    "the temperature twice": _draw(twice=True),
    "the temperature ignored": around(batch, "draw", lambda old, x, t, *rest: old(x, np.ones_like(t), *rest)),
    "other random numbers": _draw(uniform=0.5),
    "the adapter ignored": around(batch, "sampling_weights", lambda old, policy, name: old(policy, "base")),
    "the adapter also in the base": around(batch, "sampling_weights", lambda old, policy, name: old(policy, "current")),
    "the adapter at half its size": around(batch, "sampling_weights", _half_of_it),
    "responses a position later": around(
        attention.TreeCache, "begin", lambda old, self, prompts, at: old(self, prompts, at + 1)
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_way_of_sampling_is_not_taken(tiny_model, monkeypatch, fault, dtype):
    """The general path takes over, or if it is broken as well, the model is refused."""
    policy = half(tiny_model, dtype)
    BROKEN[fault](monkeypatch)
    try:
        assert LocalSampler(policy).path.reason
    except ModelError as error:
        assert "model type 'llama' cannot be sampled here: " in str(error)


def test_a_sound_sampler_passes_and_the_adapter_is_as_before(tiny_model):
    policy = half(tiny_model)
    before = policy.state()
    LocalSampler(policy, max_rows=2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state().items())


def test_a_model_that_ends_at_once_is_checked_all_the_same(tiny_model, monkeypatch):
    policy = half(tiny_model, "float32")
    policy.end_ids = list(range(policy.vocabulary))
    _decoder(positions=1)(monkeypatch)
    assert LocalSampler(policy).path.reason.startswith("log-probabilities are off by")


def test_an_exception_is_named(tiny_model, monkeypatch):
    def fail(self: Any, *args: Any) -> Any:
        raise IndexError("list index out of range")

    monkeypatch.setattr(attention.TreeCache, "attend", fail)
    assert LocalSampler(half(tiny_model)).path.reason == "IndexError list index out of range"
    monkeypatch.setattr(attention.TreeCache, "attend", lambda *args: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(MemoryError):
        LocalSampler(half(tiny_model))
