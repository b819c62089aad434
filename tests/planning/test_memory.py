"""The plan's memory: it counts what will run, and a refusal names settings with which the same plan fits."""

from __future__ import annotations

import contextlib
import functools
import re

import pytest
import torch
import transformers

from motif.config import load_recipe
from motif.errors import RecipeError
from motif.models.shape import Shape, model_shape
from motif.planning import plan as planning
from motif.planning.devices import USABLE
from motif.planning.memory import FILLED, GIB, LARGEST_PASS, memory, sampled_at_once, smaller, trainable
from motif.planning.plan import Plan, make_device_plan, make_plan
from support.architectures import ZOO

SMOLLM2 = Shape.dense(134_515_008, 30, 576, 1536, 49_152, 2 * 30 * 3 * 64, 8192)


def needed(*settings: str, held_out: int = 0) -> float:
    recipe = load_recipe({"rollout": {"branching": [4, 2, 1], "questions_per_step": 1}}, settings)
    return sum(memory(recipe, SMOLLM2, 300, held_out, half=False, cpu=True).values()) / GIB


def test_nothing_held_out_is_nothing_to_evaluate():
    assert needed() == needed("eval.questions=0") < needed(held_out=4) + 1e-9
    assert needed(held_out=30) < needed(held_out=200) == needed(held_out=5000)
    assert needed(held_out=5000) == needed("eval.questions=200", held_out=200)


def test_longer_and_more_rounds_count_only_where_they_are_evaluated():
    assert needed("eval.rounds=[1,3,9]", "rounds.carry='all'") == needed("rounds.carry='all'")
    assert needed("rounds.carry='all'") > needed()
    assert needed("eval.matched=true") == needed()
    assert needed("eval.matched=true", held_out=100) > needed(held_out=100)


def test_probes_count():
    recipe = load_recipe("demo", ["probe.questions=6", "rollout.questions_per_step=1", "eval.questions=0"])
    assert sampled_at_once(recipe, 100) == min(recipe.rollout.max_rows, 6 * 8 * max(4, recipe.probe.continuations))


@pytest.mark.parametrize(
    ("settings", "part", "names"),
    [
        (
            ["train.microbatch_tokens=256", "rollout.max_rows=4096", "rollout.questions_per_step=99"],
            "sampling",
            ["rollout.max_rows"],
        ),
        (["train.microbatch_tokens=2000000"], "update", ["train.microbatch_tokens"]),
        (
            ["train.microbatch_tokens=2000000", "rollout.max_rows=100000", "rollout.questions_per_step=900"],
            "update",
            ["rollout.max_rows", "train.microbatch_tokens"],
        ),
    ],
)
def test_a_refusal_names_settings_that_fit(monkeypatch, settings, part, names):
    monkeypatch.setattr(planning, "available_memory", lambda device: 0.9 * GIB)
    settings = [*settings, "train.activation_checkpointing=false"]
    with pytest.raises(RecipeError) as refused:
        make_plan(load_recipe("demo", settings))[0].refuse_if_too_big()
    assert f"largest part is {part}" in str(refused.value)
    changes = dict(re.findall(r"(\w+\.\w+) = (\w+)", str(refused.value)))
    assert sorted(changes) == names
    advised = [f"{name}={value}" for name, value in changes.items()]
    make_plan(load_recipe("demo", settings + advised))[0].refuse_if_too_big()
    larger = [f"{name}={2 * int(value)}" for name, value in changes.items()]
    with pytest.raises(RecipeError):
        make_plan(load_recipe("demo", settings + larger))[0].refuse_if_too_big()


def planned(monkeypatch, device: str, free: float, *settings: str) -> Plan:
    monkeypatch.setattr(planning, "available_memory", lambda device: free)
    monkeypatch.setattr(planning, "pick_device", lambda name: torch.device(device))
    monkeypatch.setattr(planning, "weight_dtype", lambda model, device: torch.float32)
    monkeypatch.setattr(planning, "_matmul_rate", lambda *args: (1e12, 1.0))
    return make_plan(load_recipe("demo", settings))[0]


def test_a_pass_takes_the_memory_that_is_free_on_a_gpu(monkeypatch):
    auto = "train.microbatch_tokens=auto"
    for tokens in (4096, 16384, LARGEST_PASS):
        exact = planned(monkeypatch, "cuda", 1e15, f"train.microbatch_tokens={tokens}")
        least = sum(exact.memory.values()) / FILLED
        assert planned(monkeypatch, "cuda", 1.0001 * least, auto).pass_tokens == tokens
        less = planned(monkeypatch, "cuda", 0.9999 * least, auto)
        assert less.pass_tokens == max(4096, tokens // 2)
        assert ("update", f"passes of {less.pass_tokens:,} tokens") in less.rows()
    assert planned(monkeypatch, "cuda", 1e15, auto).pass_tokens == LARGEST_PASS
    assert planned(monkeypatch, "cuda", 1e15, "train.microbatch_tokens=5000").pass_tokens == 5000
    assert planned(monkeypatch, "cpu", 1e15, auto).pass_tokens == 4096


def test_activations_are_recomputed_only_where_memory_is_short(monkeypatch):
    words, setting = (
        "activations are recomputed, because memory is short without that",
        "train.activation_checkpointing",
    )
    for device, passes in (("cpu", ""), ("cuda", "passes of 4,096 tokens")):
        run = functools.partial(planned, monkeypatch, device)
        kept, less = (run(1e15, "train.microbatch_tokens=4096", f"{setting}={active}") for active in ("false", "true"))
        most, least = (sum(plan.memory.values()) for plan in (kept, less))
        assert least < most
        for free, one, row in ((most, kept, passes), (most - 1, less, f"{passes}, {words}"), (least - 1, kept, passes)):
            plan = run(free, "train.microbatch_tokens=4096")
            assert plan.workload.recipe == one.workload.recipe and plan.memory == one.memory
            assert dict(plan.rows()).get("update", "") == row.strip(", ")
            with pytest.raises(RecipeError) if free < least else contextlib.nullcontext():
                plan.refuse_if_too_big()
        assert not run(most - 1, f"{setting}=false").workload.recipe.train.recomputes


def test_a_plan_for_other_devices_recomputes_only_where_nothing_else_fits():
    given = ["train.microbatch_tokens=200000", "model.adapter=full"]  # no server would sample
    parts = {
        active: make_device_plan(
            load_recipe("demo", [*given, f"train.activation_checkpointing={active}"]), "H100"
        ).forecast
        for active in ("false", "true")
    }
    most, least = (sum(parts[active].local_memory().values()) / USABLE / GIB for active in ("false", "true"))
    for room, recomputes in [(1.01 * most, False), ((most + least) / 2, True)]:
        plan = make_device_plan(load_recipe("demo", given), f"memory={room} tflops=1 bandwidth=1")
        assert plan.forecast.recipe.train.recomputes == recomputes
        assert ("update" in dict(plan.rows())) == recomputes
    with pytest.raises(RecipeError, match=r"does not fit"):
        make_device_plan(load_recipe("demo", given), f"memory={0.5 * least} tflops=1 bandwidth=1")


def test_where_nothing_fits_the_advice_is_general(monkeypatch):
    monkeypatch.setattr(planning, "available_memory", lambda device: 0.1 * GIB)
    with pytest.raises(RecipeError, match=r"The largest part is update .* use a smaller train\.microbatch_tokens"):
        make_plan(load_recipe("demo"))[0].refuse_if_too_big()
    assert smaller(load_recipe("demo"), 256, "update", lambda recipe: False) is None


def test_a_refusal_for_other_devices_names_settings_that_fit():
    on = "memory=1 tflops=1 bandwidth=1"
    settings = ["train.microbatch_tokens=2000000"]
    with pytest.raises(RecipeError, match=r"set train\.microbatch_tokens = ") as refused:
        make_device_plan(load_recipe("demo", settings), on)
    found = re.search(r"tokens = (\d+)", str(refused.value))
    assert found
    make_device_plan(load_recipe("demo", [f"train.microbatch_tokens={found[1]}"]), on)


@pytest.mark.parametrize("name", ZOO)
def test_every_architecture_has_a_plan_of_its_memory(name, tmp_path):
    one = ZOO[name]
    text = one.options["text_config"] if one.nested else one.options
    text = dict.fromkeys(("vocab_size", *one.words), 99) | {"pad_token_id": 0} | text
    config = getattr(transformers, one.config)(**(one.options | {"text_config": text} if one.nested else text))
    config.save_pretrained(tmp_path)
    shape = model_shape(str(tmp_path))
    assert shape.vocabulary == 99 and shape.hidden >= 32 and shape.layers >= 2
    for adapter in ("lora", "full"):
        recipe = load_recipe("demo", [f"model.adapter='{adapter}'", "model.lora_rank=4"])
        assert all(part > 0 for part in memory(recipe, shape, 100, 10, half=False, cpu=True).values())
        assert trainable(recipe, shape) == (4 * shape.adapter if adapter == "lora" else shape.counts.text)
