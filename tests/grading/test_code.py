"""Grading programs: the right ones pass, and whatever the others do, they are wrong, contained and gone afterwards.

The tests that run programs are skipped where there is no sandbox. CI has one from `apt-get install bubblewrap`.
"""

import json
import math
import os
import socket
import stat
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from motif.errors import DataError
from motif.grading.code import inside, rule, sandbox, seccomp, unit_tests, values
from motif.grading.verdict import Grade
from support import ROOT

CODE = rule.Code()

SUCCESSOR = "def f(x):\n    return x + 1\n"


def gold(*tests, **more):
    return json.dumps({"tests": list(tests) or ["assert f(2) == 3", "assert f(-1) == 0"], **more})


@pytest.fixture
def boxed(monkeypatch):
    """A working sandbox with short limits."""
    try:
        sandbox.prepare()
    except sandbox.SandboxError as error:
        assert "does not hold" not in str(error)  # that is no reason to skip
        pytest.skip(f"no sandbox: {error}")
    monkeypatch.setattr(sandbox, "CPU_SECONDS", 1)
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 3.0)


def judged(program, *tests):
    """The grade by tests, and a stop if the sandbox is to blame."""
    grade = CODE.grade(gold(*tests), program)
    assert grade.verdict != "ungraded", grade.reason
    assert len(grade.reason) <= 200
    return grade


def reported(program, call="f()"):
    """What a call gave, as far as a reason shows it."""
    grade = judged(program, {"call": call, "expected": "'never this'"})
    assert grade.verdict == "wrong"
    return grade.reason.removeprefix(f"{call}: ").removeprefix("returned ")


def processes_with(marker):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if marker.encode() in line:
            found.append(int(folder.name))
    return found


def zombies():
    """Ended processes of sandboxes, as far as names tell, that nobody has collected."""
    texts = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            texts.append(file.read_text(errors="replace"))
        except OSError:
            continue
    return [text for text in texts if "(bwrap) Z" in text or ("(python" in text and ") Z 1 " in text)]


def gone_soon(marker):
    end = time.monotonic() + 5
    while processes_with(marker) and time.monotonic() < end:
        time.sleep(0.05)
    return not processes_with(marker)


# -- ordinary programs -------------------------------------------------------------------------------------------------


def test_right_and_wrong(boxed):
    assert judged(SUCCESSOR) == Grade("right")
    assert judged(f"I think\n```python\n{SUCCESSOR}```\nworks.") == Grade("right")
    assert judged("def f(x): return x + 2") == Grade("wrong", "f(2): returned 4")
    assert judged("def f(x): return x + 1 if x > 0 else 9") == Grade("wrong", "f(-1): returned 9")
    assert judged("def f(x): raise ValueError('no')") == Grade("wrong", "f(2): ValueError: no")
    assert judged("def g(x): return x") == Grade("wrong", "f(2): NameError: name 'f' is not defined")
    assert judged("def f(x) return").reason.startswith("f(2): SyntaxError: expected ':'")
    assert judged("def f(x): return (y for y in [x])").reason == "f(2): TypeError: a generator is not plain data"


def test_reasons_hold_no_wanted_value(boxed):
    grade = judged("def f(x): return 0", "assert f(2) == 31415", "assert f(3) == 27182")
    assert grade.reason == "f(2): returned 0"


def test_what_a_program_may_use(boxed):
    program = """
        import collections, dataclasses, functools, heapq, itertools, json, math, re, string, typing, decimal, fractions

        @dataclasses.dataclass(order=True)
        class Point:
            x: int

        @functools.cache
        def fibonacci(n):
            return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)

        def f(text):
            print("a note to myself")
            points = sorted([Point(2), Point(1)])
            return collections.Counter(text), {fibonacci(80)}, [point.x for point in points], (math.pi, None)

        class Stack:
            def __init__(self, items): self.items = items
            def top(self): return self.items[-1]

        if __name__ == "__main__":
            raise SystemExit(input())
    """
    tests = [
        "assert f('aab') == ({'b': 1, 'a': 2}, {23416728348467685}, [1, 2], (3.14159265, None))",
        "assert Stack([1, 2]).top() == 2",
        "assert len(f('b')) == 4",
    ]
    assert judged(program, *tests) == Grade("right")


def test_files_in_the_scratch_folder(boxed):
    program = """
        import os, tempfile
        def f():
            with open("a.txt", "w") as file: file.write("kept")
            with tempfile.TemporaryFile() as file: file.write(b"x")
            return open("a.txt").read(), os.listdir(".")
        def g():
            written = 0
            try:
                for n in range(100):
                    with open(f"big{n}", "wb") as file: written += file.write(bytes(1 << 20))
            except OSError as error:
                return written <= 16 << 20, error.errno
    """
    assert judged(program, "assert f() == ('kept', ['a.txt'])", "assert g() == (True, 28)") == Grade("right")  # ENOSPC
    assert reported("import os\ndef f(): return os.listdir('.')") == "[]"  # a new folder each time


def test_sets_come_in_the_same_order_every_time(boxed):
    program = "def f(): return ''.join({'alpha', 'beta', 'gamma', 'delta', 'epsilon', 'zeta'})"
    assert len({reported(program) for _ in range(4)}) == 1


def test_it_is_quick(boxed, capsys):
    seconds = []
    for _ in range(7):
        started = time.perf_counter()
        assert judged(SUCCESSOR).verdict == "right"
        seconds.append(time.perf_counter() - started)
    with capsys.disabled():
        print(f" [a trivial program takes {statistics.median(seconds) * 1000:.0f} ms] ", end="")
    assert statistics.median(seconds) < 0.5


# -- programs that want out --------------------------------------------------------------------------------------------


def test_no_file_of_ours_is_in_reach(boxed, tmp_path, monkeypatch):
    secret = tmp_path / "answers.txt"
    secret.write_text("42")
    homes = [Path.home(), Path("/root"), Path("/home")]
    targets = ["/etc/passwd", "/etc/hostname", "/etc/shadow", "/proc/1/environ", "/proc/self/maps", "/sys/kernel"]
    targets += [str(secret), str(ROOT / "pyproject.toml"), inside.__file__, str(Path.home() / ".bashrc")]
    targets += [f"/proc/{os.getpid()}/{name}" for name in ("environ", "mem", "cmdline", "root", "cwd/pyproject.toml")]
    targets += [f"/proc/{number}/{name}" for number in (1, 2, "self") for name in ("mem", "environ", "root")]
    (Path.home() / ".motif-test-secret").write_text("x")
    try:
        program = f"""
            import glob, os
            def f():
                found = []
                for path in {targets + [str(home / ".motif-test-secret") for home in homes]!r}:
                    try:
                        found.append((path, open(path, "rb").read(9)))
                    except OSError:
                        if os.path.exists(path): found.append(path)
                return found
        """
        assert reported(program) == "[]"
    finally:
        (Path.home() / ".motif-test-secret").unlink()


def test_no_variable_of_ours_is_in_reach(boxed, monkeypatch):
    monkeypatch.setenv("SECRET_TOKEN", "hunter2")
    assert "hunter2" not in reported("import os\ndef f(): return [x for x in os.environ.items() if 'SECRET' in x[0]]")
    shown = reported("import os\ndef f(): return sorted(set(os.environ) - {'PYTHONHASHSEED','TMPDIR','LC_ALL','PWD'})")
    assert shown == "[]"


def test_nothing_can_be_written_outside(boxed, tmp_path):
    places = [
        "/",
        "/tmp",
        "/dev",
        "/dev/shm",
        "/usr/lib",
        "/etc",
        "/root",
        "/home",
        "/var/tmp",
        "/proc",
        "/run",
    ]
    places += [str(tmp_path), str(ROOT), str(Path.home()), sys.base_prefix, str(Path(os.__file__).parent)]
    program = f"""
        import os
        def f():
            done = []
            for place in {places!r}:
                for attempt in (
                    lambda: open(place + "/motif-escaped", "w").close(),
                    lambda: os.mkdir(place + "/motif-escaped-folder"),
                    lambda: os.rename(place + "/os.py", place + "/so.py"),
                    lambda: os.truncate(place + "/os.py", 0),
                ):
                    try:
                        attempt()
                        done.append(place)
                    except OSError:
                        pass
            return done
    """
    assert reported(program) == "[]"
    assert not any((Path(place) / "motif-escaped").exists() for place in places)


def test_no_network(boxed):
    reached = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.2)
        port = listener.getsockname()[1]
        program = f"""
            import socket
            def f():
                done = []
                for name, attempt in {{
                    "tcp": lambda: socket.create_connection(("127.0.0.1", {port}), 1),
                    "localhost": lambda: socket.create_connection(("localhost", {port}), 1),
                    "dns": lambda: socket.getaddrinfo("localhost.localdomain", 80),
                    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", {port})),
                    "unix": lambda: socket.socket(socket.AF_UNIX),
                    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0),
                    "serve": lambda: socket.create_server(("0.0.0.0", 0)),
                }}.items():
                    try:
                        attempt()
                        done.append(name)
                    except OSError:
                        pass
                return done
        """
        assert reported(program) == "[]"
        try:
            listener.accept()
            reached.set()
        except TimeoutError:
            pass
    assert not reached.is_set()


ANSWER = "xq77zz"
SEARCH = """
    import gc, os, sys

    wanted = "".join(["xq", "77", "zz"])

    def holds(value, depth=0):
        if isinstance(value, str): return wanted in value
        if isinstance(value, (bytes, bytearray)): return wanted.encode() in value
        if depth > 4: return False
        if isinstance(value, dict): return any(holds(x, depth + 1) for pair in list(value.items()) for x in pair)
        if isinstance(value, (list, tuple, set, frozenset)): return any(holds(x, depth + 1) for x in list(value))
        return False

    def search():
        found = []
        for thing in gc.get_objects():
            if thing is not globals() and holds(thing): found.append("gc")
        frame = sys._getframe()
        while frame:
            if frame.f_globals is not globals() and (holds(frame.f_locals) or holds(frame.f_code.co_consts)):
                found.append("frame")
            frame = frame.f_back
        for name, module in list(sys.modules.items()):
            if name != "answer" and holds(vars(module)): found.append(name)
        if holds([sys.argv, sys.orig_argv, dict(os.environ)]): found.append("arguments")
        paths = [__builtins__.get("__file__", ""), sys.argv[0], "/proc/self/cmdline", "/proc/self/environ"]
        paths += [f"/proc/{os.getppid()}/{x}" for x in ("mem", "cmdline", "environ", "fd/0")] 
        for number in range(64):
            try: paths.append(os.dup(number))
            except OSError: pass
        for path in paths:
            try:
                if wanted.encode() in open(path, "rb", buffering=0).read(1 << 20): found.append(path)
            except Exception: pass
        return sorted(set(map(str, found)))

    now = search()
    def f(*_): return now + search()
"""


def test_the_wanted_values_are_not_in_there(boxed):
    assert reported(SEARCH, "f(1)") == "[]"
    grade = judged(SEARCH, f"assert f(1) == '{ANSWER}'", f"assert f(2) == ['{ANSWER}']")
    assert (grade.verdict, grade.reason) == ("wrong", "f(1): returned []")
    # The search does find what is there: a call's argument is no secret.
    assert "frame" in reported(SEARCH, f"f('{ANSWER}')")


FORGERIES = {
    "replies of its own": "import os\nfor fd in range(3, 9):\n  try: os.write(fd, b'[\"value\", true]\\n' * 9)\n"
    "  except OSError: pass\nos.write(1, b'[\"value\", true]\\n' * 9)\nos._exit(0)",
    "printed look-alikes": 'print(\'"ready"\')\nprint(\'["value", ["int", "0x0"]]\')\ndef f(x): return 0',
    "another json": "import json\njson.dumps = json.JSONEncoder.encode = lambda *_: '[\"value\", true]'\n"
    "def f(x): return object()",
    "another print and repr": "import builtins\nbuiltins.repr = builtins.hex = lambda x: '0x3'\ndef f(x): return 5",
    "equal to everything": "class E(int):\n  def __eq__(self, other): return True\n  __hash__ = int.__hash__\n"
    "def f(x): return E(7)",
    "no plain data": "class E:\n  def __eq__(self, other): return True\ndef f(x): return E()",
    "another encoder": "import sys\nsys.modules['__main__'].encode = lambda v, depth=0: True\ndef f(x): return 1",
    "a claim of being right": "def f(x): return 'right'",
    "its own module": "import sys\nsys.modules['__main__'].__dict__.clear()\ndef f(x): return 1",
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forged_output_is_wrong(boxed, forgery):
    assert judged(FORGERIES[forgery]).verdict == "wrong"


# -- programs that want too much ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_hanging_is_wrong_and_ends(boxed, monkeypatch):
    for program in (
        "import time\ndef f(x): time.sleep(99)",
        "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\ntime.sleep(99)",
    ):
        started = time.perf_counter()
        assert judged(program) == Grade("wrong", "f(2): timed out after 3 s")
        assert time.perf_counter() - started < 12
    monkeypatch.setattr(sandbox, "WALL_SECONDS", 30.0)  # a second of computing takes longer on a busy machine
    for program in ("while True: pass", "def f(x): return 10 ** (10 ** 9)"):
        started = time.perf_counter()
        assert judged(program) == Grade("wrong", "f(2): timed out after 1 s of computing")
        assert time.perf_counter() - started < 12
    stubborn = "import signal\nsignal.signal(getattr(signal, 'SIGXCPU', 2), signal.SIG_IGN)\nwhile True: pass"
    assert judged(stubborn).verdict == "wrong"
    assert judged("def f(x):\n    while x < 0: pass\n    return x + 1").reason.startswith("f(-1): timed out after 1 s")


def test_too_much_memory_is_wrong(boxed):
    started = time.perf_counter()
    for program in (
        "def f(x): return [0] * 10 ** 9",
        "def f(x): return bytearray(1 << 30)",
        "x = []\nwhile True: x.append(bytearray(1 << 20))",
    ):
        assert judged(program) == Grade("wrong", "f(2): out of memory")
    assert (
        judged("def f(x):\n    try: [0] * 10 ** 9\n    except MemoryError: pass\n    return x + 1").verdict == "right"
    )
    assert time.perf_counter() - started < 30


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
def test_nothing_stays_behind(boxed):
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

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert judged(daemon).reason == "f(2): timed out after 3 s"
    watching.set()
    watcher.join()
    assert seen  # it had become the daemon and was there to be found
    assert gone_soon(marker)


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
    started = time.perf_counter()
    grade = judged(program)
    assert grade.verdict == "wrong"
    assert "wrote too much" in grade.reason or "ValueError: xxx" in grade.reason
    assert time.perf_counter() - started < 6


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
def test_closing_everything_and_crashing_is_wrong(boxed):
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
    end = time.monotonic() + 20
    while not processes_with("What runs inside the sandbox") and time.monotonic() < end:
        time.sleep(0.05)
    time.sleep(0.5)
    assert processes_with("What runs inside the sandbox")
    grader.kill()
    grader.wait()
    assert gone_soon("What runs inside the sandbox")


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
    assert gone_soon("What runs inside the sandbox")  # the first words of the text that is sent


def test_from_several_threads(boxed):
    grades = []
    work = [f"def f(x): return x + {n}" for n in range(6)]
    threads = [threading.Thread(target=lambda program=program: grades.append(judged(program))) for program in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(grade.verdict for grade in grades) == ["right"] + ["wrong"] * 5


# -- when the sandbox is to blame --------------------------------------------------------------------------------------


@pytest.fixture
def fake_bubblewrap(tmp_path, monkeypatch):
    """A `bwrap` of the test's own."""
    if not sys.platform.startswith("linux") or os.uname().machine not in seccomp.MACHINES:
        pytest.skip("bubblewrap is for Linux")

    def install(script):
        path = tmp_path / "bwrap"
        path.write_text(f"#!{sys.executable}\n{script}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", str(tmp_path))

    caches = (sandbox.bubblewrap.command, sandbox.prepare)
    for cached in caches:
        cached.cache_clear()
    yield install
    for cached in caches:
        cached.cache_clear()


def test_no_sandbox_says_what_to_install(fake_bubblewrap, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="bubblewrap is missing: install bubblewrap"):
        CODE.prepare()
    assert CODE.grade(gold(), SUCCESSOR).verdict == "ungraded"


def test_a_sandbox_that_does_not_start_says_why(fake_bubblewrap):
    fake_bubblewrap("import sys; sys.exit('bwrap: No permissions to create new namespace')")
    with pytest.raises(DataError, match=r"No permissions to create new namespace\. bubblewrap needs user namespaces"):
        CODE.prepare()


def test_a_sandbox_that_does_not_hold_is_refused(fake_bubblewrap):
    fake_bubblewrap("""import os, sys
os.write(int(sys.argv[sys.argv.index("--info-fd") + 1]), b'{"child-pid": %d}' % os.getpid())
program = sys.argv.index("-s") - 1
os.execv(sys.argv[program], sys.argv[program:])
""")
    with pytest.raises(
        DataError, match=r"the sandbox does not hold: inside it a program can .*open a socket.*see /etc"
    ):
        CODE.prepare()


def test_a_start_that_fails_later_is_ungraded(boxed, monkeypatch):
    def fail(*_, **__):
        raise OSError("no more processes")

    monkeypatch.setattr(sandbox.subprocess, "Popen", fail)
    before = set(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else set()
    grade = CODE.grade(gold(), SUCCESSOR)
    assert grade == Grade("ungraded", "the sandbox did not start: no more processes")
    assert not before or set(os.listdir("/proc/self/fd")) == before


def test_a_start_that_hangs_is_ungraded(fake_bubblewrap, monkeypatch):
    fake_bubblewrap("import time; time.sleep(60)")
    monkeypatch.setattr(sandbox, "START_SECONDS", 0.5)
    monkeypatch.setattr(sandbox, "prepare", lambda: None)
    assert CODE.grade(gold(), SUCCESSOR) == Grade("ungraded", "the sandbox did not start: timed out after 0.5 s")


# -- what is run, and against what -------------------------------------------------------------------------------------


def test_quick_needs_no_process(monkeypatch):
    monkeypatch.setattr(sandbox, "run", lambda *_: pytest.fail("ran something"))
    assert CODE.quick(gold(), SUCCESSOR) is None
    assert CODE.grade(gold(), " \n ") == Grade("wrong", "empty")
    assert CODE.grade(gold(), "```python\n```") == Grade("wrong", "empty")
    assert CODE.grade(gold(), "x" * 30_000) == Grade("wrong", "too long: 30000 characters")
    assert CODE.grade(gold(), "x" * 3_000_000) == Grade("wrong", "too long: 3000000 characters")
    assert CODE.grade(gold(entry_point="f"), "g = 1") == Grade("wrong", "does not define f")


@pytest.mark.parametrize(
    "text, found",
    [
        ("x = 1", "x = 1"),
        ("a\n```python\nx = 1\n```\nb", "x = 1"),
        ("```py\nx = 1\n```\n```Python\nx = 2\n```", "x = 2"),
        ("```python\nx = 1\n```\nwhich prints\n```\n1\n```", "x = 1"),
        ("```\nx = 1\n```\n```json\n{}\n```", "x = 1"),
        ("1. so\n   ```python\n   if a:\n       b\n   ```", "if a:\n    b"),
        ("```python\nx = 1\n```\n```python\nx = 2", "x = 1"),
        ("so\n```python\nx = 2", "x = 2"),
        ("```python\nx = 1\n```python\nx = 2\n```", "x = 2"),
    ],
)
def test_the_last_block_counts(text, found):
    assert rule.program(text) == found


def test_blocks_are_found_in_linear_time():
    started = time.perf_counter()
    for unit in ("```python\n", "```", "``` ```\n", "\n"):
        rule.program(unit * (200_000 // len(unit)))
    assert time.perf_counter() - started < 5


@pytest.mark.parametrize(
    "line, call, expected",
    [
        ("assert f(2) == 3", "f(2)", 3),
        ("assert 3 == f(2)", "f(2)", 3),
        ("assert f(2) == 3, 'should be three'", "f(2)", 3),
        ("assert f([1, -2], key={'a': (1,)}) is None", "f([1, -2], key={'a': (1,)})", None),
        ("assert set(f((1, 2))) == set((2, 1))", "set(f((1, 2)))", {1, 2}),
        ("assert sorted(f('a'), reverse=True) == [1]", "sorted(f('a'), reverse=True)", [1]),
        ("assert Stack([1]).pop() == 1", "Stack([1]).pop()", 1),
        ("assert solution.f(1) == 1.5", "solution.f(1)", 1.5),
        ("assert f(float('inf')) == float('-inf')", "f(float('inf'))", -math.inf),
        ("assert math.isclose(f(1), 2.0)", "f(1)", 2.0),
        ("assert f() == set()", "f()", set()),
    ],
)
def test_assertions_are_taken_apart(line, call, expected):
    test = unit_tests.read_gold(gold(line)).tests[0]
    assert test.call == call
    assert test.expected == inside.encode(expected)
    assert "expected" not in repr(test)  # reprs end up in messages


@pytest.mark.parametrize(
    "test, problem",
    [
        ("assert f(2)", "test 1 does not compare a call with a value by =="),
        ("assert f(2) != 3", "test 1 does not compare a call with a value by =="),
        ("assert f(2) == 3 == 3", "test 1 does not compare a call with a value by =="),
        ("assert abs(f(2) - 3.5) < 1", "test 1 does not compare a call with a value by =="),
        ("assert (f(2) == 3) == True", "test 1 does not call a function with literal arguments"),
        ("assert abs(f(2) - 3) == 0", "test 1 does not call a function with literal arguments"),
        ("assert f(2, 3 == 3) == 0", "test 1 does not call a function with literal arguments"),
        ("assert f(x) == 3", "test 1 does not call a function with literal arguments"),
        ("assert f(lambda: 3) == 3", "test 1 does not call a function with literal arguments"),
        ("assert 2 == 3", "test 1 does not call a function with literal arguments"),
        ("assert f(2) == g(3)", "test 1 needs a literal instead of 'g(3)'"),
        ("assert f(2) == object", "test 1 needs a literal instead of 'object'"),
        ("for x in [1]: assert f(x) == 3", "test 1 is not one assert statement"),
        ("assert f(1) == 1; assert f(2) == 2", "test 1 is not one assert statement"),
        ("assert f(2 == 3", "test 1 cannot be read (SyntaxError"),
        ("assert f(1) == " + "9" * 5000, "test 1 cannot be read (SyntaxError"),
        ({"call": "f(1)"}, "test 1 has the keys call, not call and expected"),
        ({"call": "f(1)", "expected": 1}, "test 1 needs both as text"),
        ({"call": "f(1)", "expected": "word"}, "test 1 needs a literal instead of 'word'"),
        ({"call": "1 + 1", "expected": "2"}, "test 1 does not call a function"),
        (5, "test 1 is a int, not text or an object"),
    ],
)
def test_a_test_that_cannot_be_used_is_ungraded(test, problem):
    grade = CODE.grade(gold(test, "assert f(2) == 3"), SUCCESSOR)
    assert grade.verdict == "ungraded"
    assert grade.reason.startswith(problem)


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "not JSON"),
        ("[]", "not a JSON object"),
        ("{}", "there are no tests"),
        ('{"tests": []}', "there are no tests"),
        ('{"tests": "assert f(2) == 3"}', "there are no tests"),
        ('{"tests": ["assert f(2) == 3"], "test": 1}', "unknown key 'test'"),
        ('{"tests": ["assert f(2) == 3"], "solution": 1}', "solution is a int"),
        (json.dumps({"tests": ["assert f(2) == 3"] * 201}), "201 tests"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_gold_answer_that_is_none_is_ungraded(text, problem):
    grade = CODE.grade(text, SUCCESSOR)
    assert grade.verdict == "ungraded"
    assert problem in grade.reason


def test_a_gold_answer_is_checked_by_its_solution(boxed):
    assert CODE.check_gold(gold(solution=SUCCESSOR)).verdict == "right"
    assert CODE.check_gold(gold()).verdict == "right"
    wrong = CODE.check_gold(gold(solution="def f(x): return 3"))
    assert wrong == Grade("wrong", "its own solution fails: f(-1): returned 3")
    weak = CODE.check_gold(gold("assert f(2) == None", solution="def f(x): return None"))
    assert weak == Grade("wrong", "a function that returns None passes all tests")
    assert CODE.check_gold("{}").verdict == "ungraded"


# -- equal values ------------------------------------------------------------------------------------------------------

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text(max_size=5)
    | st.floats(allow_nan=False)
    | st.binary(max_size=5),
    lambda below: (
        st.lists(below, max_size=4)
        | st.lists(below, max_size=4).map(tuple)
        | st.dictionaries(st.integers() | st.text(max_size=3) | st.none(), below, max_size=4)
        | st.sets(st.integers() | st.text(max_size=3), max_size=4)
        | st.frozensets(st.frozensets(st.integers(), max_size=3), max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(PLAIN, PLAIN)
def test_values_equal_themselves_and_little_else(one, two):
    first, second = (json.loads(json.dumps(inside.encode(value))) for value in (one, two))
    assert values.well_formed(first)
    assert values.same(first, first)
    if values.same(first, second):
        assert values.same(second, first)
    assert len(values.show(first)) <= values.SHOWN


@pytest.mark.parametrize(
    "wanted, found, equal",
    [
        (3, 3.0, True),
        (0.3, 0.1 + 0.2, True),
        (1.0, 1.0 + 1e-7, True),
        (1.0, 1.00001, False),
        (0.0, 1e-10, True),
        (1, True, False),
        (True, 1, False),
        (None, False, False),
        ([1, 2], (1, 2), False),
        ([1, 2], [2, 1], False),
        ([1, 2], [1, 2, 3], False),
        ("a", b"a", False),
        ({1, 2}, {2, 1}, True),
        ({1, 2}, frozenset([1, 2]), True),
        ({1, 2}, [1, 2], False),
        ({1.0}, {1}, False),
        ({"a": 1, "b": [0.3]}, {"b": [0.1 + 0.2], "a": 1.0}, True),
        ({"a": 1}, {"a": 2}, False),
        ({"a": 1}, {"b": 1}, False),
        ({1: 1}, {1.0: 1}, False),
        (math.inf, math.inf, True),
        (math.inf, 1e308, False),
        (math.nan, math.nan, False),
        (10**400, 1e308, False),
        (10**400, 10**400, True),
        (1 + 2j, 1 + 2j, True),
        (1 + 2j, 1 - 2j, False),
        ("", None, False),
        ([], (), False),
        ([[]], [[]], True),
    ],
)
def test_equality(wanted, found, equal):
    assert values.same(inside.encode(wanted), inside.encode(found)) is equal


def test_a_tolerance_of_its_own():
    loose = unit_tests.read_gold(gold("assert math.isclose(f(1), 100, rel_tol=0.01)")).tests[0]
    assert loose.passes(inside.encode(100.9))
    assert not loose.passes(inside.encode(102.0))


def test_a_solution_is_judged_within_a_tolerance(boxed):
    assert judged("def f(): return 0.1 + 0.2", "assert f() == 0.3").verdict == "right"


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "null",
        "[]",
        "[1, 2, 3]",
        '["value"]',
        '["value", ["int", 3]]',
        '["value", 3]',
        '["value", ["int", "3"]]',
        '["value", ["int", "0x3 "]]',
        '["value", ["int", "0x_3"]]',
        '["value", ["float", "3"]]',
        '["value", ["float", "' + "1" * 900_000 + '"]]',
        '["value", ["list"]]',
        '["value", []]',
        '["value", {"a": 1}]',
        '["value", ["dict", 1]]',
        '["value", ["dict", ["a"]]]',
        '["value", ["set", ["set", ["odd", []]]]]',
        '["error", 3]',
        '["value", ' + "[" * 100_000,
        '["value", ' + '["list", ' * 900 + "1" + "]" * 901,
        '["value", ["list"' + ', ["int", "0x1"]' * 30_000 + "]]",
        '["value", ' + "9" * 900_000 + "]",
        '["value", ["int", "0x' + "9" * 900_000 + '"]]',
        '["value", ["set"' + "".join(f', ["int", "{hex(n * (2**61 - 1))}"]' for n in range(20_000)) + "]]",
    ],
    ids=lambda reply: reply[:24],
)
def test_hostile_replies_are_wrong_at_once(reply):
    test = unit_tests.read_gold(gold("assert f(2) == 3")).tests[0]
    started = time.perf_counter()
    assert rule._problem(test, reply)
    assert time.perf_counter() - started < 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6) | st.sampled_from(["0x1", "1.0"]),
    lambda below: (
        st.lists(below, max_size=4)
        | st.dictionaries(st.text(max_size=3), below, max_size=2)
        | st.tuples(st.sampled_from(["int", "float", "complex", "bytes", "list", "tuple", "set", "dict"]), below).map(
            list
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(JSON, PLAIN)
def test_any_reply_is_judged_without_error(content, wanted):
    test = unit_tests.UnitTest("f()", inside.encode(wanted))
    for reply in (json.dumps(["value", content]), json.dumps(["error", content]), json.dumps(content)):
        assert isinstance(rule._problem(test, reply), str)
    if values.well_formed(content):
        values.same(content, test.expected)
        assert len(values.show(content)) <= values.SHOWN


def test_a_reason_is_one_line_that_can_be_written(boxed):
    reason = judged("def f(x): raise ValueError('a\\n\\nb \\ud800 \\x00')").reason
    assert reason.encode().decode() == reason
    assert reason.startswith("f(2): ValueError: a b \\ud800")


def test_the_filter_is_the_kernels_format():
    for machine in seccomp.MACHINES:
        assert len(seccomp.program(machine)) % 8 == 0
        assert len(seccomp.program(machine)) < 4096  # fits a pipe
    with pytest.raises(KeyError):
        seccomp.program("vax")
