"""Linear layers in 8 bits: close to float32 for any width, exact in their sums, and nothing of them stays behind."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from motif.config import ModelConfig, Recipe, load_recipe
from motif.errors import RecipeError
from motif.models import int8
from motif.models.int8 import FLOAT32, Int8Linear, Precision, hadamard, quantised, rotated
from motif.models.policy import Policy
from motif.sampling.base import Request
from motif.sampling.concurrency import complete
from motif.sampling.local import packing, precision
from motif.sampling.local.batch import LocalSampler
from motif.sampling.local.joining import reading_the_same, together
from motif.sampling.local.packing import Quantiser, sampling_weights
from motif.sampling.local.precision import choose_precision, refuse_elsewhere
from motif.session import open_model, open_session

INT8 = Precision("int8", True)


def error(wanted: torch.Tensor, found: torch.Tensor) -> float:
    return ((wanted - found).norm() / wanted.norm()).item()


@pytest.mark.parametrize("width, size", [(576, 64), (96, 32), (2048, 64), (7, 1), (1, 1), (130, 2)])
def test_a_rotation_leaves_products_as_they_are(width, size):
    torch.testing.assert_close(hadamard(size) @ hadamard(size).T, torch.eye(size))
    rows, others = torch.randn(5, width), torch.randn(3, width)
    torch.testing.assert_close(rotated(rows) @ rotated(others).T, rows @ others.T, atol=1e-4, rtol=1e-4)
    one = rotated(torch.eye(width))
    assert (one != 0).sum() == width * size  # each input is spread over its block


@pytest.mark.parametrize("shape", [(70, 96), (33, 7), (20, 64), (10, 130)])
@pytest.mark.parametrize("rows", [1, 9])
def test_a_layer_is_close_to_its_float32(shape, rows):
    weight, bias, given = torch.randn(shape), torch.randn(shape[0]), torch.randn(2, rows, shape[1])
    found = Int8Linear(weight, bias)(given)
    assert found.shape == (2, rows, shape[0]) and found.dtype == torch.float32
    assert error(F.linear(given, weight, bias), found) < 0.02
    assert error(F.linear(given, weight), Int8Linear(weight)(given)) < 0.02


def test_blocks_change_nothing(monkeypatch):
    weight, bias, given = torch.randn(50, 64), torch.randn(50), torch.randn(23, 64)
    whole = Int8Linear(weight, bias)(given)
    monkeypatch.setattr(int8, "CHANNELS", 16)
    monkeypatch.setattr(int8, "ROWS", 5)
    assert torch.equal(Int8Linear(weight, bias)(given), whole)


@pytest.mark.parametrize("kernel", int8.kernels())
@pytest.mark.parametrize("width", [64, 96, 1536])
def test_sums_are_exact_and_rows_do_not_depend_on_each_other(width, kernel, monkeypatch):
    monkeypatch.setattr(int8, "kernels", lambda: (kernel,))
    given, weight = torch.randn(6, width), torch.randn(40, width)
    layer, (whole, its) = Int8Linear(weight), quantised(rotated(weight))
    numbers, steps = quantised(rotated(given))
    assert numbers.abs().max() == int8.LEVELS
    exact = (numbers.long() @ whole.long().t()).float() * its.t() * steps
    assert torch.equal(layer(given), exact)
    for row, numbers_of_one in zip(given.split(1), numbers.split(1), strict=True):
        alone, step = quantised(rotated(row))
        if torch.equal(alone, numbers_of_one):  # else rotating it alone has rounded otherwise
            assert torch.equal(layer(row), (alone.long() @ whole.long().t()).float() * its.t() * step)


def test_both_kernels_are_here_and_one_that_saturates_or_is_missing_is_not_taken(monkeypatch):
    assert int8.kernels() == (int8.fbgemm, int8.onednn)  # else this machine cannot test the other

    def saturating(numbers, steps):
        products = int8.onednn(numbers, steps)
        return lambda rows: products(rows).clamp(-(2**15), 2**15 - 1)

    def missing(numbers, steps):
        raise AttributeError("'_OpNamespace' 'quantized' object has no attribute 'linear_prepack'")

    for other in (saturating, missing):
        monkeypatch.setattr(int8, "fbgemm", other)
        assert int8.kernels.__wrapped__() == (int8.onednn,)


def test_rotation_tames_an_outlier(monkeypatch):
    given, weight = torch.randn(20, 128), torch.randn(30, 128)
    given[:, 3] *= 100
    wanted = F.linear(given, weight)
    turned = error(wanted, Int8Linear(weight)(given))
    monkeypatch.setattr(int8, "BLOCK", 1)
    assert error(wanted, Int8Linear(weight)(given)) > 1.5 * turned


def test_a_row_of_zeros_gives_the_bias():
    bias = torch.randn(5)
    given = torch.zeros(2, 64)
    given[1] = 1.0
    assert torch.equal(Int8Linear(torch.randn(5, 64), bias)(given)[0], bias)
    assert torch.equal(Int8Linear(torch.zeros(5, 64), bias)(given), bias.expand(2, 5))


def test_numbers_that_are_not_finite_stay_so():
    given = torch.randn(3, 64)
    given[0, 5], given[1, 5] = float("nan"), float("inf")
    found = Int8Linear(torch.randn(5, 64))(given)
    assert not found[:2].isfinite().any() and found[2].isfinite().all()


def test_layers_that_read_the_same_are_computed_once():
    made = []

    def run(rows):
        made.append(rows)
        return torch.cat([rows, 2 * rows, 3 * rows[..., :1]], dim=-1)

    first, second, third = together(run, [4, 4, 1])
    rows, others = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    assert torch.equal(second(rows), 2 * rows) and torch.equal(first(rows), rows)
    assert torch.equal(third(rows), 3 * rows[..., :1]) and len(made) == 1
    assert torch.equal(first(rows), rows) and len(made) == 2  # asked again: it may be another pass
    assert torch.equal(second(others), 2 * others) and len(made) == 3
    assert together(run, [9]) == [run]


# -- in a model --------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    """Layers of the tiny models are large enough."""
    for module in (packing, precision):
        monkeypatch.setattr(module, "LARGE", 1)


def tiny(folder: str, **options) -> Policy:
    policy = Policy(ModelConfig(name=folder, lora_rank=4, lora_alpha=4, device="cpu", **options))
    with torch.no_grad():
        for parameter in policy.trainable() if policy.config.adapter == "lora" else ():
            parameter.normal_(0, 0.1)
    return policy


def recipe(asked: str = "int8", **loss) -> Recipe:
    return load_recipe({"sampler": {"precision": asked}, "loss": loss})


def sampled(sampler: LocalSampler) -> list:
    requests = [Request(list(range(20, 50)), [1, 2, 3], 12), Request(list(range(30, 44)), [4], 8, policy="base")]
    done = complete(sampler, requests if sampler.policy.config.adapter == "lora" else requests[:1])
    return sorted((len(one.request.prompt_ids), one.index, one.token_ids, one.logprobs) for one in done)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_sampler_in_8_bits_is_near_the_trainer_and_leaves_the_weights(tiny_model, small, adapter):
    policy = tiny(tiny_model, adapter=adapter)
    before = {name: tensor.clone() for name, tensor in policy.wrapped.state_dict().items()}
    chosen = choose_precision(recipe(), policy)
    assert chosen.int8 and chosen.layers == 15 and chosen.gain and not chosen.left
    sampler = LocalSampler(policy, 8, precision=chosen)
    assert 0 < sampler.precision.gaps.mean < 0.15 and "int8 (15 layers" in sampler.precision.describe()
    first, exact = sampled(sampler), sampled(sampler.exact())
    assert first == sampled(sampler) and exact == sampled(LocalSampler(policy, 8)) and first != exact
    prompts, responses = [list(range(20, 50))] * 3, [one[2] for one in first if one[0] == 30]
    with torch.no_grad():
        ours, _ = policy.token_logprobs(prompts, responses, [1.0] * 3)
    theirs = torch.tensor([value for one in first if one[0] == 30 for value in one[3]])
    assert 0 < (ours - theirs).abs().mean() < 0.15
    after = policy.wrapped.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_queries_keys_and_values_are_one_product(tiny_model, small):
    policy = tiny(tiny_model)
    layers = [module for module in policy.model.modules() if type(module) is torch.nn.Linear]
    bases = [layer for layer in layers if layer.weight.shape[0] > 4 < layer.weight.shape[1]]
    with policy.adapter_disabled():
        groups = reading_the_same(policy, bases)
    assert [len(group) for group in groups] == 2 * [3, 1, 2, 1]
    quantiser = Quantiser(policy)
    with sampling_weights(policy, "current", quantiser), torch.inference_mode():
        first, *others = quantiser._groups[0]
        assert len(others) == 2 and first.out_features == policy.model.config.hidden_size


def test_a_model_that_cannot_take_parts_of_a_product_gets_whole_ones(tiny_model, small, monkeypatch):
    policy = tiny(tiny_model)
    layer = type(policy.decoder.layers[0].mlp)

    def picky(self, rows):
        up = self.up_proj(rows).view(-1).view(*rows.shape[:-1], -1)
        return self.down_proj(self.act_fn(self.gate_proj(rows)) * up)

    monkeypatch.setattr(layer, "forward", picky)
    sampler = LocalSampler(policy, 8, precision=INT8)
    assert sampler.quantiser.alone and {len(group) for group in sampler.quantiser._groups} == {1}
    assert 0 < sampler.precision.gaps.mean < 0.15 and not sampler.exact().precision.int8


def test_an_adapter_is_folded_in_before(tiny_model, small):
    policy = tiny(tiny_model)
    ids = torch.arange(20, 40)[None]
    with torch.no_grad():
        wanted = policy.head(policy.decoder(input_ids=ids).last_hidden_state)
        with policy.adapter_disabled():
            base = policy.head(policy.decoder(input_ids=ids).last_hidden_state)
        with sampling_weights(policy, "current", Quantiser(policy)):
            found = policy.head(policy.decoder(input_ids=ids).last_hidden_state)
        assert torch.equal(policy.head(policy.decoder(input_ids=ids).last_hidden_state), wanted)
    assert error(wanted, found) < 0.3 * error(wanted, base)


def test_slow_shapes_and_other_layers_stay_in_float32(tiny_model, small, monkeypatch):
    policy = tiny(tiny_model)
    head = (policy.vocabulary, policy.model.config.hidden_size)
    monkeypatch.setattr(precision, "timed", lambda shape, plain: [(1.0, 5.0 if shape == head else 0.5)])
    chosen = choose_precision(recipe("auto"), policy)
    assert chosen.int8 and chosen.slow == {head} and chosen.gain == 2.0 and chosen.layers == 14
    assert "slower in 8 bits" in chosen.left[0] and "faster" in chosen.reason
    quantiser = Quantiser(policy, chosen.slow)
    assert not quantiser.takes(policy.model.get_output_embeddings())
    monkeypatch.setattr(packing, "LARGE", 3000)
    monkeypatch.setattr(precision, "LARGE", 3000)
    shapes, left = precision.layers(policy)
    assert sum(shapes.values()) + sum(left.values()) == 15 and "fewer than 3,000" in next(iter(left))


@pytest.mark.parametrize("seconds, reason", [((1.0, 0.9), "too little"), ((1.0, 9.0), "0 times")])
def test_auto_stays_with_float32_where_that_is_as_fast(tiny_model, small, monkeypatch, seconds, reason):
    monkeypatch.setattr(precision, "timed", lambda shape, plain: [seconds])
    chosen = choose_precision(recipe("auto"), tiny(tiny_model))
    assert not chosen.int8 and reason in chosen.reason and chosen.describe().startswith("float32 (in 8 bits")


def test_auto_stays_with_float32_where_8_bits_are_far_off(tiny_model, small, monkeypatch):
    monkeypatch.setattr(precision, "FAR", 0.0)
    monkeypatch.setattr("motif.sampling.local.batch.FAR", 0.0)
    sampler = LocalSampler(tiny(tiny_model), 8, precision=replace(INT8, asked="auto"))
    assert sampler.precision.asked == "auto" and not sampler.precision.int8 and "off by" in sampler.precision.reason


def test_what_cannot_be_had_is_refused_or_told(tiny_model, monkeypatch):
    policy = tiny(tiny_model)
    with pytest.raises(RecipeError, match=r"none of the model's layers is a linear one of 65,536 weights"):
        choose_precision(recipe(), policy)
    assert "none of the model's layers" in choose_precision(recipe("auto"), policy).reason
    assert choose_precision(recipe("float32"), policy) == FLOAT32
    assert "importance_cap = 0" in choose_precision(recipe("auto", importance_cap=0.0), policy).reason
    monkeypatch.setattr(precision, "kernels", lambda: ())
    with pytest.raises(RecipeError, match="not exact"):
        choose_precision(recipe(), policy)
    with pytest.raises(RecipeError, match="bfloat16"):
        choose_precision(recipe(), tiny(tiny_model, dtype="bfloat16"))
    with pytest.raises(RecipeError, match="for CPUs"):
        refuse_elsewhere(recipe(), torch.device("cuda"), half=False)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"sampler": {"precision": "int8"}, "loss": {"importance_cap": 0.0}}, "set loss.importance_cap"),
        ({"sampler": {"precision": "int8", "urls": ["http://localhost:1"]}}, "in this process"),
        ({"sampler": {"precision": "auto", "urls": ["http://localhost:1"]}}, "in this process"),
        ({"sampler": {"precision": "int4"}}, "precision"),
    ],
)
def test_settings_that_do_not_go_together(settings, words):
    with pytest.raises(RecipeError, match=words):
        load_recipe(settings)


def test_the_setting_brings_the_importance_cap_and_is_written_only_if_it_is_used():
    assert recipe().loss.importance_cap == 2.0 and recipe("auto").loss.importance_cap == 0.0
    assert "precision" in recipe().to_toml() and "precision" not in recipe("float32").to_toml()
    begun = recipe("auto").with_precision("int8")
    assert begun.loss.importance_cap == 2.0 and recipe("auto").as_begun(begun) == begun
    assert recipe("auto").as_begun(recipe("float32")) == recipe("float32")
    assert recipe("float32").as_begun(begun) == recipe("float32")
    larger = begun.with_microbatch(8192).with_recomputing(True)
    assert recipe("auto").as_begun(larger) == larger and recipe("float32").as_begun(larger).train.pass_tokens == 8192
    assert recipe("float32").as_begun(larger).train.recomputes and not recipe("float32").train.recomputes
    assert larger.as_begun(begun) == larger


def test_answers_to_users_are_in_8_bits_if_asked(tiny_model, small):
    settings = {"model": {"name": tiny_model, "device": "cpu", "lora_rank": 4}, "sampler": {"precision": "int8"}}
    asked = load_recipe(settings)
    plain = open_model(asked.with_precision("float32"), None, 2)
    opened = open_model(asked, None, 2)
    try:
        assert "int8" in opened.about and "int8" not in plain.about
        assert opened.sampler.sampler.precision.int8 and opened.fingerprint != plain.fingerprint
    finally:
        opened.sampler.close()
        plain.sampler.close()


def test_a_session_samples_in_8_bits_and_measures_in_float32(small):
    session = open_session(load_recipe("demo", ["sampler.precision=auto"]))
    try:
        assert session.recipe.sampler.precision == session.precision.name
        session.sampler.precision = INT8
        assert session.measuring.precision == FLOAT32 and session.measuring.path == session.sampler.path
        json.dumps(session.precision.to_dict())
    finally:
        session.close()
