"""With servers, too, a model is tried before a run: what its update cannot do is known before anything is sampled."""

import json

import pytest

from motif.display import Display
from motif.errors import ModelError
from motif.training.loop import train
from support.architectures import ZOO, build
from support.fake_vllm import FakeVLLM
from support.tiny import CHATML, chat_tokenizer

SMALL = [
    "model.adapter=lora",
    "model.lora_rank=4",
    "rounds.fallback=text",
    "rollout.questions_per_step=1",
    "rollout.branching=[3,2,1]",
    "rollout.tokens_first=8",
    "rollout.tokens_continue=8",
    "rollout.window=900",
    "train.steps=1",
    "eval.questions=0",
]
JUDGE = """def judge(gold, prediction):
    return prediction == gold or (sum(prediction.encode()) % 2 == 1 and prediction.strip("0.") != "")
"""


def run(server: FakeVLLM, folder, *more: str) -> list[dict]:
    (folder.parent / "mine.py").write_text(JUDGE)
    (folder.parent / "rows.jsonl").write_text(json.dumps({"question": "What is 1 + 1?", "answer": "2"}))
    own = [
        "data.task=file",
        f"data.train={folder.parent / 'rows.jsonl'}",
        f"data.grader={folder.parent / 'mine.py'}:judge",
        f"model.name={server.policy.config.name}",
        f"model.lora_rank={server.policy.config.lora_rank}",
        f"model.lora_alpha={server.policy.config.lora_alpha}",
        f"sampler.urls={json.dumps([server.url])}",
    ]
    train("demo", folder, settings=[*SMALL, *own, *more], display=Display(quiet=True))
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Of a hybrid: three of four layers of this family have a state instead of keys and values."""
    model = build(ZOO["Qwen3.5"], tmp_path_factory.mktemp("hybrid"), chat_tokenizer(CHATML, pad="<|endoftext|>"))
    serving = FakeVLLM(model)
    yield serving
    serving.stop()


def test_a_hybrid_is_sampled_by_servers_and_trained(server, tmp_path):
    server.reset()
    lines = run(server, tmp_path / "run")
    assert lines[-1]["ledger/updates"] == 1
    assert server.served >= 15


def test_a_model_whose_update_goes_wrong_is_refused_before_anything_is_sampled(server, tmp_path, monkeypatch):
    from motif.training import batch

    def wrong(compute):
        def off(policy, segments):
            hidden, fresh = compute(policy, segments)
            return hidden * 1.01, fresh

        return off

    for name in ("forward", "forward_alone"):
        monkeypatch.setattr(batch, name, wrong(getattr(batch, name)))
    server.reset()
    with pytest.raises(ModelError, match=r"'qwen3_5_text' cannot be trained: log-probabilities are off by"):
        run(server, tmp_path / "run")
    models = [body["model"] for body in server.bodies]  # whether it is the trainer's, without an adapter and with one
    assert len(models) == 2 and models[0] == "base" != models[1]
