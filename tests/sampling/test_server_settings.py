"""What a recipe says of servers: what is refused, what follows from it, and the command that starts them."""

import itertools
import shlex

import pytest

from motif.config import load_recipe
from motif.errors import RecipeError
from motif.runs.settings import binding_settings
from motif.sampling.vllm.launch import commands

LOCAL = 'sampler.urls=["http://127.0.0.1:8000", "http://localhost:8001/v1/"]'
AWAY = 'sampler.urls=["http://gpu1:8000"]'


def recipe(*settings):
    return load_recipe("demo", ["model.adapter=lora", *settings])


def test_addresses_are_taken_as_people_write_them():
    assert recipe(LOCAL).sampler.urls == ["http://127.0.0.1:8000", "http://localhost:8001"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.adapter=full", LOCAL], "TRL host"),
        (['sampler.urls=["gpu1:8000"]'], "write it like http://gpu1:8000"),
        (['sampler.urls=["http://127.0.0.1:8000", "http://127.0.0.1:8000/v1"]'], "twice"),
        ([AWAY], "another machine"),
        (["sampler.overlap=true"], "overlap needs servers"),
        ([LOCAL, "sampler.overlap=true", "loss.importance_cap=0"], "set loss.importance_cap"),
        ([AWAY, "sampler.copy_command=scp -r {source} {host}:{target}"], "copy_command needs adapter_dir"),
        ([AWAY, "sampler.adapter_dir=/a", "sampler.copy_command=scp {src} {target}"], "may hold"),
        ([AWAY, "sampler.adapter_dir=/a", "sampler.copy_command=scp -r {source} {host}:/x"], "needs {target}"),
        ([AWAY, "sampler.adapter_dir=/a", "sampler.remove_command=rm {target}"], "nothing to remove"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(RecipeError, match=message):
        recipe(*settings)


def test_importance_weights_are_on_with_servers_unless_the_recipe_says_otherwise():
    assert recipe().loss.importance_cap == 0
    assert recipe(LOCAL).loss.importance_cap == 2
    assert recipe(LOCAL, "loss.importance_cap=0").loss.importance_cap == 0
    assert recipe(LOCAL, "loss.importance_cap=5").loss.importance_cap == 5


def test_the_resolved_recipe_reads_back(tmp_path):
    found = recipe(AWAY, "sampler.adapter_dir=/a", "sampler.copy_command=scp -r {source} {host}:{target}")
    (tmp_path / "recipe.toml").write_text(found.to_toml())
    assert load_recipe(tmp_path / "recipe.toml") == found


def test_other_servers_are_no_other_run_but_other_draws_are():
    one = binding_settings(recipe(LOCAL))
    assert one == binding_settings(recipe(AWAY, "sampler.adapter_dir=/a", "sampler.timeout=5"))
    assert one != binding_settings(recipe(LOCAL, "sampler.overlap=true"))
    assert one != binding_settings(recipe("loss.importance_cap=2"))


def test_another_number_of_threads_is_another_run_because_its_last_bits_differ():
    assert binding_settings(recipe("train.threads=1")) != binding_settings(recipe("train.threads=2"))


def test_the_command_starts_a_server_for_each_address():
    first, second = commands(recipe(LOCAL, "model.lora_rank=20", "rollout.window=200"))
    words = shlex.split(first)
    assert words[:3] == ["VLLM_ALLOW_RUNTIME_LORA_UPDATING=True", "vllm", "serve"]
    options = dict(itertools.pairwise(words))
    assert options["--port"] == "8000"
    assert options["--max-lora-rank"] == "32"
    assert options["--max-model-len"] == "200"
    assert options["--logprobs-mode"] == "processed_logprobs"
    assert options["--generation-config"] == "vllm"
    assert options["--dtype"] == "float32"
    assert "--port 8001" in second
    assert len(commands(recipe())) == 1
    with pytest.raises(RecipeError, match="rank 512 at most"):
        commands(recipe("model.lora_rank=1000"))
    with pytest.raises(RecipeError, match="lora"):
        commands(load_recipe("demo"))


def test_the_plan_says_who_samples_and_asks_no_memory_for_it():
    from motif.planning.plan import make_plan

    plan, _ = make_plan(recipe(LOCAL, "sampler.overlap=true"))
    rows = dict(plan.rows())
    assert "on 2 vLLM servers, each step's while the one before trains: http://127.0.0.1:8000" in rows["sampling"]
    assert plan.memory["sampling"] == 0
    assert "not included" in rows["time"]
