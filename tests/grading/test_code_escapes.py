"""Programs that want out of the sandbox: they reach no file, variable, network or wanted value.

The tests that run programs are skipped where there is no sandbox. CI has one from `apt-get install bubblewrap`.
"""

import os
import socket
import sys
import threading
from pathlib import Path

import pytest

from motif.grading.code import inside
from support import ROOT
from support.programs import judged, reported


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


def test_no_metadata_of_a_device_can_be_set(boxed):
    devices = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"]
    # Every attempt writes what is there already, so that a sandbox that fails this test does no harm.
    program = f"""
        import fcntl, os
        def f():
            done = []
            for device in {devices!r}:
                state, opened = os.stat(device), os.open(device, os.O_RDONLY)
                mode, times = state.st_mode & 0o7777, (state.st_atime_ns, state.st_mtime_ns)
                for name, attempt in {{
                    "chmod": lambda: os.chmod(device, mode),
                    "fchmod": lambda: os.fchmod(opened, mode),
                    "chown": lambda: os.chown(device, -1, -1),
                    "lchown": lambda: os.lchown(device, -1, -1),
                    "fchown": lambda: os.fchown(opened, -1, -1),
                    "utime": lambda: os.utime(device, ns=times),
                    "futimens": lambda: os.utime(opened, ns=times),
                    "write hint": lambda: fcntl.fcntl(opened, 1036, bytes(8)),
                    "flags": lambda: fcntl.ioctl(opened, 0x40086602, bytes(8)),
                    "lock": lambda: fcntl.flock(opened, fcntl.LOCK_SH),
                    "range lock": lambda: fcntl.lockf(opened, fcntl.LOCK_SH),
                    "lease": lambda: fcntl.fcntl(opened, 1024, fcntl.F_UNLCK),
                }}.items():
                    try:
                        attempt()
                        done.append((device, name))
                    except PermissionError:
                        pass
                os.close(opened)
            return done
    """
    before = [os.stat(device) for device in devices]
    assert reported(program) == "[]"
    assert [os.stat(device) for device in devices] == before


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of one machine")
def test_calls_by_number_are_denied_too(boxed):
    program = """
        import ctypes, errno
        call = ctypes.CDLL(None, use_errno=True).syscall
        def f():
            allowed = []
            calls = {  # none of these file names exists, so that nothing happens without the filter
                "chmod": 90, "lchown": 94, "utime": 132, "utimes": 235, "setxattr": 188, "removexattr": 197,
                "fchmodat": 268, "fchmodat2": 452, "fchownat": 260, "futimesat": 261, "utimensat": 280,
                "setxattrat": 463, "removexattrat": 466, "file_setattr": 469, "x32 chmod": 90 | 1 << 30,
            }
            for name, number in calls.items():
                arguments = (b"/dev/no",) if number < 250 or "x32" in name else (-100, b"/dev/no")
                if call(number, *arguments, 0, 0, 0) != -1 or ctypes.get_errno() != errno.EPERM: allowed.append(name)
            for number in (470, 500, 600):  # calls that are not on the list yet
                if call(number, 0) != -1 or ctypes.get_errno() != errno.ENOSYS: allowed.append(number)
            return allowed
    """
    assert reported(program) == "[]"


def test_what_a_function_needs_still_works(boxed):
    program = """
        import asyncio, os, random, sqlite3, sys, tempfile, uuid
        def f():
            assert asyncio.run(asyncio.sleep(0, 3)) == 3
            with open(os.devnull, "w") as sink: print("x" * 100_000, file=sink)
            assert len(os.urandom(8)) == len(open("/dev/urandom", "rb").read(8)) == 8
            assert not sys.stdin.isatty() and uuid.uuid4() and random.SystemRandom().random() < 1
            with tempfile.TemporaryDirectory() as folder: open(folder + "/x", "w").close()
            reading, writing = os.pipe()
            os.set_blocking(reading, False), os.set_inheritable(reading, True), os.dup(writing)
            return sqlite3.connect(":memory:").execute("select 1").fetchall()
    """
    assert reported(program) == "[(1,)]"
