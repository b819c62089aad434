"""lm-evaluation-harness as a client of `motif serve`: it finds the accuracy that `motif eval` finds."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from motif.evaluation.evaluate import evaluate
from motif.grading import Grader
from motif.method.tree import Question
from motif.sampling.local.engine import Engine
from motif.session import open_session
from motif.tasks import Task
from support.serving import DEMO, requests_counted, serving

LM_EVAL = os.environ.get("MOTIF_LM_EVAL", "")
pytestmark = pytest.mark.skipif(not LM_EVAL, reason="needs lm_eval (make test-hosts)")

TASK = r"""
task: motif_products
dataset_path: json
dataset_kwargs:
  data_files: {test: QUESTIONS}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: "{{answer}}"
generation_kwargs:
  until: ["\n\n"]
  max_gen_toks: 72
  do_sample: false
  temperature: 0
filter_list:
  - name: boxed
    filter:
      - {function: regex, regex_pattern: "boxed\\{([^}]*)\\}"}
      - {function: take_first}
metric_list:
  - {metric: exact_match, aggregation: mean, higher_is_better: true}
metadata: {version: 1.0}
"""
QUESTIONS = [Question(f"{a}x{b}", f"What is {a} × {b}?", str(a * b)) for a in range(11, 19) for b in range(21, 26)]


@pytest.fixture(scope="module")
def expected_and_url():
    recipe = DEMO.model_copy(update={"eval": DEMO.eval.model_copy(update={"rounds": [3]})})
    session = open_session(recipe, task=Task("solve", [], [], "exact", []))
    grader = Grader("exact", 5.0, workers=1)
    found = evaluate(QUESTIONS, session.sampler, session.rounds, grader, recipe)
    grader.close()
    live = Engine(session.policy, 16)
    with serving(live, session.rounds, window=256) as (url, service):
        yield found["rounds_3"].accuracy, url, service
    live.close()
    session.close()


@pytest.mark.parametrize("kind", ["local-chat-completions", "local-completions"])
def test_the_harness_finds_what_motif_eval_finds(kind, expected_and_url, tmp_path: Path):
    expected, url, service = expected_and_url
    (tmp_path / "questions.jsonl").write_text(
        "".join(json.dumps({"question": q.text, "answer": q.gold}) + "\n" for q in QUESTIONS)
    )
    (tmp_path / "motif_products.yaml").write_text(TASK.replace("QUESTIONS", str(tmp_path / "questions.jsonl")))
    chat = kind == "local-chat-completions"
    path = "/v1/chat/completions" if chat else "/v1/completions"
    model = f"model=demo,base_url={url}{path},num_concurrent=8,max_retries=1,tokenized_requests=False"
    command = [
        LM_EVAL,
        "run",
        "--model",
        kind,
        "--model_args",
        model + ",tokenizer_backend=None",
        "--tasks",
        "motif_products",
    ]
    command += ["--include_path", str(tmp_path), "--output_path", str(tmp_path / "out"), "--log_samples"]
    done = subprocess.run(
        command + (["--apply_chat_template"] if chat else []),
        capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "cache"), "OPENAI_API_KEY": "none"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    [results] = (tmp_path / "out").rglob("results_*.json")
    found = json.loads(results.read_text())["results"]["motif_products"]
    print(kind, found, "motif eval:", expected)
    assert found["exact_match,boxed"] == pytest.approx(expected)
    assert 0 < expected < 1
    assert requests_counted(service, 200, path) > 0 and not requests_counted(service, 400, path)
