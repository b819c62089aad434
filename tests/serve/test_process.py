"""`motif serve` as a process: its start, its end, and what it says of bad input."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager

import httpx2
import pytest
import torch
from typer.testing import CliRunner

from motif import serve
from motif.cli.app import app
from motif.cli.serve import keys_of
from motif.config import load_recipe
from motif.errors import RunFolderError, ServiceError, UsageError
from motif.evaluation.target import find_target
from motif.hosts import bound
from motif.models.policy import Policy
from motif.runs import checkpoint
from motif.serve.run import limits_of
from motif.session import open_model
from support import forked
from support.serving import CLIENT, ask, post
from support.waiting import until


@contextmanager
def started(*arguments: str, **environment: str):
    process = subprocess.Popen(
        [forked.python(), "-m", "motif", "serve", "embedded", "--recipe", "demo", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    try:
        line = process.stdout.readline()
        yield process, re.search(r"http://\S+(?=/v1)", line)[0], line
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_sigterm_finishes_what_is_under_way_and_takes_nothing_new():
    with started("--name", "mine", "--grace", "120", MOTIF_API_KEY="one,two") as (process, url, line):
        assert "mine at" in line and "3 rounds of at most 24 + 24 + 24 tokens" in line
        headers = {"Authorization": "Bearer two"}
        assert CLIENT.get(url + "/v1/models", headers=headers).json()["data"][0]["id"] == "mine"
        assert CLIENT.get(url + "/v1/models").status_code == 401
        answers: list[httpx2.Response] = []
        body = ask(n=16, temperature=1, rounds=12)
        thread = threading.Thread(target=lambda: answers.append(post(url, body, headers=headers)))
        thread.start()
        until(lambda: "answers_running 16.0" in CLIENT.get(url + "/metrics", headers=headers).text)
        process.send_signal(signal.SIGTERM)
        thread.join(120)
        assert answers[0].status_code == 200
        assert len(answers[0].json()["choices"]) == 16
        assert process.wait(120) == 0
        with pytest.raises(httpx2.ConnectError):
            httpx2.get(url + "/health")
        log = process.stderr.read()
        assert "shutting down" in log and "answers 16 rounds 12" in log
        assert "Traceback" not in log and "15 × 24" not in log


@pytest.mark.slow
def test_ctrl_c_twice_ends_at_once_and_clients_are_told():
    with started("--grace", "60", "--max-tokens", "200", "--set", "rollout.tokens_first=24") as (process, url, _):
        answers: list[httpx2.Response] = []
        body = ask(n=128, temperature=2, rounds=32)
        thread = threading.Thread(target=lambda: answers.append(post(url, body)))
        thread.start()
        until(lambda: "answers_running 128.0" in CLIENT.get(url + "/metrics").text)
        process.send_signal(signal.SIGINT)
        until(lambda: _refuses(url))
        process.send_signal(signal.SIGINT)
        thread.join(120)
        assert answers[0].status_code == 503
        assert answers[0].json()["error"]["code"] == "shutting_down"
        assert process.wait(120) == 0


def _refuses(url: str) -> bool:
    host, port = url.removeprefix("http://").split(":")
    with socket.socket() as client:
        return client.connect_ex((host, int(port))) != 0


def test_only_the_configured_address_is_bound():
    with bound("127.0.0.1", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        port = listener.getsockname()[1]
        listener.listen()
        with pytest.raises(ServiceError, match=f"cannot listen on 127.0.0.1 port {port}"), bound("127.0.0.1", port):
            pass
    with pytest.raises(ServiceError, match=r"no\.such\.host.*another --host"), bound("no.such.host.invalid", 0):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "nowhere"], "--recipe"),
        (["serve", "embedded", "--recipe", "demoo"], "Did you mean 'demo'?"),
        (["serve", "embedded", "--recipe", "demo", "--upstream", "vllm:8000"], "not the address"),
        (["serve", "embedded", "--recipe", "demo", "--max-tokens", "3"], "--max-tokens 3 is less"),
        (["serve", "embedded", "--recipe", "demo", "--api-key", ""], "API key is empty"),
        (
            ["serve", "embedded", "--recipe", "demo", "--upstream", "http://127.0.0.1:9", "--port", "0"],
            "cannot be used",
        ),
    ],
)
def test_bad_input_gets_one_sentence(arguments, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2, done.output
    assert said in done.stderr and "Traceback" not in done.output
    assert len(done.stderr.strip().splitlines()) == 1


def test_keys_come_from_both_places(monkeypatch):
    assert keys_of([]) == ()
    monkeypatch.setenv("MOTIF_API_KEY", "b,c")
    assert keys_of(["a"]) == ("a", "b", "c")
    for bad in ("", "a,,b", " a"):
        monkeypatch.setenv("MOTIF_API_KEY", bad)
        with pytest.raises(UsageError, match="API key"):
            keys_of([])


def test_a_missing_extra_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr(serve.importlib.util, "find_spec", lambda name: None if name == "uvicorn" else name)
    with pytest.raises(UsageError, match=r"pip install 'motif-rl\[serve\]'"):
        serve.require_extra()


def test_importing_motif_imports_no_server():
    code = "import sys, motif, motif.cli.app, motif.cli.serve\n"
    code += "sys.exit(any(name in sys.modules for name in ('starlette', 'uvicorn', 'openai')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_that_has_not_ended_is_served_from_its_newest_checkpoint(tmp_path):
    recipe = load_recipe("demo")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    with pytest.raises(RunFolderError, match="has not ended"):
        find_target(str(tmp_path)).check_weights()
    policy = Policy(recipe.model)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.mul_(1.01)
    optimizer = torch.optim.SGD(policy.trainable(), 0.1)
    for step in (3, 7):
        checkpoint.save(tmp_path, step, policy, optimizer, recipe, {}, keep=2)
    what = find_target(str(tmp_path))
    what.check_weights()
    opened = open_model(what.recipe, what.weights, 2)
    try:
        assert "checkpoint of step 7" in opened.about
        assert checkpoint.checksum(opened.sampler.policy) == checkpoint.checksum(policy)
    finally:
        opened.sampler.close()


def test_limits_come_from_the_recipe():
    limits = limits_of(load_recipe("paper"), {"queue": 3, "timeout": None})
    assert (limits.concurrency, limits.queue, limits.timeout) == (256, 3, 600.0)
    assert limits.max_tokens == 1024
