"""MOTIF as a verifiers v1 environment, against an OpenAI-compatible server on this machine."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from motif.config import load_recipe
from motif.errors import RecipeError
from support import ROOT

pytest.importorskip("verifiers", minversion="0.4")

import verifiers.v1 as vf
from verifiers.v1.utils.loaders import environment_class, load_environment

from motif.integrations.verifiers import MotifEnv, MotifEnvConfig, opened, questions_of

EXAMPLE = ROOT / "examples" / "verifiers_motif"
RECIPE = """
model = "embedded"
[data]
task = "arithmetic"
[data.arithmetic]
operation = "multiply"
smallest = 11
largest = 13
[rounds]
system_prompt = "Think in {rounds} rounds."
note_tokens = 16
[rollout]
branching = [2, 2, 1]
tokens_first = 7
tokens_continue = 9
temperature_first = 0.9
[credit]
format_weight = 0.25
"""


class Model:
    """A server that writes a good or a bad note in round 1, in turns; from a good note every second trajectory ends
    right, from a bad one none. It keeps the requests it got."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()
        self.turns = {"first": 0, "last": 0}
        self.fail_in_round = 0
        model = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status, answer = model.answer(body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            request_queue_size = 128  # an episode's trajectories come at once

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        text = body["messages"][-1]["content"]
        with self.lock:
            self.requests.append(body)
            current = 3 if "final" in text else 2 if "Current round: 2" in text else 1
            if current == self.fail_in_round:
                return 400, {"error": {"message": "out of order"}}
            finish = "stop"
            if current == 1:
                self.turns["first"] += 1
                good = self.turns["first"] % 2
                said = f"<reasoning>hm</reasoning><answer>{'good' if good else 'bad'}</answer>"
            elif current == 2:
                said, finish = ("<answer>still good" if "good" in text else "<answer>still bad"), "length"
            else:
                a, b = (int(word) for word in text.split("?")[0].split() if word.isdigit())
                self.turns["last"] += "good" in text
                right = "good" in text and self.turns["last"] % 2
                said = f"<reasoning>.</reasoning><answer>\\boxed{{{a * b if right else 1}}}</answer>"
        message = {"role": "assistant", "content": said}
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
        usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
        head = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"]}
        return 200, head | {"choices": [choice], "usage": usage}


@pytest.fixture
def model():
    model = Model()
    yield model
    model.server.shutdown()
    model.server.server_close()


@pytest.fixture
def recipe(tmp_path):
    """Writes the recipe, with changes; returns its path."""

    def write(change: tuple[str, str] = ("", "")) -> str:
        opened.cache_clear()
        questions_of.cache_clear()
        path = tmp_path / "recipe.toml"
        path.write_text(RECIPE.replace(*change) if change[0] else RECIPE)
        return str(path)

    return write


def play(recipe: str, model: Model, episodes: int = 1) -> list[Any]:
    """Run episodes of the first question, one after the other."""
    env = load_environment(MotifEnvConfig(taskset={"id": "motif-v1", "recipe": recipe}))
    client = vf.EvalClientConfig(base_url=model.url, api_key_var="MOTIF_TEST_KEY")
    context = vf.ModelContext(model="fake", client=client)

    async def run() -> list[Any]:
        task = next(iter(env.taskset))
        async with env.serving():
            return [await env.run_slot(slot, context) for slot in env.slots(task, episodes)]

    return asyncio.run(run())


def path_of(trace: Any) -> tuple[int, ...]:
    return tuple(trace.info["motif"]["path"])


def test_the_plugin_is_found_by_its_id():
    assert environment_class("motif-v1") is MotifEnv


def test_an_episode_is_a_response_and_its_trajectories_paid_with_their_mean_outcome(recipe, model):
    good, bad = play(recipe(), model, 2)
    for episode, outcome in ((good, 0.5), (bad, 0.0)):
        assert episode.ok, episode.errors
        assert sorted(map(path_of, episode.traces)) == [(0,), (0, 0), (0, 0, 0), (0, 1), (0, 1, 0)]
        assert {name: len(traces) for name, traces in episode.by_agent.items()} == {"first": 1, "later": 4}
        [first] = episode.by_agent["first"]
        assert first.reward == pytest.approx(outcome + 0.25)  # well formed
        assert first.metrics["outcome"] == outcome and first.metrics["well_formed"] == 1
        assert first.agent.trainable
        assert not any(trace.agent.trainable for trace in episode.by_agent["later"])
    by_path = {path_of(trace): trace for trace in good.traces}
    assert sorted(by_path[path].metrics["outcome"] for path in ((0, 0), (0, 1))) == [0.0, 1.0]
    for path in ((0, 0), (0, 1)):
        assert by_path[path].metrics["outcome"] == by_path[*path, 0].metrics["outcome"]
        assert by_path[path].metrics["well_formed"] == 0 and by_path[path].metrics["truncated"] == 1


def test_the_model_is_told_what_motif_tells_it_with_the_recipes_limits(recipe, model):
    play(recipe(), model)
    first, second, final = (model.requests[index]["messages"] for index in (0, 1, -1))
    assert first[0] == {"role": "system", "content": "Think in 3 rounds."}
    assert first[1]["content"].endswith("Current round: 1 of 3.")
    assert 'Progress in round 1: "good"' in second[1]["content"] and "round: 2 of 3" in second[1]["content"]
    assert 'Progress in round 2: "still good"' in final[1]["content"]
    assert "Progress in round 1" not in final[1]["content"]  # fresh context, latest note only
    drawn = [(body["temperature"], body.get("max_tokens") or body["max_completion_tokens"]) for body in model.requests]
    assert drawn[0] == (0.9, 7) and set(drawn[1:]) == {(1.0, 9)}


def test_all_rounds_are_trainable_where_the_recipe_trains_them(recipe, model):
    [episode] = play(recipe(("[credit]", '[credit]\ntrain_rounds = "all"')), model)
    assert all(trace.agent.trainable for trace in episode.traces)


def test_a_failed_call_fails_the_episode_and_is_not_paid(recipe, model):
    model.fail_in_round = 2
    [episode] = play(recipe(), model)
    assert not episode.ok and "no response in round 2" in episode.last_error.message
    assert all("motif" not in trace.rewards for trace in episode.traces)


@pytest.mark.parametrize(
    "change",
    [
        ("[2, 2, 1]", "[2, 2, 2]"),
        ("[2, 2, 1]", "[1, 2, 1]"),
    ],
)
def test_what_the_host_cannot_do_is_refused(recipe, change):
    path = recipe(change)
    Path(path).write_text(Path(path).read_text().replace("[credit]", '[credit]\ntrain_rounds = "all"'))
    with pytest.raises(RecipeError, match="branching"):
        opened(path)


def test_the_example_runs_from_the_command_line(model, tmp_path):
    assert load_recipe(EXAMPLE / "recipe.toml").rollout.responses == 8
    recipe = tmp_path / "recipe.toml"
    recipe.write_text((EXAMPLE / "recipe.toml").read_text().replace("Qwen/Qwen2.5-0.5B-Instruct", "embedded"))
    config = (EXAMPLE / "eval.toml").read_text().replace("http://127.0.0.1:8000/v1", model.url)
    config = config.replace("examples/verifiers_motif/recipe.toml", str(recipe))
    (tmp_path / "eval.toml").write_text(config.replace("num_rollouts = 8", "num_rollouts = 2"))
    command = [str(Path(sys.executable).parent / "vf-eval"), "@", "eval.toml", "--no-rich", "-o", "outputs"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    [traces] = (tmp_path / "outputs").rglob("traces.jsonl")
    episodes = [json.loads(line) for line in traces.read_text().splitlines()]
    assert len(episodes) == 8 and all(episode["ok"] for episode in episodes)  # 4 questions, 2 responses each
    assert {len(episode["traces"]) for episode in episodes} == {9}
