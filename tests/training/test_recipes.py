"""The recipes for current models train tiny random models of the same classes, with the family's template."""

import json

import pytest

from motif.display import Display
from motif.training.loop import train
from support.architectures import ZOO, build
from support.templates import GEMMA, REASONING, tokenizer_of

JUDGE = """def judge(gold, prediction):
    return prediction == gold or (sum(prediction.encode()) % 2 == 1 and prediction.strip("0.") != "")
"""
SMALL = [
    "model.device=cpu",
    "model.lora_rank=4",
    "rounds.fallback=text",  # random models write no marks, and rewards must vary
    "rounds.note_tokens=8",
    "rounds.system_prompt=Think.",
    "rollout.questions_per_step=1",
    "rollout.branching=[3,2,1]",
    "rollout.tokens_first=12",
    "rollout.tokens_continue=12",
    "rollout.window=900",
    "train.steps=2",
    "train.learning_rate=0.01",
    "train.warmup=0",
    "eval.questions=2",
    "eval.every=0",
]
TEMPLATES = {"qwen3-gsm8k": REASONING["qwen3"][0], "qwen35-gsm8k": REASONING["qwen3.5"][0], "gemma3-gsm8k": GEMMA}
CLASSES = [
    ("qwen3-gsm8k", "Qwen3"),
    ("qwen35-gsm8k", "Qwen3.5"),
    ("qwen35-gsm8k", "Qwen3.5 that sees"),
    ("gemma3-gsm8k", "Gemma 3"),
]


@pytest.mark.parametrize(("recipe", "architecture"), CLASSES)
def test_a_recipe_trains_its_class(recipe, architecture, tmp_path):
    model = build(ZOO[architecture], tmp_path / "model", tokenizer_of(TEMPLATES[recipe], pad="<|endoftext|>"))
    own = []
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        rows = [{"question": f"What is {number} + 1?", "answer": f"#### {number + 1}"} for number in numbers]
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
        own.append(f"data.{split}={tmp_path / split}.jsonl")
    (tmp_path / "mine.py").write_text(JUDGE)
    own += [f"model.name={model.name}", f"data.grader={tmp_path / 'mine.py'}:judge"]
    train(recipe, tmp_path / "run", settings=[*SMALL, *own], display=Display(quiet=True))
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "grad_norm" in line]
    assert steps[-1]["ledger/updates"] == 2
    assert all(step["grad_norm"] > 0 for step in steps)
