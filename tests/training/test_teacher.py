"""A teacher on a server answers in the same rounds; what is right is imitated, and nothing is asked twice."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from motif.cli.train import show_plan
from motif.config import load_recipe
from motif.display import Display
from motif.errors import DataError, RecipeError, RunFolderError, SamplerError
from motif.session import open_session
from motif.training import teacher
from motif.training.loop import train

TAGS = {"think_tags": ["<think>", "</think>"], "note_tags": ["<note>", "</note>"], "note_tokens": 12}
ROUNDS = {"system_prompt": "", "progress": " [{note}]", "counter": " {round}", "final": " !"} | TAGS


class TeacherServer:
    """Speaks chat and adds, in two rounds. `answer`: what it says instead, or a status that it answers with."""

    def __init__(self):
        self.answer = lambda count, messages: None
        self.bodies, self.keys = [], []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments):
                pass

            def do_GET(self):
                self.reply(200, {"data": [{"id": "big"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.bodies.append(body)
                owner.keys.append(self.headers.get("Authorization"))
                text = owner.answer(len(owner.bodies), body["messages"])
                if isinstance(text, int):
                    return self.reply(text, {"error": {"message": "out of order"}})
                content = text or owner.right(body["messages"][-1]["content"])
                events = [{"choices": [{"delta": {"content": content}, "finish_reason": "stop"}]}]
                events += [{"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": 5}}]
                data = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
                self.send(200, data.encode(), "text/event-stream")

            def reply(self, status, content):
                self.send(status, json.dumps(content).encode(), "application/json")

            def send(self, status, data, kind):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def right(self, text):
        a, b = map(int, text.split(" ")[0].split("+"))
        note = f"\\boxed{{{a + b}}}" if text.endswith("!") else str(a + b)
        return f"<think>{a}+{b}</think><note>{note}</note>"


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(teacher, "PAUSE", 0.01)
    serving = TeacherServer()
    yield serving
    serving.http.shutdown()
    serving.http.server_close()


@pytest.fixture
def recipe(tmp_path, tiny_model, server):
    rows = "".join(json.dumps({"question": f"{n}+2", "answer": str(n + 2)}) + "\n" for n in range(1, 7))
    (tmp_path / "sums.jsonl").write_text(rows)

    def make(**changes):
        stage = {"source": "teacher", "teacher": server.url, "steps": 2, "samples": 2, "keep": 1, "look_questions": 1}
        return load_recipe(
            {
                "method": "paper",
                "model": {"name": tiny_model, "adapter": "full", "device": "cpu"},
                "data": {"train": str(tmp_path / "sums.jsonl"), "grader": "numeric"},
                "rounds": ROUNDS,
                "rollout": {"branching": [2, 1], "tokens_first": 40, "tokens_continue": 40, "window": 200},
                "warmstart": stage | changes,
                "train": {"steps": 0, "threads": 1},
                "eval": {"questions": 0},
            }
        )

    return make


def run(recipe, folder, **options):
    return train(recipe, folder, display=Display(quiet=True), **options)


def test_right_answers_are_imitated_and_paid_for(recipe, server, tmp_path, monkeypatch):
    monkeypatch.setenv("TEACHER_API_KEY", "secret")
    server.answer = lambda count, messages: (
        "<think>x</think><note>0</note>" if "3+2" in messages[-1]["content"] else None
    )
    run(recipe(), tmp_path / "run")
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert (summary["warmstart"]["demonstrations"], summary["warmstart"]["dropped"]) == (5, 1)
    assert len(server.bodies) == 6 * 2 * 2 and set(server.keys) == {"Bearer secret"}
    assert (summary["ledger"]["teacher_prompt_tokens"], summary["ledger"]["teacher_tokens"]) == (24 * 7, 24 * 5)
    assert summary["ledger"]["generated_tokens"] < 24 * 40  # of the looks alone
    assert {body["temperature"] for body in server.bodies} == {0.5}
    assert "secret" not in (tmp_path / "run/teacher.jsonl").read_text() + (tmp_path / "run/recipe.toml").read_text()
    assert "Tokens generated by the teacher" in (tmp_path / "run/report.html").read_text()


def test_what_was_answered_is_not_asked_again(recipe, server, tmp_path):
    server.answer = lambda count, messages: 400 if count > 9 else None
    with pytest.raises(SamplerError, match=r"warmstart.teacher: .* answered 400 .*go on with `motif resume"):
        run(recipe(teacher_concurrency=1), tmp_path / "run")
    done = (tmp_path / "run/teacher.jsonl").read_text().splitlines()
    assert len(done) == 2
    with (tmp_path / "run/teacher.jsonl").open("a") as file:
        file.write('{"key": "torn')
    asked = len(server.bodies)
    server.answer = lambda count, messages: None
    whole_lines = (tmp_path / "run/teacher.jsonl").read_text()
    (tmp_path / "run/teacher.jsonl").write_text("broken by hand\n" + whole_lines)
    with pytest.raises(RunFolderError, match=r"teacher.jsonl, line 1 cannot be used .*: delete the line"):
        run(recipe(teacher_concurrency=1), tmp_path / "run", resume=True)
    (tmp_path / "run/teacher.jsonl").write_text(whole_lines)
    run(recipe(teacher_concurrency=1), tmp_path / "run", resume=True)
    assert len(server.bodies) == asked + (6 - len(done)) * 4
    whole = tmp_path / "whole"
    run(recipe(), whole)
    for name in ("model/model.safetensors",):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()
    one, two = (json.loads((folder / "summary.json").read_text())["ledger"] for folder in (tmp_path / "run", whole))
    assert one["teacher_tokens"] == two["teacher_tokens"]


def test_a_teacher_is_asked_no_more_once_the_run_is_stopped(recipe, server, tmp_path):
    settings = recipe(teacher_concurrency=1)
    with contextlib.closing(open_session(settings)) as session:
        parts = (session, Display(quiet=True), tmp_path / "record.jsonl")
        assert not teacher.ask_teacher(*parts, lambda: len(server.bodies) >= 8).complete
        assert len(server.bodies) == 8
        lesson = teacher.ask_teacher(*parts, lambda: False)
    assert lesson.complete and len(lesson.found.trees) == 6 and len(server.bodies) == 24


def test_failures_that_pass_are_waited_out(recipe, server, tmp_path):
    server.answer = lambda count, messages: 503 if count % 3 == 0 else None
    run(recipe(), tmp_path / "run")
    assert json.loads((tmp_path / "run/summary.json").read_text())["warmstart"]["demonstrations"] == 6


def test_a_teacher_that_is_always_wrong_is_named_and_given_up(recipe, server, tmp_path, monkeypatch):
    monkeypatch.setattr(teacher, "PATIENCE", 2)
    server.answer = lambda count, messages: "<think>x</think><note>\\boxed{99}</note>"
    with pytest.raises(
        DataError, match=r"none of its answers to 2 questions is right \(the last: '99', and the answer"
    ):
        run(recipe(teacher_concurrency=1), tmp_path / "run")
    assert len(server.bodies) < 24 and (tmp_path / "run/teacher.jsonl").exists()


def test_what_cannot_be_imitated_is_counted_with_the_reason(recipe, server, tmp_path):
    server.answer = lambda count, messages: server.right(messages[-1]["content"]).split("</think>")[1]
    with pytest.raises(DataError, match="round 1 is not one <think> block"):
        run(recipe(), tmp_path / "run")


def test_a_teacher_that_is_down_is_told_before_a_model_is_loaded(recipe, server, tmp_path, monkeypatch):
    monkeypatch.setattr("motif.session.Policy", None)
    with pytest.raises(RecipeError, match=r"warmstart.teacher cannot be used: .* serves 'big', not 'huge' "):
        run(recipe(teacher_model="huge"), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"warmstart\.teacher cannot be used: http://127.0.0.1:1/v1 failed"):
        show_plan(recipe(teacher="http://127.0.0.1:1"), None, None)


@pytest.mark.parametrize("address", ["gpu1:8000", "http://anna:key@gpu1", "ftp://gpu1"])
def test_what_is_no_address_is_refused(recipe, address):
    with pytest.raises(RecipeError, match=r"warmstart.teacher: (is not the address|names a user)"):
        recipe(teacher=address)
