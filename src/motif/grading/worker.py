"""A process that grades and can be killed.

It runs `python -c "… serve()"` and exchanges one JSON object a line over its pipes. It does not use multiprocessing,
which would import the user's script again and so require an `if __name__ == "__main__"` guard there. The parent
enforces the time limit with SIGKILL: no limit inside the worker can stop one long operation on big integers. With a
worker ends whatever a user's function has started.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import fields, replace
from pathlib import Path
from typing import IO, Any

from motif.errors import DataError, MotifError
from motif.grading import registry
from motif.grading.given import UserFunction
from motif.grading.own import Answered
from motif.grading.rule import Rule
from motif.grading.verdict import Grade

PATIENCE = 10  # seconds by the clock for each second of computing, on a busy machine
COMPUTING = 0.6  # share of its time that a function computes, or would if it were let; below it, it waits
POLL = 0.1  # seconds
REASON = 300  # characters

_PACKAGES = str(Path(__file__).resolve().parents[2])


class Worker:
    """One process, started by the first request and again after it was killed. One thread may use it at a time."""

    def __init__(self, rule: Rule, time_limit: float) -> None:
        self.rule, self.time_limit = rule, time_limit
        self.process: subprocess.Popen[str] | None = None
        self.asks: list[str] | None = None  # names that a function of the user's own asks for; None: everything

    def grade(self, gold: str, prediction: str | None, answered: Answered | None = None) -> tuple[Grade, bool]:
        """The verdict, and whether it is final: a verdict for lack of time, or of a living worker, is not.

        Without a prediction, the rule's `check_gold` judges the gold answer. A function of the user's own is asked with
        `answered`, of which it gets what it asks for.

        Raises:
            DataError: the rule cannot be loaded; the message says what to do.
        """
        if self.process is None or _has_ended(self.process):
            problem = self._start()
            if problem:
                return Grade("ungraded", problem), False
        assert self.process is not None
        started = time.perf_counter()
        request: dict[str, Any] = {"gold": gold, "prediction": prediction, "limit": self.time_limit}
        if answered is not None:
            request["answered"] = _asked_for(answered, self.asks)
        reply = self._exchange(request, self.time_limit, self._limit())
        seconds = time.perf_counter() - started
        if isinstance(reply, Grade):
            return Grade(reply.verdict, reply.reason, seconds), False
        if reply is None:
            return Grade("ungraded", "the grading worker died", seconds), False
        return Grade(**reply, seconds=seconds), True

    def stop(self) -> None:
        """Kill the process and all that it has started, if there is one, and wait for its end."""
        process, self.process = self.process, None
        if process is not None:
            if process.returncode is None:  # else its id may be another's by now
                end_family(process.pid)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                _close_quietly(pipe)

    def _start(self) -> str:
        """Start the process and wait until it is ready; returns what went wrong, if anything did."""
        self.stop()
        paths = [_PACKAGES, *filter(None, [os.environ.get("PYTHONPATH")])]
        # A fixed hash seed, because SymPy works through an expression in the order of sets.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
        try:
            self.process = subprocess.Popen(
                # -P: a file named math.py in the user's folder must not replace the standard library's.
                [sys.executable, "-P", "-c", "from motif.grading.worker import serve; serve()", self.rule.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,  # never read: the worker is told by it when this process has ended
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
        except OSError as error:
            return f"the grading worker did not start: {error}"
        limit = self.rule.start_seconds
        ready = self._exchange(
            None, limit, lambda: Grade("ungraded", f"the grading worker did not start in {limit:g} s")
        )
        if isinstance(ready, Grade):
            return ready.reason
        if ready is None:
            return "the grading worker did not start"
        if "error" in ready:
            self.stop()
            raise DataError(f"grader {self.rule.name!r} cannot start: {ready['error']}")
        self.asks = ready.get("asks")
        return ""

    def _limit(self) -> Callable[[], Grade | None]:
        """A function that says, from the time limit on, whether a verdict has taken too long.

        A shipped rule never waits, so a hanging answer has its seconds of computing also on a busy machine, where they
        take longer, and is then wrong: were it ungraded, a policy would be paid for it. A user's function may wait for
        something that no answer can help.
        """
        assert self.process is not None
        pid, limit, waits = self.process.pid, self.time_limit, self.rule.waits
        started, before = time.perf_counter(), _computed(pid, family=waits)
        queued_before = _queued(pid) if waits else 0.0

        def overdue() -> Grade | None:
            elapsed, computed = time.perf_counter() - started, _computed(pid) - before
            if waits and computed + _queued(pid) - queued_before < COMPUTING * elapsed:
                return Grade("ungraded", f"timed out after {elapsed:.3g} s, most of them waiting")
            if computed >= limit or elapsed >= PATIENCE * limit:
                return Grade("wrong", f"grading it took more than {limit:g} s")
            return None

        return overdue

    def _exchange(
        self, request: dict[str, Any] | None, seconds: float, overdue: Callable[[], Grade | None]
    ) -> dict[str, Any] | Grade | None:
        """Send a request and read the reply.

        Args:
            seconds: from then on `overdue` is asked again and again; its verdict ends the process.

        Returns:
            The reply, the verdict of `overdue`, or None: the process is gone.
        """
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        verdicts: list[Grade] = []
        done = threading.Event()

        def watch() -> None:
            wait = seconds
            while not done.wait(wait):
                wait = POLL
                if verdict := overdue():
                    verdicts.append(verdict)
                    end_family(process.pid)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        reply = None
        try:
            if request is not None:
                process.stdin.write(json.dumps(request, default=str) + "\n")  # a column may hold a date
                process.stdin.flush()
            reply = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            pass  # killed: a broken pipe, an empty line or half a line
        finally:
            done.set()
            watcher.join()  # it cannot kill the process any more
            if reply is None or verdicts:  # also after Ctrl-C, when a late reply would answer the next request
                self.stop()
        return verdicts[0] if verdicts else reply


def end_family(pid: int) -> None:
    """Kill a process, its descendants, and the process group that it leads, in which orphans may be left."""
    import psutil

    with suppress(psutil.Error):
        for descendant in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                descendant.kill()
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL) if hasattr(os, "killpg") else os.kill(pid, signal.SIGTERM)


def _has_ended(process: subprocess.Popen[str]) -> bool:
    """Whether a process has ended; its id stays its own until it is waited for."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    try:
        return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return process.poll() is not None


def _computed(pid: int, family: bool = True) -> float:
    """Seconds of processor time of a process, and of its descendants; 0 if it is gone."""
    import psutil

    seconds = 0.0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *(process.children(recursive=True) if family else [])]:
            with suppress(psutil.Error):
                seconds += sum(one.cpu_times()[:4])  # its own, and those of the children that have ended
    return seconds


def _queued(pid: int) -> float:
    """Seconds for which the threads of a process and its descendants could have run, but had no processor.

    Known on Linux only; 0 elsewhere, where a busy machine therefore looks like waiting.
    """
    import psutil

    nanoseconds = 0
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        for one in [process, *process.children(recursive=True)]:
            for file in Path(f"/proc/{one.pid}/task").glob("*/schedstat"):
                with suppress(OSError, ValueError, IndexError):
                    nanoseconds += int(file.read_text(encoding="ascii").split()[1])
    return nanoseconds / 1e9


def _close_quietly(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # a dead process cannot take the rest of a line


def serve() -> None:
    """Read a request a line from standard input and write a verdict a line to standard output, until input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    name = sys.argv[1]
    replies, lifeline = os.fdopen(os.dup(1), "w", encoding="utf-8"), os.dup(2)
    for descriptor in (1, 2):  # what a library prints must not look like a reply
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
    try:
        rule = registry.find(name)
        _end_with_parent(lifeline, rule)
        _limit_memory(rule.memory)
        rule.prepare()
    except Exception as error:
        _reply(replies, {"error": str(error) if isinstance(error, MotifError) else f"{type(error).__name__}: {error}"})
        return
    _reply(replies, {"ready": True, "asks": rule.asks if isinstance(rule, UserFunction) else None})
    for line in sys.stdin:
        request = json.loads(line)
        _set_alarms(request["limit"])
        grade = judge(rule, request["gold"], request["prediction"], request.get("answered"))
        _reply(replies, replace(grade, reason=grade.reason[:REASON]).to_dict())
        _set_alarms(None)
    end_family(os.getpid())


def _end_with_parent(lifeline: int, rule: Rule) -> None:
    """Have this worker, and all that it has started, end when its parent has ended, however that was.

    The kernel kills a shipped rule's worker, even inside one long C call, when the other end of the lifeline is closed
    (Linux). A user's function may have started processes, which have to be found first.
    """
    if not rule.waits:
        with suppress(ImportError, AttributeError, OSError):
            import fcntl

            fcntl.fcntl(lifeline, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(lifeline, fcntl.F_SETSIG, signal.SIGKILL)
            fcntl.fcntl(lifeline, fcntl.F_SETFL, fcntl.fcntl(lifeline, fcntl.F_GETFL) | os.O_ASYNC)
            return
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        end_family(os.getpid())

    threading.Thread(target=wait, daemon=True).start()
    with suppress(OSError, AttributeError, TypeError):
        import ctypes

        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: of a process whose parent ends, too


def judge(rule: Rule, gold: str, prediction: str | None, answered: dict[str, Any] | None = None) -> Grade:
    """The rule's verdict on the prediction, or on the gold answer where there is none; `ungraded` if it raises.

    answered: what a function of the user's own is asked with.
    """
    try:
        if answered is not None:
            return rule.judge(Answered(**answered))
        return rule.check_gold(gold) if prediction is None else rule.thorough(gold, prediction)
    except MemoryError:
        return rule.out_of_memory()
    except Exception as error:
        return Grade("ungraded", f"{type(error).__name__}: {error}")


def _asked_for(answered: Answered, asks: list[str] | None) -> dict[str, Any]:
    """The fields of an answer that a function asks for; None: all of them."""
    record = {one.name: getattr(answered, one.name) for one in fields(answered)}
    if asks is None or "row" in asks:
        return record
    if not {"response", "responses"} & {*asks}:
        del record["responses"]
    if "notes" not in asks:
        del record["notes"]
    return record | {"columns": {name: value for name, value in answered.columns.items() if name in asks}}


def _reply(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:
        return  # Windows
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _set_alarms(limit: float | None) -> None:
    # Unhandled, these signals end the process even inside one long C call, during which no thread runs: where the
    # kernel does not end a hung worker with its parent, it does not live for long.
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, PATIENCE * limit + 2 if limit else 0)
        signal.setitimer(signal.ITIMER_PROF, limit + 2 if limit else 0)
