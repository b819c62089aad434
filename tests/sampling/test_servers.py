"""Sampling on servers: what is asked, what is taken, and that no failure of a server changes what a run comes to."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from motif.config import load_recipe
from motif.display import Display
from motif.errors import SamplerError, ServiceError
from motif.models.policy import Policy
from motif.sampling.base import Completion, Request
from motif.sampling.concurrency import complete
from motif.sampling.vllm.adapters import AdapterFolder
from motif.sampling.vllm.sampler import ServerSampler
from motif.training import learner
from motif.training.loop import train
from support.fake_vllm import FakeVLLM
from support.runs import metric_lines
from support.sampling import expand
from support.updates import shake
from support.waiting import until

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rollout.questions_per_step=2",
    "rollout.branching=[3,2,1]",
    "credit.train_rounds=all",
    "train.learning_rate=0.01",
    "train.steps=3",
    "train.save_every=1",
    "eval.questions=4",
]
PATIENT = ["sampler.timeout=60", "sampler.retries=8", "sampler.patience=60"]


@pytest.fixture(scope="module")
def pair():
    model = load_recipe("demo", SMALL).model
    servers = [FakeVLLM(model), FakeVLLM(model)]
    yield servers
    for server in servers:
        server.stop()


@pytest.fixture
def servers(pair, monkeypatch):
    monkeypatch.setattr("motif.sampling.vllm.pool.FIRST_PAUSE", 0.02)
    for server in pair:
        server.reset()
    return pair


def settings(servers: list[FakeVLLM], *more: str) -> list[str]:
    return [*SMALL, *PATIENT, f"sampler.urls={json.dumps([server.url for server in servers])}", *more]


def run(out: Path, servers: list[FakeVLLM], *more: str, resume: bool = False) -> Path:
    train("demo", out, settings=settings(servers, *more), resume=resume, display=Display(quiet=True))
    return out


def sampler(servers: list[FakeVLLM], *more: str) -> ServerSampler:
    recipe = load_recipe("demo", settings(servers, *more))
    return ServerSampler(Policy(recipe.model, 0), recipe, 256)


def answers(sampler: ServerSampler, *requests: Request) -> list[Completion]:
    return sorted(complete(sampler, requests), key=lambda done: done.index)


def assert_same_run(one: Path, two: Path) -> None:
    for name in ("trees.jsonl", "outcomes.jsonl", "adapter/adapter_model.safetensors"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    assert metric_lines(one) == metric_lines(two)


@pytest.fixture(scope="module")
def undisturbed(pair, tmp_path_factory):
    for server in pair:
        server.reset()
    return run(tmp_path_factory.mktemp("undisturbed") / "run", pair)


# -- answers -----------------------------------------------------------------------------------------------------------


def test_tokens_and_logprobs_are_the_servers(servers):
    asking = sampler(servers)
    prompt = asking.policy.tokenizer("What is 15 × 24?")["input_ids"]
    requests = [
        Request(prompt, [5, 6, 7], 12),
        Request(prompt, [9], 3, policy="base"),
        Request(prompt, [1, 2], 6, temperature=0.0),
    ]
    found = [answers(asking, request) for request in requests]
    for request, done in zip(requests, found, strict=True):
        [body] = [body for body in servers[0].bodies + servers[1].bodies if body["max_tokens"] == request.max_tokens]
        theirs = servers[0].sample(body)
        theirs = theirs * len(request.keys) if request.temperature == 0 else theirs
        assert [completion.token_ids for completion in done] == [completion.token_ids for completion in theirs]
        assert [completion.truncated for completion in done] == [completion.truncated for completion in theirs]
        assert [completion.index for completion in done] == list(range(len(request.keys)))
        gap = asking._gap(prompt, done, request.temperature or 1.0)
        assert gap < 1e-5
    assert {completion.version for completion in found[0] + found[2]} == {0}
    assert found[1][0].version is None
    assert asking.usage.generated_tokens == sum(len(c.token_ids) for done in found for c in done)
    assert asking.usage.prefill_tokens == 3 * len(prompt)
    assert asking.usage.requested_prompt_tokens == 6 * len(prompt)
    asking.close()


def test_a_child_is_sent_while_its_parents_sibling_is_still_being_sampled(servers, monkeypatch):
    asking = sampler(servers[:1])
    arrived = threading.Event()
    tell = servers[0].sample

    def slow(body):
        for place, done in enumerate(tell(body)):
            if body["n"] == 2 and place == 1:
                assert arrived.wait(120), "the child of the first sibling was not sent"
            yield done

    monkeypatch.setattr(servers[0], "sample", slow)
    servers[0].misbehave = lambda count, body: arrived.set() if body["prompt"] == [9, 9, 9] else None
    order = []

    def then(done: Completion) -> list[Request]:
        order.append((len(done.request.prompt_ids), done.index))
        return [Request([9, 9, 9], [1], 2)] if len(done.request.prompt_ids) == 2 and done.index == 0 else []

    expand(asking, [Request([8, 8], [1, 2], 2)], then)
    assert sorted(order) == [(2, 0), (2, 1), (3, 0)]
    asking.close()


def test_work_is_shared_by_load(servers):
    asking = sampler(servers)
    answers(asking, *[Request([5, place], [1, 2], 3) for place in range(20)])
    assert min(server.served for server in servers) >= 10
    asking.close()


def test_requests_in_flight_are_limited(servers):
    servers[0].most_waiting = 0
    asking = sampler(servers[:1], "sampler.concurrency=3")
    answers(asking, *[Request([5, place], [1], 20) for place in range(20)])
    assert 1 < servers[0].most_waiting <= 3
    asking.close()


# -- adapters ----------------------------------------------------------------------------------------------------------


def test_an_update_is_written_once_loaded_everywhere_and_the_old_one_removed(servers, tmp_path):
    asking = sampler(servers, f"sampler.adapter_dir={tmp_path}")
    request = Request([5, 6, 7], [3], 20)
    before = answers(asking, request)
    first = [server.history[-1] for server in servers]
    assert first[0] == first[1]
    shake(asking.policy, 1)
    assert answers(asking, request)[0].token_ids == before[0].token_ids  # the weights are not synced yet
    asking.sync_weights(1)
    after = answers(asking, request)
    assert after[0].token_ids != before[0].token_ids
    assert (before[0].version, after[0].version) == (0, 1)
    ours, _ = asking.policy.token_logprobs([[5, 6, 7]], [after[0].token_ids], [1.0])
    assert torch.allclose(ours, torch.tensor(after[0].logprobs), atol=1e-4)
    assert [list(server.loaded) for server in servers] == [[path.name] for path in tmp_path.iterdir()] * 2
    asking.sync_weights(1)
    assert [len(server.history) for server in servers] == [3, 3]  # with the one by which servers are checked
    asking.close()
    assert not any(server.loaded for server in servers)
    assert list(tmp_path.iterdir()) == []


def test_of_several_processes_one_loads_the_adapter(servers):
    main, other = sampler(servers), sampler(servers)
    main.sync_weights(3)
    other.once = lambda work: main.adapter
    other.sync_weights(3)
    assert [len(server.history) for server in servers] == [3, 3]  # two are those by which servers are checked
    request = Request([5, 6], [3], 8)
    assert answers(other, request)[0].token_ids == answers(main, request)[0].token_ids
    assert [len(server.history) for server in servers] == [3, 3]  # two are those by which servers are checked
    other.close()
    assert all(server.loaded for server in servers)
    main.close()


def test_a_copy_command_brings_adapters_to_servers_that_share_no_folder(servers, tmp_path):
    there = tmp_path / "on the server"
    there.mkdir()
    copying = ["sampler.copy_command=cp -r {source} {target}", "sampler.remove_command=rm -r {target}"]
    asking = sampler(servers[:1], f"sampler.adapter_dir={there}", *copying)
    asking.sync_weights(1)
    answers(asking, Request([5], [1], 2))
    asking.sync_weights(2)
    assert [path.name for path in there.iterdir()] == list(servers[0].loaded)
    asking.close()
    assert list(there.iterdir()) == []
    failing = ["sampler.copy_command=false {target}", "sampler.patience=0.5"]
    with pytest.raises(ServiceError, match=r"the command false .* failed"):  # before anything is spent
        sampler(servers[:1], f"sampler.adapter_dir={there}", *failing)


def test_an_answer_by_another_adapter_is_an_error(servers):
    asking = sampler(servers[:1])
    servers[0].misbehave = lambda count, body: "other model"
    with pytest.raises(SamplerError, match="answered with 'another' where 'motif-"):
        answers(asking, Request([5], [1], 2))
    asking.close()


# -- failures ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_run_records_versions_and_parity(undisturbed):
    trees = [json.loads(line) for line in (undisturbed / "trees.jsonl").read_text().splitlines()]
    assert all(response["version"] == tree["step"] - 1 for tree in trees for response in tree["responses"])
    steps = [line for line in metric_lines(undisturbed) if "loss" in line]
    assert [line["sampler/lag"] for line in steps] == [0, 0, 0]
    assert any(line["grad_norm"] for line in steps)
    for line in steps:
        if line["loss"] is not None:
            assert 0 < line["sampler/mean_gap"] <= line["sampler/max_gap"] < 1e-3
    generated = sum(_tokens(response) for tree in trees for response in tree["responses"])
    assert steps[-1]["ledger/generated_tokens"] == generated


def _tokens(node: dict) -> int:
    return node["tokens"] + sum(_tokens(child) for child in node.get("children", []))


@pytest.mark.slow
@pytest.mark.parametrize("failure", [500, 429, "garbage", "cut", "short", "abort", "lost token", "hang"])
def test_failures_change_nothing_but_time(failure, servers, undisturbed, tmp_path):
    every = 30 if failure == "hang" else 4
    servers[0].misbehave = lambda count, body: failure if count > 2 and count % every == 0 else None
    run(tmp_path / "run", servers, *(["sampler.timeout=3"] if failure == "hang" else []))
    assert servers[0].calls["/v1/completions"] > every
    assert_same_run(undisturbed, tmp_path / "run")


@pytest.mark.slow
def test_a_server_that_dies_in_mid_tree_and_comes_back_changes_nothing(servers, undisturbed, tmp_path):
    deaths = []

    def die(count, body):
        if count == 12 and not deaths:
            deaths.append(list(servers[0].loaded))
            threading.Timer(0.3, servers[0].start).start()
            return "die"
        return None

    def leave_some(count, body):
        """The other server does not end the step before this one is back, however slow the machine is."""
        if deaths:
            until(lambda: servers[0].history.count(deaths[0][0]) == 2)

    servers[0].misbehave, servers[1].misbehave = die, leave_some
    run(tmp_path / "run", servers)
    assert deaths and servers[0].history.count(deaths[0][0]) == 2  # its adapter was loaded again
    assert_same_run(undisturbed, tmp_path / "run")


@pytest.mark.slow
def test_a_single_server_may_restart(servers, undisturbed, tmp_path):
    def die(count, body):
        if count == 30:
            threading.Timer(0.2, servers[0].start).start()
            return "die"
        return None

    servers[0].misbehave = die
    run(tmp_path / "run", servers[:1])
    assert len(servers[0].history) == len(set(servers[0].history)) + 1  # one adapter was loaded again
    assert_same_run(undisturbed, tmp_path / "run")


@pytest.mark.slow
def test_when_no_server_is_left_the_run_stops_and_can_go_on(servers, undisturbed, tmp_path):
    for server in servers:
        server.misbehave = lambda count, body: "die" if count > 25 else None
    with pytest.raises(SamplerError, match=r"no server has answered for 1.5 s \(http.*motif resume"):
        run(tmp_path / "run", servers, "train.save_every=100", "sampler.patience=1.5")
    saved = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    steps = len([line for line in metric_lines(tmp_path / "run") if "loss" in line])
    assert saved[-1] == f"step-{steps:06d}"
    for server in servers:
        server.reset()
    run(tmp_path / "run", servers, "train.save_every=100", resume=True)
    assert_same_run(undisturbed, tmp_path / "run")


def test_a_request_that_no_server_answers_ends_the_run(servers):
    asking = sampler(servers, "sampler.retries=2")
    for server in servers:
        server.misbehave = lambda count, body: 500
    with pytest.raises(SamplerError, match="gave up a request after 3 tries: answered 500: out of order"):
        answers(asking, Request([5], [1], 2))
    asking.close()


def test_what_the_caller_raises_is_raised(servers):
    asking = sampler(servers)

    def then(done: Completion) -> list[Request]:
        raise ZeroDivisionError("in the caller's code")

    with pytest.raises(ZeroDivisionError):
        expand(asking, [Request([5], [1, 2], 2)], then)
    assert len(answers(asking, Request([5], [1, 2], 2))) == 2
    asking.close()


# -- overlap -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("refill", [0, 2])
def test_overlap_lags_by_one_and_resumes_exactly(servers, tmp_path, refill):
    overlap = ("sampler.overlap=true", "sampler.max_mean_gap=0")  # one update changes much here
    overlap = (*overlap, f"rollout.refill={refill}", "eval.questions=1")
    whole = run(tmp_path / "whole", servers, *overlap, "train.steps=4")
    trees = [json.loads(line) for line in (whole / "trees.jsonl").read_text().splitlines()]
    versions = {(tree["step"], response["version"]) for tree in trees for response in tree["responses"]}
    assert versions == {(1, 0), (2, 0), (3, 1), (4, 2)}
    steps = [line for line in metric_lines(whole) if "loss" in line]
    assert [line["sampler/lag"] for line in steps] == [0, 1, 1, 1]
    gaps = [line["sampler/mean_gap"] for line in steps]
    assert gaps[0] < 1e-4 < min(gaps[1:])  # one update apart: that is what the importance weights are for
    assert not refill or any(line["refill/dropped"] for line in steps)

    broken = tmp_path / "broken"
    for server in servers:
        server.misbehave = lambda count, body: "die" if body["model"] != "base" and "v000001" in body["model"] else None
    with pytest.raises(SamplerError):
        run(broken, servers, *overlap, "train.steps=4", "sampler.patience=1.5")
    for server in servers:
        server.reset()
    run(broken, servers, *overlap, "train.steps=4", resume=True)
    assert_same_run(whole, broken)


@pytest.mark.slow
def test_with_overlap_sampling_goes_on_while_the_trainer_works(servers, tmp_path, monkeypatch):
    served, update = [], learner.update

    def slow(*arguments, **options):
        deadline = time.monotonic() + (60 if len(served) < 2 else 0.5)
        before = sum(server.served for server in servers)
        while time.monotonic() < deadline and sum(server.served for server in servers) == before:
            time.sleep(0.01)
        served.append(sum(server.served for server in servers) - before)
        return update(*arguments, **options)

    monkeypatch.setattr(learner, "update", slow)
    run(tmp_path / "run", servers, "sampler.overlap=true", "sampler.max_mean_gap=0", "eval.questions=0")
    assert min(served[:-1]) > 0
    assert served[-1] == 0  # nothing is sampled for a step that will not come


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_servers_that_cannot_serve_are_named_before_anything_is_spent(servers, tiny_model, tmp_path):
    with pytest.raises(ServiceError, match=r"http://127.0.0.1:9 cannot sample: .*vllm-command"):
        sampler([*servers, type("", (), {"url": "http://127.0.0.1:9"})])
    with pytest.raises(ServiceError, match="serves another model"):
        sampler(servers, f"model.name={tiny_model}")
    with pytest.raises(ServiceError, match="takes 256 tokens, and the recipe's window is 400"):
        ServerSampler(Policy(load_recipe("demo", SMALL).model), load_recipe("demo", settings(servers)), 400)
    servers[0].key = "secret"
    with pytest.raises(ServiceError, match="api_key_variable"):
        run(tmp_path / "run", servers)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_the_key_comes_from_the_environment(servers, monkeypatch):
    servers[0].key = "secret"
    monkeypatch.setenv("VLLM_API_KEY", "secret")
    asking = sampler(servers[:1])
    assert len(answers(asking, Request([5], [1], 2))) == 1
    asking.close()


def test_a_server_on_this_machine_is_asked_directly_whatever_proxy_there_is(servers, monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody answers
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    sampler(servers).close()


def test_logprobs_before_the_temperature_are_refused(servers):
    servers[0].processed = False
    with pytest.raises(ServiceError, match="--logprobs-mode processed_logprobs"):
        sampler(servers, "rollout.temperature_first=0.7")
    sampler(servers[:1]).close()  # at temperature 1 they are the same


def test_a_server_that_takes_adapters_and_does_not_use_them_is_refused(servers):
    servers[1].ignores = True
    with pytest.raises(ServiceError, match=f"{servers[1].url} changes the model by an adapter in another way"):
        sampler(servers)
    assert not any(server.loaded for server in servers)


def test_a_folder_that_servers_do_not_see_is_refused(servers, monkeypatch):
    write = AdapterFolder.write

    def moved(*arguments):
        adapter = write(*arguments)
        shutil.rmtree(adapter.folder)
        return adapter

    monkeypatch.setattr(AdapterFolder, "write", moved)
    with pytest.raises(ServiceError, match=r"No adapter found for .*sampler.adapter_dir"):
        sampler(servers)
