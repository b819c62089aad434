"""Planning for devices that are somewhere else: invariants of the model, refusals, and a check against a real run."""

import dataclasses
import json
import math
import os
import statistics
import subprocess
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from motif.config import load_recipe
from motif.errors import MotifError, RecipeError, RunFolderError, UsageError
from motif.models.shape import Shape
from motif.planning.colocation import BACK, OUT
from motif.planning.copies import Replica
from motif.planning.devices import TABLE, parse_devices
from motif.planning.forecast import Forecast
from motif.planning.lengths import Lengths, lengths_of, measured
from motif.planning.plan import make_device_plan
from motif.planning.workload import workload_of
from support import forked

QWEN_3B = Shape.dense(3_085_938_688, 36, 2048, 11_008, 151_936, 2 * 36 * 2 * 128, 32_768)
QWEN_72B = Shape.dense(72_706_203_648, 80, 8192, 29_568, 152_064, 2 * 80 * 8 * 128, 32_768)
AT_LIMITS = Lengths()


def forecast(recipe="recommended", settings=(), on="8xH100", shape=QWEN_3B, lengths=AT_LIMITS) -> Forecast:
    count, device = parse_devices(on)
    data = {"prompt": 250, "seam": 30, "held_out": 1319, "grader": "numeric"}
    tree = ["rollout.branching=[8,4,1]"] if recipe == "recommended" else []
    return Forecast(load_recipe(recipe, [*tree, *settings]), shape, device, count, lengths, **data)


# -- devices -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "count", "name"),
    [
        ("8xH100", 8, "H100"),
        ("8 x h100", 8, "H100"),
        ("2×A100-80GB", 2, "A100-80"),
        ("H200", 1, "H200"),
        ("4090", 1, "RTX-4090"),
        ("NVIDIA GeForce RTX 3090", 1, "RTX-3090"),
        ("16*t4", 16, "T4"),
    ],
)
def test_devices_by_name(text, count, name):
    assert parse_devices(text) == (count, TABLE[name])


def test_devices_by_description():
    count, device = parse_devices("4x memory=24 tflops=71, bandwidth=0.94")
    assert (count, device.memory, device.tflops, device.bandwidth) == (4, 24, 71, 0.94)
    assert parse_devices("memory=8 tflops=.1 bandwidth=.02 overhead=0.1")[1].overhead == 0.1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("8xH10", "choose H100 or"),
        ("A100", "A100-80 or A100-40"),
        ("2x RTX-4900", "did you mean 'RTX-4090'?"),
        ("0xH100", "number of devices"),
        ("", "number of devices"),
        ("8x", "unknown device '8x'"),
        ("memory=24 tflops=71", "bandwidth= in TB/s"),
        ("memory=24 tflops=71 bandwith=1", "did you mean 'bandwidth'?"),
        ("memory=24 tflops=0 bandwidth=1", "above 0"),
        ("memory=24 tflops=many bandwidth=1", "needs a number"),
        ("memory=24 tflops=nan bandwidth=1", "above 0"),
    ],
)
def test_unknown_devices_are_refused(text, words):
    with pytest.raises(UsageError) as refused:
        parse_devices(text)
    assert words in str(refused.value)


# -- tokens ------------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda b: b[0] > 1), st.integers(1, 6))
def test_tokens_at_the_limits_are_the_exact_tree_counts(branching, questions):
    plan = forecast("paper", [f"rollout.branching={branching}", f"rollout.questions_per_step={questions}"])
    sizes = [questions * math.prod(branching[: depth + 1]) for depth in range(len(branching))]
    assert [level.responses for level in plan.step_levels()] == sizes
    rollout = plan.recipe.rollout
    assert plan.tokens == sizes[0] * rollout.tokens_first + sum(sizes[1:]) * rollout.tokens_continue


def test_measured_lengths_give_the_expected_tokens(tmp_path):
    write_trees(tmp_path, [(10, [4, 6]), (20, [8, 2])])
    lengths = measured(tmp_path)
    plan = forecast("paper", ["rollout.branching=[2,2]"], lengths=lengths)
    assert plan.tokens == 2 * 15 + 4 * 5
    assert plan.step_levels()[1].prompt == 250 + 7  # the notes added 7 tokens to the prompt in that run
    cut = forecast("paper", ["rollout.branching=[2,2,1]", "rollout.tokens_continue=5"], lengths=lengths)
    assert cut.tokens == 2 * 15 + 2 * (4 + 5 + 5 + 2)  # none above the limit; round 3 as round 2


def test_what_replaces_dead_questions_is_counted_as_measured_or_at_worst(tmp_path):
    write_trees(tmp_path, [(10, [4, 6]), (20, [8, 2])])  # one tree, without any advantage: dead
    one = forecast("paper", ["rollout.branching=[2,2]"], lengths=measured(tmp_path))
    assert one.dead == 1 and one.tokens == 2 * 15 + 4 * 5  # nothing is replaced
    settings = ["rollout.branching=[2,2]", "rollout.questions_per_step=4", "rollout.refill=3"]
    worst = forecast("paper", settings)
    assert worst.tokens == 3 * forecast("paper", settings[:-1]).tokens
    half = forecast("paper", settings, lengths=dataclasses.replace(AT_LIMITS, dead=0.5))
    assert [levels[0].requests for levels in half.step_waves()] == [4, 2, 1]
    assert half.kept == 1 - 0.5**3
    guessed = dataclasses.replace(worst, right=0.25).local(1)
    assert dataclasses.replace(forecast("paper", settings[:-1]), right=0.25).local(1).sampling < guessed.sampling
    assert guessed.sampling < worst.local(1).sampling
    shown = dict(workload_of(load_recipe("demo", ["rollout.refill=3"])).rows("here"))
    assert "up to 3 tried for each" in shown["each step"]


def test_lengths_need_a_run_with_trees(tmp_path):
    with pytest.raises(RunFolderError, match="holds no trees"):
        measured(tmp_path)
    (tmp_path / "trees.jsonl").write_text("")
    with pytest.raises(RunFolderError, match="holds no trees"):
        measured(tmp_path)


def write_trees(folder, responses, prompt=100):
    """One tree: first responses with so many tokens, and those of their continuations."""
    nodes = [
        {
            "tokens": first,
            "prompt_tokens": prompt,
            "children": [{"tokens": later, "prompt_tokens": prompt + 7} for later in below],
        }
        for first, below in responses
    ]
    (folder / "trees.jsonl").write_text(json.dumps({"step": 1, "responses": nodes}) + "\n")


# -- time --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", ["paper", "recommended", "vanilla-grpo", "multi-round-grpo", "original-code"])
@pytest.mark.parametrize("device", ["H100", "A100-40"])
def test_more_devices_are_never_slower(recipe, device):
    counts = (1, 2, 3, 4, 8, 70)
    seconds = [forecast(recipe, ["rollout.max_rows=64"], f"{count}x{device}").best.seconds for count in counts]
    assert seconds == sorted(seconds, reverse=True)


def test_devices_that_do_not_help_are_not_used():
    best = forecast("paper", on="64xH100").best  # one question a step: at most 32 requests, and one training process
    assert best.devices < 64
    assert best.trainers == 1


@pytest.mark.parametrize("change", [{"tflops": 2000}, {"bandwidth": 7}, {"tflops": 2000, "bandwidth": 7}])
def test_a_better_device_is_never_slower(change):
    plan = forecast()
    better = dataclasses.replace(plan, device=dataclasses.replace(plan.device, **change))
    assert better.served(4, 1).seconds < plan.served(4, 1).seconds
    assert better.local(1).seconds <= plan.local(1).seconds


@pytest.mark.parametrize(
    "settings",
    [
        ["rollout.tokens_first=2048"],
        ["rollout.tokens_continue=2048"],
        ["rollout.branching=[16,4,1]"],
        ["rollout.branching=[8,8,1]"],
        ["rollout.branching=[8,4,1,1]"],
        ["rollout.questions_per_step=8"],
        ["rounds.note_tokens=512"],
        ["loss.inner_epochs=2"],
        ["loss.kl_beta=0.1"],
        ["model.lora_rank=256"],
    ],
)
def test_more_work_takes_longer(settings):
    assert forecast(settings=settings).served(4, 1).seconds > forecast().served(4, 1).seconds


def test_overlap_takes_the_longer_of_the_two():
    plan = forecast()
    turns = plan.served(4, 1)
    overlap = dataclasses.replace(turns, kind="overlap")
    assert overlap.seconds == pytest.approx(max(overlap.sampling, overlap.training) + overlap.weight_sync)
    assert turns.seconds == pytest.approx(turns.sampling + turns.training + turns.weight_sync)


def test_a_server_beside_the_trainer_on_one_device_takes_turns_with_it():
    beside = forecast("paper", on="1xH100")
    together, local = beside.best, beside.local(1)
    assert together.kind == "colocated" and together.devices == 1
    assert together.sampling < local.sampling and together.training == local.training
    [asleep] = forecast("paper", ["sampler.colocate=true", "sampler.sleep=always"], on="1xH100").colocations()
    weights = beside.server_memory()["weights"]
    assert asleep.weight_sync - together.weight_sync == pytest.approx(weights / OUT + weights / BACK)
    tight = forecast("paper", on="1x memory=22 tflops=71 bandwidth=1")
    assert tight.best.weight_sync == pytest.approx(asleep.weight_sync)  # it sleeps where memory is short
    assert forecast("paper", on="1x memory=16 tflops=71 bandwidth=1").colocations() == []
    assert forecast(settings=["model.adapter=full"]).colocations() == []


def test_processes_share_the_responses_to_fewer_questions():
    paper = forecast("paper", on="8xH100")
    assert paper.local(8).sampling < paper.local(2).sampling < paper.local(1).sampling
    assert paper.local(8).training < paper.local(1).training
    refilled = forecast("paper", ["rollout.refill=2"], on="8xH100")
    assert refilled.local(8).sampling == refilled.local(1).sampling


def test_training_one_round_takes_less_than_training_all():
    first, everything = (
        forecast(settings=[f"credit.train_rounds={which}"]).local(1).training for which in ("first", "all")
    )
    levels = forecast().step_levels()
    assert 3 < everything / first < 1.5 * sum(level.tokens for level in levels) / levels[0].tokens


def test_all_weights_take_half_as_much_again_to_train():
    levels = forecast().step_levels()
    replica = Replica(TABLE["H100"])
    plain = ["train.activation_checkpointing=false"]
    lora = forecast(settings=[*plain, "model.lora_rank=1"])
    full = forecast(settings=[*plain, "model.adapter=full"])
    assert 1.35 < full.update_time(levels, replica) / lora.update_time(levels, replica) < 1.5


def test_one_row_is_bound_by_bandwidth_and_many_by_arithmetic():
    plan, replica = forecast(), Replica(TABLE["H100"], server=True)
    one, two, many, more = plan.step_time(replica, np.array([1, 2, 4000, 8000]), 100.0)
    assert two < 1.01 * one
    assert more > 1.9 * many


def test_a_tail_of_long_responses_costs_more_than_their_mean():
    flat = Lengths("flat", (np.array([400]),), (0.0,))
    tail = Lengths("tail", (np.array([200] * 9 + [2200]),), (0.0,))
    settings = ["rollout.tokens_first=4096", "rollout.tokens_continue=4096"]
    of_flat, of_tail = (forecast("paper", settings, lengths=lengths) for lengths in (flat, tail))
    assert of_flat.tokens == of_tail.tokens
    assert of_tail.local(1).sampling > 2 * of_flat.local(1).sampling


def test_rows_that_do_not_fit_come_one_after_the_other():
    plan = forecast(settings=["rollout.questions_per_step=64"])
    few, many = (Replica(TABLE["H100"], server=True, rows=rows) for rows in (32, 256))
    assert plan.sampling_time(plan.step_levels(), few) > 2 * plan.sampling_time(plan.step_levels(), many)


# -- memory ------------------------------------------------------------------------------------------------------------


def test_memory_adds_up():
    plan = forecast()
    parts = plan.local_memory()
    assert set(plan.trainer_memory()) == set(parts) - {"sampling"}
    assert all(plan.trainer_memory()[name] == parts[name] for name in plan.trainer_memory())
    server = plan.server_memory()
    assert server["weights"] == 2 * QWEN_3B.parameters
    assert sum(server.values()) <= plan.device.bytes
    per_row = (250 + 256 + 1024) * 36 * 2 * 2 * 128 * 2
    assert server["cache"] == pytest.approx(plan.server_rows() * per_row, abs=per_row)


def test_an_evaluation_fills_the_rows_that_training_leaves_empty():
    tested, untested = (forecast("paper", [f"eval.questions={n}"]).local_memory()["sampling"] for n in (1319, 0))
    assert tested > 2 * untested  # 256 rows, where a step of one question has 32
    assert forecast("paper", ["eval.questions=20"]).local_memory()["sampling"] == untested


def test_rows_of_a_server_are_bounded_by_memory_and_by_the_recipe():
    assert forecast(on="H100").server_rows() == load_recipe("recommended").rollout.max_rows
    small = forecast(on="memory=16 tflops=100 bandwidth=1").server_rows()
    assert 1 <= small < forecast(on="memory=18 tflops=100 bandwidth=1").server_rows() < 256


def test_what_does_not_fit_one_device_says_how_many_are_needed():
    with pytest.raises(RecipeError, match=r"does not fit one H100.* At least (\d+) such devices are needed") as refused:
        forecast(shape=QWEN_72B, on="2xH100").layouts  # noqa: B018
    needed = int(str(refused.value).split("At least ")[1].split()[0])
    with pytest.raises(RecipeError, match=f"--on names {needed - 1}"):
        forecast(shape=QWEN_72B, on=f"{needed - 1}xH100").layouts  # noqa: B018
    enough = forecast(shape=QWEN_72B, on=f"{needed}xH100")
    assert {layout.kind for layout in enough.layouts} == {"servers", "overlap"}
    assert enough.best.devices == needed
    assert sum(enough.trainer_memory(enough.devices_per_trainer).values()) <= enough.device.bytes
    assert sum(enough.trainer_memory(enough.devices_per_trainer - 1).values()) > enough.device.bytes


def test_all_weights_cannot_be_trained_with_servers():
    assert [layout.kind for layout in forecast(settings=["model.adapter=full"]).layouts] == ["local"]
    with pytest.raises(RecipeError, match=r"Servers need model.adapter = 'lora'"):
        forecast(settings=["model.adapter=full"], on="8x4090").layouts  # noqa: B018


def test_sharded_weights_fit_where_whole_ones_do_not():
    full = ["model.adapter=full", "train.activation_checkpointing=true", "rollout.max_rows=16"]
    with pytest.raises(RecipeError, match=r"(\d+) such devices and train.shard = 'weights' would be enough") as refused:
        forecast(settings=full, on="8xA100-40").layouts  # noqa: B018
    needed = int(str(refused.value).split(" such devices")[0].split()[-1])
    sharded = forecast(settings=[*full, "train.shard=weights"], on="8xA100-40")
    assert sharded.min_processes == needed > 1
    assert needed <= sharded.best.devices <= 8
    room = sharded.device.bytes
    assert sum(sharded.local_memory(needed).values()) <= room < sum(sharded.local_memory(needed - 1).values())
    parts = sharded.local_memory(8)
    assert parts["optimiser"] == pytest.approx(12 * QWEN_3B.parameters / 8)
    # Sampling has all weights at once.
    assert parts["sampling"] > 4 * QWEN_3B.parameters


def test_a_hopeless_device_is_refused():
    with pytest.raises(RecipeError, match="not enough"):
        forecast(on="8x memory=1 tflops=1 bandwidth=1").layouts  # noqa: B018


# -- the command, and a measured run -----------------------------------------------------------------------------------


def motif(*arguments, cwd):
    command = [forked.python(), "-m", "motif", *arguments]
    return subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | {"COLUMNS": "120"}
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--on", "8xH100"], "goes with --dry-run"),
        (["--dry-run", "--lengths", "runs/demo"], "goes with --on"),
    ],
)
def test_options_that_say_nothing_are_refused(arguments, words, tmp_path):
    done = motif("train", "demo", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert words in done.stderr


@pytest.mark.parametrize(
    ("on", "lengths", "words"),
    [("8xH1000", None, "did you mean 'H100'"), ("H100", "nowhere", "holds no trees")],
)
def test_devices_and_lengths_are_looked_at_first(on, lengths, words):
    missing = load_recipe("demo", ["model.name=/nowhere"])  # would be refused next
    with pytest.raises(MotifError, match=words):
        make_device_plan(missing, on, lengths)


FACTOR = 4.0
"""How far the model may be from the quickest measured step of the embedded model on this machine's CPU, either way.
On a quiet machine it says 0.4 to 0.5 of the sampling and 1.8 to 2.9 of the update; what else runs there slows both."""


@pytest.mark.slow
def test_the_single_machine_end_agrees_with_a_measured_run(tmp_path):
    from motif.models.device import pick_device
    from motif.models.shape import model_shape
    from motif.planning.plan import _matmul_rate
    from motif.training.loop import train

    settings = ["train.steps=5", "eval.questions=0"]
    began, busy = time.perf_counter(), time.process_time()
    train("demo", tmp_path / "run", settings=settings)
    share = min(1.0, (time.process_time() - busy) / (time.perf_counter() - began))  # of a core: others may compute, too
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line.get("step", 0) > 1 and "time/total" in line]
    shape = model_shape("embedded")
    # The quickest of several: what else runs there may slow one.
    rate = max(_matmul_rate.__wrapped__(pick_device("cpu"), shape.hidden, shape.intermediate)[0] for _ in range(8))
    # What a model of this size moves stays in the processor's caches: the bandwidth of memory plays no part.
    # On one core an update comes several times closer to the peak than on a GPU.
    described = f"memory=8 tflops={2.5 * rate / 1e12} bandwidth=10 overhead=0.1"
    recipe = load_recipe("demo", [*settings, "model.dtype=float32"])
    plan = make_device_plan(recipe, described, tmp_path / "run").forecast
    assert plan.tokens == pytest.approx(steps[-1]["ledger/generated_tokens"] / steps[-1]["step"])
    for seen, said in (("time/sample", plan.best.sampling), ("time/update", plan.best.training)):
        # The plan is of a step of average size: the quickest step is the smallest one.
        assert 1 / FACTOR < said / (share * statistics.median(line[seen] for line in steps)) < FACTOR, seen
    text = motif("train", "demo", "--dry-run", "--on", "8xL4", "--lengths", str(tmp_path / "run"), cwd=tmp_path).stdout
    assert "expect a factor of 2" in " ".join(text.split())
    assert "GPU-hours" in text


# -- warm starts, and trajectories that end early ----------------------------------------------------------------------

WARM = ["warmstart.source=solutions", "warmstart.steps=40", "warmstart.look_every=10"]


def test_a_warm_start_is_counted_with_its_looks_and_its_evaluation():
    none, steps = forecast().local(1), forecast(settings=WARM).local(1)
    assert none.warm == (0.0, 0.0) and all(part > 0 for part in steps.warm)
    assert {**vars(steps), "warm": None} == {**vars(none), "warm": None}
    twice = forecast(settings=[*WARM, "warmstart.steps=80"]).local(1)
    assert twice.warm[1] == pytest.approx(2 * steps.warm[1])  # updates
    assert twice.warm[0] == pytest.approx(steps.warm[0] * 9 / 5)  # looks: before, and every ten steps
    run = forecast(settings=WARM)
    assert run.run_seconds(steps, 0) == pytest.approx(forecast().run_seconds(none, 0) + sum(steps.warm))


def test_the_models_own_answers_are_counted_for_as_many_questions_as_there_are():
    own = ["warmstart.source=self", "warmstart.iterations=2", "warmstart.questions=100"]
    whole = forecast(settings=own).local(1).warm[0]
    few = dataclasses.replace(forecast(settings=own), train=50).local(1).warm[0]
    looks = forecast(settings=[*WARM, "warmstart.steps=200"]).local(1).warm[0]
    assert looks < few < whole


def test_trajectories_end_as_early_as_a_run_has_measured():
    def nodes(ended):
        leaf = {"tokens": 10, "prompt_tokens": 20}
        return [leaf | {"unused": [1, 1]}] * ended + [leaf | {"children": [leaf | {"children": [leaf]}]}] * (4 - ended)

    measured_lengths = lengths_of([{"responses": nodes(3)}], "a run")
    assert measured_lengths.reach == (1.0, 0.25, 0.25)
    assert lengths_of([{"responses": nodes(0)}], "a run").reach == (1.0, 1.0, 1.0)
    levels = forecast(lengths=measured_lengths).step_levels(4)
    every = forecast(lengths=lengths_of([{"responses": nodes(0)}], "a run")).step_levels(4)
    assert [level.requests for level in levels] == [every[0].requests, *(one.requests // 4 for one in every[1:])]
