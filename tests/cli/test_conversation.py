"""`motif solve` as a person and as a script meet it."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import select
import subprocess
import sys
import time

import pytest

from motif.cli.conversation import Transcript
from motif.cli.solve import questions_from, solve
from motif.errors import UsageError
from motif.method.rounds import Rounds
from motif.sampling.answer import AnswerPlan
from motif.sampling.grow import RoundLimits
from motif.session import LoadedModel
from motif.text import harmless
from support import forked
from support.serving import DEMO, Scripted
from support.tiny import char_tokenizer

ROUNDS = Rounds(DEMO.rounds, char_tokenizer())
NASTY = "<think>x\n\x1b]0;owned\x07</think><note>\x1b[2Jred\u202e \\boxed{7\x9b}</note>"


def test_what_commands_a_terminal_is_shown_and_not_sent():
    assert harmless("a\tb\nc × ✓ 数") == "a\tb\nc × ✓ 数"
    assert harmless("\x1b[31m\r\x07\x9b\u202e\x7f") == "\\x1b[31m\\r\\x07\\x9b\\u202e\\x7f"
    assert harmless("\ud800") == "\\ud800"


@pytest.mark.parametrize("live", [False, True])
def test_rounds_notes_and_answer_are_shown(live, capsys):
    transcript = Transcript(LoadedModel(Scripted(lambda ask: NASTY), ROUNDS, None, "a script"), False, {})
    transcript.live = live
    asyncio.run(transcript.answer(AnswerPlan("q", (RoundLimits(9, 0.0),) * 2)))
    text = capsys.readouterr().out
    assert "\nround 1 of 2\n  <think>x\n  \\x1b]0;owned\\x07</think>" in text
    assert "→ note: " in text and "\nround 2 of 2\n" in text
    assert text.endswith("\nanswer: 7\\x9b\n")
    assert not any(character in text for character in "\x1b\x07\x9b\u202e")


def test_json_holds_everything(capsys):
    transcript = Transcript(LoadedModel(Scripted(lambda ask: NASTY), ROUNDS, None, "a script"), True, {"seed": 3})
    asyncio.run(transcript.answer(AnswerPlan("q", (RoundLimits(9, 0.0),) * 2)))
    line = capsys.readouterr().out
    assert line.isascii() and line.count("\n") == 1
    found = json.loads(line)
    assert found["question"] == "q" and found["seed"] == 3 and found["model"] == "a script"
    assert [ended["text"] for ended in found["rounds"]] == [NASTY, NASTY]
    assert found["answer"] == "7\x9b"
    assert found["usage"]["completion_tokens"] == sum(ended["completion_tokens"] for ended in found["rounds"])


def test_where_questions_come_from(tmp_path, monkeypatch):
    file = tmp_path / "q.txt"
    file.write_text("one\n\ntwo\n", encoding="utf-8")
    assert questions_from("What?", None, False) == ["What?"]
    assert questions_from(None, file, False) == ["one\n\ntwo"]
    assert questions_from(None, file, True) == ["one", "two"]
    for arguments in (("q", file, False), ("-", file, False), ("q", None, True), (None, tmp_path / "no", False)):
        with pytest.raises(UsageError):
            questions_from(*arguments)
    (tmp_path / "empty").write_text(" \n")
    with pytest.raises(UsageError, match="empty"):
        questions_from(None, tmp_path / "empty", False)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert questions_from(None, None, False) is None


def test_lines_of_standard_input_become_lines_of_json(tmp_path):
    done = subprocess.run(
        [forked.python(), "-m", "motif", "solve", "--lines", "--json", "--rounds", "2"],
        input="What is 15 × 24?\n\nWhat is 15 × 11?\n",
        capture_output=True, text=True, cwd=tmp_path, timeout=300, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["question"] for one in found] == ["What is 15 × 24?", "What is 15 × 11?"]
    assert all(len(one["rounds"]) == 2 for one in found)
    assert "model: embedded, untrained" in done.stderr


def test_a_conversation_in_a_terminal(tmp_path):
    """Answers, Ctrl-C in an answer, Ctrl-C at the prompt, another answer, Ctrl-D."""
    ours, theirs = pty.openpty()
    own = "import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    own += "; from motif.cli.app import main; main()"
    own = f"import signal; signal.signal(2, signal.default_int_handler); {own}"  # in the background it is ignored
    process = subprocess.Popen(
        [forked.python(), "-c", own, "solve", "--rounds", "60", "--sample"],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=tmp_path,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TERM": "dumb"},
    )  # fmt: skip
    os.close(theirs)
    seen = ""

    def expect(text: str, key: str = "") -> None:
        """Wait for a text. Python's prompt can miss a signal that comes while it takes a key in: then `key` again."""
        nonlocal seen
        due, end = time.monotonic(), time.monotonic() + 300
        while text not in seen:
            assert time.monotonic() < end, seen
            if key and time.monotonic() >= due:
                type_(key)
                due += 5
            if select.select([ours], [], [], 0.2)[0]:
                try:
                    seen += os.read(ours, 4096).decode("utf-8", "replace")
                except OSError:  # how the end of a terminal is read on Linux
                    seen += "(closed)"
        seen = seen.partition(text)[2]

    def type_(text: str) -> None:
        os.write(ours, text.encode())

    try:
        expect("question: ")
        type_("What is 15 × 24?\n")
        expect("round 3 of 60")
        type_("\x03")
        expect("(stopped)")
        expect("question: ")
        type_("half a quest")
        expect("half a quest")  # a key that comes before the prompt listens is lost
        expect("question: ", key="\x03")
        type_("What is 2 + 2?\n")
        expect("round 60 of 60")
        expect("answer: ")
        expect("question: ")
        type_("\x04")
        assert process.wait(120) == 0
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def test_a_run_and_another_recipe_are_refused(tmp_path):
    with pytest.raises(UsageError, match="--run or --recipe"):
        solve("q", run=tmp_path, recipe="demo")
