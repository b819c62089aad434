"""Programs that want too much: they are wrong, contained and gone afterwards.

The tests that run programs are skipped where there is no sandbox. CI has one from `apt-get install bubblewrap`.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pytest

from motif.grading.code import sandbox
from motif.grading.verdict import Grade
from support.programs import (
    SUCCESSOR,
    gold,
    judged,
    processes_with,
    processes_within,
    reported,
    wait_for_the_end_of,
    zombies,
)
from support.waiting import until


@pytest.mark.slow
def test_hanging_is_wrong_and_ends(boxed, monkeypatch):
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 1.0)
    for program in (
        "import time\ndef f(x): time.sleep(99)",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(99)",
    ):
        assert judged(program) == Grade("wrong", "f(2): timed out after 1 s")
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 60.0)  # a second of computing takes longer on a busy machine
    for program in ("while True: pass", "def f(x): return 10 ** (10 ** 9)"):
        assert judged(program) == Grade("wrong", "f(2): timed out after 1 s of computing")
    stubborn = "import signal\nsignal.signal(getattr(signal, 'SIGXCPU', 2), signal.SIG_IGN)\nwhile True: pass"
    assert judged(stubborn).verdict == "wrong"
    assert judged("def f(x):\n    while x < 0: pass\n    return x + 1").reason.startswith("f(-1): timed out after 1 s")


def test_too_much_memory_is_wrong(boxed):
    for program in (
        "def f(x): return [0] * 10 ** 9",
        "def f(x): return bytearray(1 << 30)",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
    ):
        assert judged(program) == Grade("wrong", "f(2): out of memory")
    assert (
        judged("def f(x):\n    try: [0] * 10 ** 9\n    except MemoryError: pass\n    return x + 1").verdict == "right"
    )


def test_buffers_count_as_memory(boxed):
    program = """
        import fcntl, os, socket
        def f():
            held, ends, done = 0, [], []
            try:
                while True: ends += socket.socketpair()
            except OSError: pass
            for name, attempt in {
                "larger": lambda: ends[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 22),
                "carried": lambda: socket.send_fds(ends[0], [b"x"], [ends[1].fileno()]),
                "listening": lambda: ends[0].bind("/scratch/x") or ends[0].listen(),
                "pipe": lambda: fcntl.fcntl(ends[0].fileno(), fcntl.F_SETPIPE_SZ, 1 << 20),
            }.items():
                try:
                    attempt()
                    done.append(name)
                except OSError: pass
            for end in ends:
                end.setblocking(False)
                try:
                    while True: held += end.send(bytes(1 << 16))
                except OSError: pass
            kept = []
            try:
                while True: kept.append(bytearray(1 << 20))
            except MemoryError: pass
            return done, (held >> 20) + len(kept) < 256
    """
    assert reported(program) == "([], True)"


def test_too_many_processes_are_none(boxed):
    program = """
        import os, subprocess, sys, threading
        def f():
            done = []
            for name, attempt in {
                "fork": lambda: os.fork(),
                "subprocess": lambda: subprocess.run([sys.executable, "-c", ""]),
                "spawn": lambda: os.posix_spawn(sys.executable, [sys.executable, "-c", ""], {}),
                "system": lambda: os.system("true") and 1 / 0,
                "thread": lambda: threading.Thread(target=print).start(),
            }.items():
                try:
                    attempt()
                    done.append(name)
                except (OSError, RuntimeError, ZeroDivisionError):
                    pass
            return done
    """
    assert reported(program) == "[]"
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: break\n" + SUCCESSOR
    assert judged(bomb).verdict == "right"  # it went off alone


@pytest.mark.slow
def test_nothing_stays_behind(boxed, monkeypatch):
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 2.0)
    marker = f"motif-daemon-{os.getpid()}-{time.monotonic_ns()}"
    daemon = f"""
        import os, subprocess, sys, time
        command = [sys.executable or "python", "-c", "import time; time.sleep(60)  # {marker}"]
        for attempt in (
            lambda: subprocess.Popen(command, start_new_session=True),
            lambda: os.fork() or os.setsid() or os.fork() or os.execv(command[0], command),
            lambda: os.execv(command[0], command),
        ):
            try: attempt()
            except Exception: pass
        time.sleep(60)
    """
    seen = []
    watching = threading.Event()

    def watch():
        while not watching.wait(0.1):
            seen.extend(processes_with(marker))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert judged(daemon).reason == "f(2): timed out after 2 s"
    watching.set()
    watcher.join()
    assert seen  # it had become the daemon and was there to be found
    wait_for_the_end_of(marker)


@pytest.mark.parametrize(
    "program",
    [
        "while True: print('x' * 9999)",
        "import sys\nwhile True: sys.stderr.write('x' * 9999)",
        "import os\nwhile True: os.write(2, b'x' * 9999)",
        "def f(x): return 'x' * 5_000_000",
        "def f(x): return 1 << 50_000_000",
        "def f(x): raise ValueError('x' * 5_000_000)",
    ],
)
def test_floods_are_wrong(boxed, program):
    grade = judged(program)
    assert grade.verdict == "wrong"
    assert "wrote too much" in grade.reason or "ValueError: xxx" in grade.reason


@pytest.mark.parametrize(
    "program, reason",
    [
        ("import os\nos.kill(os.getpid(), 9)\nos.kill(1, 15)", "NameError"),  # it is deaf from inside
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("import sys\ndef f(x): sys.exit()", "SystemExit"),
        ("import os\nos._exit(0)", "ended early (exit status 0)"),
        ("import os\ndef f(x): os._exit(3)", "ended early (exit status 3)"),
        ("def f(x): raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f(x): return f(x)", "RecursionError: maximum recursion depth exceeded"),
        ("class E(Exception):\n  def __str__(self): 1 / 0\ndef f(x): raise E", "E: ?"),
        ("def f(x): return '\\ud800'", "returned '\\ud800'"),
        ("def f(x): return b'\\xff\\xfe'", "returned bytes.fromhex('fffe')"),
        ("x = '\ud800'", "UnicodeEncodeError"),
        ("x = '\0'", "S"),  # SyntaxError or ValueError: source code string cannot contain null bytes
        ("def f(x): return float('nan')", "returned nan"),
        ("def f(x): return 1 << 40_000", "returned 0x1000"),
        ("def f(x):\n  y = []\n  y.append(y)\n  return y", "TypeError: a result nested more than 50 levels deep"),
        ("def f(x):\n  for _ in range(9000): x = [x]\n  return x", "TypeError: a result nested more than 50"),
        ("(" * 5000, "SyntaxError: too many nested parentheses"),
        ("x = " + "-" * 15000 + "1", ""),
    ],
)
def test_odd_ends_are_wrong(boxed, program, reason):
    grade = judged(program)
    assert grade.verdict == "wrong"
    assert grade.reason.startswith(f"f(2): {reason}")


@pytest.mark.slow
def test_closing_everything_and_crashing_is_wrong(boxed, monkeypatch):
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 3.0)  # which one of them spends asleep
    closing = "import os\nfor n in range(64):\n    try: os.close(n)\n    except OSError: pass\nwhile True: pass"
    for program in (
        closing,
        "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return f(x)",
        "import ctypes\nctypes.string_at(0)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "import os\nos.kill(1, 9)\nos.kill(-1, 9)",
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import os\nfor n in range(3, 64):\n    try: os.write(n, b'{\"child-pid\": 1}\\n')\n    except OSError: pass",
    ):
        assert judged(program).verdict == "wrong"


def test_a_program_does_not_outlive_a_killed_grader(boxed):
    script = f"from motif.grading.code.rule import Code; Code().grade({gold()!r}, 'import time; time.sleep(60)')"
    environment = os.environ | {"PYTHONPATH": str(Path(sandbox.__file__).parents[3])}
    grader = subprocess.Popen([sys.executable, "-c", script], env=environment)
    until(lambda: processes_within(grader.pid))
    boxes = processes_within(grader.pid)
    grader.kill()
    grader.wait()
    until(lambda: not any(map(psutil.pid_exists, boxes)))


@pytest.mark.slow
def test_a_hundred_gradings_leave_nothing(boxed, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    judged(SUCCESSOR)
    before = len(zombies())
    descriptors, threads = set(os.listdir("/proc/self/fd")), threading.active_count()
    for number in range(100):
        wrong = ("import os\nos._exit(1)", "print('x' * 9_000_000)", "open('left', 'w')", "def f(x): return 1")
        assert judged(SUCCESSOR if number % 2 else wrong[number // 2 % 4]).verdict == (
            "right" if number % 2 else "wrong"
        )
    assert set(os.listdir("/proc/self/fd")) == descriptors
    assert threading.active_count() == threads
    assert not list(tmp_path.iterdir())
    assert len(zombies()) < before + 10  # other programs on this machine may leave one
    until(lambda: not processes_within(os.getpid()))


def test_from_several_threads(boxed):
    grades = []
    work = [f"def f(x): return x + {n}" for n in range(6)]
    threads = [threading.Thread(target=lambda program=program: grades.append(judged(program))) for program in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(grade.verdict for grade in grades) == ["right"] + ["wrong"] * 5
