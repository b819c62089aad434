"""What `motif export` writes is what was trained, says so, and tells nobody where it was made."""

from __future__ import annotations

import base64
import json
import re
import shutil
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from motif import HOME
from motif.config import load_recipe
from motif.display import Display
from motif.errors import ModelError, RunFolderError, ServiceError, UsageError
from motif.evaluation.target import find_target
from motif.export import run as command
from motif.export.base_model import describe
from motif.export.card import _results
from motif.export.formats import rounded
from motif.export.run import ExportOptions, export
from motif.export.source import for_others, open_source, public_name
from motif.models.policy import Policy
from motif.runs.weights import load_weights, save_weights
from motif.session import open_session, solve
from motif.tasks import Task
from motif.training.loop import train
from support.scripts import loaded

SMALL = [
    "rollout.questions_per_step=2",
    "rollout.branching=[3,2]",
    "rollout.tokens_first=12",
    "rollout.tokens_continue=12",
    "model.lora_rank=4",
    "data.arithmetic.smallest=10",
    "data.arithmetic.largest=29",
    "credit.format_weight=0",
    "eval.questions=4",
    "eval.every=1",
    "train.steps=1",
    "train.threads=1",
]
QUESTION = "What is 15 × 24?"


def make_run(folder: Path, base: str, *more: str) -> Path:
    """A run whose weights were moved far enough to tell trained from untrained (chance may reward nothing)."""
    settings = [*SMALL, f"model.name={base}", *more]
    train("demo", folder, settings=settings, display=Display(quiet=True))
    recipe = load_recipe(folder / "recipe.toml")
    policy = Policy(recipe.model)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_weights(folder, policy)
    return folder


@pytest.fixture(scope="module")
def lora_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: str) -> Path:
    return make_run(tmp_path_factory.mktemp("secret") / "run", tiny_model, "model.adapter=lora")


@pytest.fixture(scope="module")
def exported(lora_run: Path) -> Path:
    parities = export(lora_run, ExportOptions(), say=lambda text: None)
    assert all(parity.holds and parity.moved > 0.1 > 100 * parity.difference for parity in parities.values())
    return lora_run / "export"


def trained(run: Path) -> Policy:
    recipe = load_recipe(run / "recipe.toml")
    policy = Policy(recipe.model)
    load_weights(run, policy)
    return policy


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(3, 60).unsqueeze(0), use_cache=False).logits.float()


def test_plain_peft_and_transformers_load_them(exported, lora_run, tiny_model):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    own = logits(trained(lora_run).wrapped)
    merged = AutoModelForCausalLM.from_pretrained(exported / "merged")
    assert torch.allclose(logits(merged), own, atol=1e-4)
    assert merged.config.use_cache
    assert merged.generation_config.eos_token_id == 1
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.allclose(logits(base), own, atol=0.1)
    adapted = PeftModel.from_pretrained(base, exported / "adapter")
    assert torch.allclose(logits(adapted), own, atol=1e-5)
    for form in ("adapter", "merged"):
        assert AutoTokenizer.from_pretrained(exported / form).chat_template


def test_nothing_tells_where_it_was_made(exported, lora_run, tiny_model):
    hidden = [
        str(lora_run.parent),
        lora_run.parent.name,
        str(Path(tiny_model).parent),
        str(Path.home()),
        str(Path.cwd()),
    ]
    for file in exported.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [place for place in hidden if place.encode() in content], file


def test_the_card(exported, lora_run):
    from huggingface_hub import ModelCard

    card = ModelCard.load(exported / "merged" / "README.md")
    after = json.loads((lora_run / "summary.json").read_text())["after"]
    values = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert values == {f"accuracy, {n} round{'s' * (n > 1)}": round(after[f"rounds_{n}"]["accuracy"], 4) for n in (1, 2)}
    assert (card.data.license, card.data.library_name) == ("unknown", "transformers")
    assert "licence is unknown" in card.text
    assert "branching = [3, 2]" in card.text
    assert re.search(r"`arithmetic`: \d+ training questions \(fingerprint `\w{16}`\), \d+ held-out ones", card.text)
    assert card.text.count(", n = 4 |") == 4
    assert f"[user] {QUESTION}\nRound 1/2." in card.text
    assert "maximum logit difference" in card.text
    assert f"[motif]({HOME})" in card.text
    assert "| reinforcement learning | 1 of 1 step, 2 questions a step, 3 × 2 responses a question" in card.text
    assert "| warm start | none |" in card.text
    assert ModelCard.load(exported / "adapter" / "README.md").data.library_name == "peft"


@pytest.mark.parametrize("form", ["merged", "adapter"])
def test_the_script_says_what_motif_says(form, exported, lora_run, tiny_model, monkeypatch, capsys):
    monkeypatch.setenv("BASE_MODEL", tiny_model)
    script = loaded(exported / form / "think_in_rounds.py")
    recipe = load_recipe(lora_run / "recipe.toml")
    session = open_session(recipe, Task("solve", [], [], "exact", []), run=lora_run)
    try:
        for question in (QUESTION, 'Say "<note>" and <end> {rounds}'.replace("<end>", "end")):
            capsys.readouterr()
            answer = script.think(question)
            first = solve(question, session)
            nodes = [first, *first.children]
            told = "".join(f"round {i} of 2\n  {node.text.strip()}\n" for i, node in enumerate(nodes, start=1))
            assert capsys.readouterr().out == told
            assert answer == nodes[-1].answer
            assert script.note_of(session.policy.tokenizer, nodes[0].text) == nodes[0].note
    finally:
        session.close()


def test_the_script_reads_responses_as_motif_does(exported, tiny_tokenizer, lora_run):
    from motif.method.rounds import Rounds

    script = loaded(exported / "merged" / "think_in_rounds.py")
    rounds = Rounds(load_recipe(lora_run / "recipe.toml").rounds, tiny_tokenizer)
    for text in (
        "<think>1</think><note>300+15*4</note>",
        "<note>a</note><note>b \\boxed{1}</note> \\boxed{2}",
        "<think>x</think><note>cut of",
        "no tags at all, but quite a lot of words",
        "<think>x</think> \\boxed{\\frac{1}{2}} and \\boxed{3",
        '<note>"quoted" <think></note>',
        "<note></note>",
        "",
    ):
        reading = rounds.read(text, truncated=False, final=True)
        assert script.note_of(tiny_tokenizer, text) == reading.note, text
        assert script.answer_of(text) == reading.answer, text


def test_an_export_is_opened_like_a_run(exported, lora_run, tiny_model):
    own = logits(trained(lora_run).wrapped)
    for form, more in (("merged", []), ("adapter", [f"model.name={tiny_model}"])):
        recipe = load_recipe(exported / form / "recipe.toml", more)
        session = open_session(recipe, Task("solve", [], [], "exact", []), run=exported / form)
        session.close()
        assert torch.allclose(logits(session.policy.wrapped), own, atol=1e-4)
    assert find_target(str(exported / "merged")).weights == exported / "merged"
    with pytest.raises(UsageError, match="trained model alone"):
        find_target(str(exported / "merged"), base=True)


def test_all_weights_in_half_precision(tmp_path, tiny_model):
    from transformers import AutoModelForCausalLM

    run = make_run(tmp_path / "run", tiny_model, "model.adapter=full")
    # Random weights as large as these lose more by rounding than any that were learned.
    parities = export(run, ExportOptions(dtype="bfloat16", tolerance=0.2), say=lambda text: None)
    assert list(parities) == ["merged"]
    assert parities["merged"].holds
    assert parities["merged"].difference > 0
    loaded = AutoModelForCausalLM.from_pretrained(run / "export" / "merged", dtype="auto")
    assert loaded.dtype == torch.bfloat16
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
    with pytest.raises(UsageError, match="there is no adapter"):
        export(run, ExportOptions(["adapter"], out=tmp_path / "other"))


def test_a_head_that_shared_the_embedding_is_merged_alone(tmp_path, tiny_model):
    run = make_run(tmp_path / "run", tiny_model, "model.adapter=lora", 'model.lora_targets=["lm_head", "q_proj"]')
    parities = export(run, ExportOptions(["merged"]), say=lambda text: None)
    assert parities["merged"].holds
    assert not json.loads((run / "export" / "merged" / "config.json").read_text())["tie_word_embeddings"]


def test_what_differs_is_not_put_in_place_or_pushed(lora_run, tmp_path, monkeypatch):
    write = command.write_model

    def wrong(model, policy, folder, dtype):
        model.get_input_embeddings().weight.data += 0.01
        write(model, policy, folder, dtype)

    monkeypatch.setattr(command, "write_model", wrong)
    monkeypatch.setattr(command, "check_login", lambda repository: None)
    monkeypatch.setattr(command, "push", lambda *_: pytest.fail("pushed"))
    said: list[str] = []
    parities = export(lora_run, ExportOptions(["merged"], out=tmp_path, push="me/it"), say=said.append)
    assert not parities["merged"].holds
    assert said[-1] == f"beyond the tolerance: do not trust {tmp_path / 'merged.untrusted'}"
    assert [path.name for path in tmp_path.iterdir()] == ["merged.untrusted"]
    parities = export(lora_run, ExportOptions(["merged"], out=tmp_path / "b", tolerance=1.0), say=said.append)
    assert parities["merged"].holds


def test_an_unfinished_run_and_a_used_folder_are_refused(lora_run, exported, tmp_path):
    with pytest.raises(UsageError, match="merged is not empty"):
        export(lora_run, ExportOptions(["merged"]))
    with pytest.raises(RunFolderError, match="not a run folder"):
        export(tmp_path, ExportOptions())
    with pytest.raises(UsageError, match="adapter, merged, gguf; got 'onnx'"):
        export(lora_run, ExportOptions(["onnx"]))
    broken = tmp_path / "broken"
    shutil.copytree(lora_run, broken, ignore=shutil.ignore_patterns("summary.json", "export", "best"))
    with pytest.raises(RunFolderError, match=r"has not finished: .*--unfinished"):
        export(broken, ExportOptions())
    shutil.rmtree(broken / "adapter")
    [parity] = export(broken, ExportOptions(["adapter"], unfinished=True), say=lambda text: None).values()
    assert parity.holds
    assert "newest checkpoint" in (broken / "export" / "adapter" / "README.md").read_text()


def test_the_best_weights_say_that_they_were_chosen(lora_run, tmp_path):
    if not (lora_run / "best").is_dir():
        pytest.skip("chance graded nothing")
    [parity] = export(lora_run, ExportOptions(["adapter"], out=tmp_path, best=True), say=lambda text: None).values()
    assert parity.moved < 0.1  # one step, without what make_run added
    assert "biases the accuracy upwards" in (tmp_path / "adapter" / "README.md").read_text()


def test_a_recipe_for_others_has_names_only(tmp_path):
    (tmp_path / "prompt.txt").write_text("Think, then answer.\n")
    (tmp_path / "data.jsonl").write_text("")
    recipe = load_recipe(
        {
            "data": {"train": str(tmp_path / "data.jsonl"), "grader": f"{tmp_path}/mine.py:check"},
            "rounds": {"system_prompt_file": str(tmp_path / "prompt.txt")},
            "sampler": {"urls": ["http://gpu1.corp:8000"], "adapter_dir": "/nfs/me"},
            "track": ["wandb"],
        }
    )
    public = for_others(recipe, "base")
    assert (public.data.train, public.data.grader) == ("data.jsonl", "mine.py:check")
    assert public.rounds.system_prompt == "Think, then answer."
    text = public.to_toml()
    assert not [word for word in (str(tmp_path), "corp", "/nfs", "wandb") if word in text]
    assert load_recipe({"name": "x", **json.loads(public.model_dump_json())}).rounds == public.rounds
    assert public_name("openai/gsm8k") == "openai/gsm8k"
    assert public_name("../../me/data.csv") == "data.csv"


@pytest.mark.parametrize(
    ("after", "updates", "words"),
    [
        ((0.9, 0.8, 0.95), 3, "training raised the accuracy by 60.0 points"),
        ((0.05, 0.0, 0.1), 3, "training **lowered** the accuracy by 25.0 points"),
        ((0.35, 0.25, 0.5), 3, "intervals overlap (+5.0 points)"),
        ((0.3, 0.2, 0.4), 0, "No update was made"),
    ],
)
def test_the_card_says_what_the_accuracies_show(after, updates, words, lora_run):
    def row(accuracy: float, low: float, high: float) -> dict[str, Any]:
        return {"rounds_2": {"accuracy": accuracy, "low": low, "high": high, "n": 50}}

    source = replace(
        open_source(lora_run), before=row(0.3, 0.2, 0.4), after=row(*after), summary={"ledger": {"updates": updates}}
    )
    assert words in _results(source, 2)
    warmed = replace(source, summary={"warmstart": {"steps": 9, "evaluation": row(0.2, 0.1, 0.3)}})
    assert "| 2 rounds | 30.0 % [20.0–40.0], n = 50 | 20.0 % [10.0–30.0], n = 50 |" in _results(warmed, 2)


def test_plain_peft_finds_the_base_by_its_id(lora_run, tmp_path, tiny_model, monkeypatch):
    """What a stranger runs who has the adapter alone: one call, which asks for the base by its hub id."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    export(lora_run, ExportOptions(["adapter"], out=tmp_path, base="owner/base"), say=lambda text: None)
    load = AutoModelForCausalLM.from_pretrained
    asked: list[str] = []
    monkeypatch.setattr(
        AutoModelForCausalLM,
        "from_pretrained",
        lambda name, **options: asked.append(name) or load(tiny_model, **options),
    )
    adapted = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter")
    assert asked == ["owner/base"]
    assert torch.allclose(logits(adapted), logits(trained(lora_run).wrapped), atol=1e-5)
    assert "[owner/base](https://huggingface.co/owner/base)" in (tmp_path / "adapter" / "README.md").read_text()


def test_a_folder_of_the_hubs_cache_is_known_by_its_id(tmp_path, tiny_model):
    folder = tmp_path / "models--Some--Model-1B" / "snapshots" / "0a1b"
    shutil.copytree(tiny_model, folder)
    assert describe(str(folder)).public == "Some/Model-1B"


def test_the_licence_of_the_base(tmp_path, tiny_model):
    assert describe("embedded").licence == "apache-2.0"
    assert describe(tiny_model).licence == "unknown"
    folder = tmp_path / "base"
    shutil.copytree(tiny_model, folder)
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: llama3.2\n---\n# It\n")
    assert (describe(str(folder)).licence, describe(str(folder)).name) == ("llama3.2", "base")


# -- one form that cannot be written -----------------------------------------------------------------------------------


def test_what_can_be_written_is_written(lora_run, tmp_path, monkeypatch):
    """The tiny model's tokens are characters, which llama.cpp does not know."""
    pytest.importorskip("gguf")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    options = ExportOptions(["gguf", "adapter"], out=tmp_path / "out")
    with pytest.raises(ModelError, match=r"gguf was not written: .*WordLevel.* Written: adapter in "):
        export(lora_run, options, say=lambda text: None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["adapter"]
    with pytest.raises(ModelError, match="WordLevel"):
        export(lora_run, ExportOptions(["gguf"], out=tmp_path / "other"))
    assert not (tmp_path / "other").exists()


def test_a_form_that_fails_midway_does_not_take_the_others_with_it(lora_run, tmp_path, monkeypatch):
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(command, "write_model", full)
    with pytest.raises(ModelError, match=r"merged was not written: .*No space left on device.* Written: adapter"):
        export(lora_run, ExportOptions(out=tmp_path), say=lambda text: None)
    assert [path.name for path in tmp_path.iterdir()] == ["adapter"]


# -- the hub -----------------------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as an upload of small files needs."""

    seen: dict[str, Any]

    def log_message(self, *_: Any) -> None: ...

    def _answer(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != "Bearer hf_good":
            self._answer({"error": "Invalid user token."}, 401)
        elif self.path == "/api/whoami-v2":
            self._answer({"name": "me", "type": "user", "orgs": []})
        else:
            self._answer({"sha": "0" * 40, "id": "me/it", "siblings": [], "tags": [], "private": True})

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/api/repos/create":
            self.seen["create"] = json.loads(content)
            self._answer({"url": f"http://{self.headers['Host']}/me/it", "id": "me/it"})
        elif self.path == "/api/validate-yaml":
            self.seen["card"] = json.loads(content)["content"]
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = json.loads(content)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in files]
            self._answer({"files": modes})
        elif "/commit/" in self.path:
            lines = [json.loads(line) for line in content.splitlines()]
            for line in lines:
                if line["key"] == "file":
                    self.seen["files"][line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            self._answer(
                {"success": True, "commitOid": "0" * 40, "commitUrl": f"http://{self.headers['Host']}/me/it/commit/0"}
            )
        else:
            self._answer({"error": "what?"}, 404)


@pytest.fixture
def hub(monkeypatch):
    Hub.seen = {"files": {}}
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)  # this machine's own hub may be asked
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    yield Hub.seen
    server.shutdown()
    server.server_close()


def test_push_uploads_the_export_and_nothing_else(hub, lora_run, tmp_path):
    said: list[str] = []
    export(lora_run, ExportOptions(["merged"], out=tmp_path, push="me/it", private=True), say=said.append)
    folder = tmp_path / "merged"
    assert hub["files"] == {path.name: path.read_bytes() for path in folder.iterdir()}
    assert (hub["create"]["name"], hub["create"]["organization"], hub["create"]["visibility"]) == (
        "it",
        "me",
        "private",
    )
    assert hub["card"] == (folder / "README.md").read_text()
    at = said.index("uploading to me/it (if it is new: private):")
    assert [line.split()[0] for line in said[at + 1 : -1]] == sorted(hub["files"])


def test_a_token_is_asked_for_before_any_work(hub, lora_run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    with pytest.raises(ServiceError, match="rejects this token"):
        export(lora_run, ExportOptions(out=tmp_path, push="me/it"))
    monkeypatch.setattr("huggingface_hub.utils.get_token", lambda: None)
    with pytest.raises(ServiceError, match="hf auth login"):
        export(lora_run, ExportOptions(out=tmp_path, push="me/it"))
    with pytest.raises(UsageError, match="OWNER/NAME"):
        export(lora_run, ExportOptions(out=tmp_path, push="it"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_keeps_what_was_learnt_on_average(dtype):
    generator = torch.Generator().manual_seed(1)
    base = torch.randn(300, 300, generator=generator).to(dtype)
    learnt = 0.1 * torch.finfo(dtype).eps * torch.randn(300, 300, generator=generator)
    whole = base.float() + learnt

    def kept(stored: torch.Tensor) -> float:
        return float(((stored.float() - base.float()) * learnt).sum() / learnt.pow(2).sum())

    stored = rounded(whole, dtype, torch.Generator().manual_seed(0))
    assert stored.dtype == dtype and kept(stored) == pytest.approx(1, abs=0.1) and kept(whole.to(dtype)) < 0.6
    assert torch.equal(stored, rounded(whole, dtype, torch.Generator().manual_seed(0)))
    assert (stored.float() - whole).abs().max() <= torch.finfo(dtype).eps * whole.abs().max()
    assert torch.equal(rounded(base.float(), dtype, generator), base)  # numbers that need no rounding
    assert torch.equal(rounded(whole, torch.float32, generator), whole)
