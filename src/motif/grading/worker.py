"""A process that grades and can be killed.

It runs `python -c "… serve()"` and exchanges one JSON object a line over its pipes. It does not use multiprocessing,
which would import the user's script again and so require an `if __name__ == "__main__"` guard there. The parent
enforces the time limit with SIGKILL: no limit inside the worker can stop one long operation on big integers.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any

from motif.errors import DataError, MotifError
from motif.grading import registry
from motif.grading.rule import Rule
from motif.grading.verdict import Grade

COMPUTING = 0.6  # share of the limit spent computing; below it, something else was slow
REASON = 300  # characters

_PACKAGES = str(Path(__file__).resolve().parents[2])


class Worker:
    """One process, started by the first request and again after it was killed. One thread may use it at a time."""

    def __init__(self, rule: Rule, time_limit: float) -> None:
        self.rule, self.time_limit = rule, time_limit
        self.process: subprocess.Popen[str] | None = None

    def grade(self, gold: str, prediction: str | None) -> tuple[Grade, bool]:
        """The verdict, and whether it is final: a verdict for lack of time, or of a living worker, is not.

        Without a prediction, the rule's `check_gold` judges the gold answer.

        Raises:
            DataError: the rule cannot be loaded; the message says what to do.
        """
        if self.process is None or self.process.poll() is not None:
            problem = self._start()
            if problem:
                return Grade("ungraded", problem), False
        assert self.process is not None
        started, before = time.perf_counter(), _computed(self.process.pid)
        request = {"gold": gold, "prediction": prediction, "limit": self.time_limit}
        reply, computed = self._exchange(request, self.time_limit)
        seconds = time.perf_counter() - started
        if reply is not None:
            return Grade(reply["verdict"], reply["reason"], seconds), True
        if computed is None:
            return Grade("ungraded", "the grading worker died", seconds), False
        if computed - before >= COMPUTING * self.time_limit:
            return Grade("wrong", f"grading it took more than {self.time_limit:g} s", seconds), False
        return Grade("ungraded", f"timed out after {self.time_limit:g} s, most of them waiting", seconds), False

    def stop(self) -> None:
        """Kill the process, if there is one, and wait for its end."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
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
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
        except OSError as error:
            return f"the grading worker did not start: {error}"
        limit = self.rule.start_seconds
        ready, computed = self._exchange(None, limit)
        if ready is None:
            return "the grading worker did not start" + (f" in {limit:g} s" if computed is not None else "")
        if "error" in ready:
            self.stop()
            raise DataError(f"grader {self.rule.name!r} cannot start: {ready['error']}")
        return ""

    def _exchange(self, request: dict[str, Any] | None, limit: float) -> tuple[dict[str, Any] | None, float | None]:
        """Send a request and read the reply.

        Returns:
            The reply (None: the process is gone), and the seconds of computing if the time limit ended the process.
        """
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        expired: list[float] = []

        def expire() -> None:
            expired.append(_computed(process.pid))
            process.kill()

        timer = threading.Timer(limit, expire)
        timer.daemon = True
        timer.start()
        reply = None
        try:
            if request is not None:
                process.stdin.write(json.dumps(request) + "\n")
                process.stdin.flush()
            reply = json.loads(process.stdout.readline())
        except (OSError, ValueError):
            pass  # killed: a broken pipe, an empty line or half a line
        finally:
            timer.cancel()
            timer.join()  # it cannot kill the process any more
            if reply is None or expired:  # also after Ctrl-C, when a late reply would answer the next request
                self.stop()
        return reply, expired[0] if expired else None


def _computed(pid: int) -> float:
    """Seconds of processor time of a process and its descendants; 0 if it is gone."""
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
        return sum(times.user + times.system for times in (one.cpu_times() for one in family))
    except psutil.Error:
        return 0.0


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
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not look like a reply
    try:
        rule = registry.find(name)
        _limit_memory(rule.memory)
        rule.prepare()
    except Exception as error:
        _reply(replies, {"error": str(error) if isinstance(error, MotifError) else f"{type(error).__name__}: {error}"})
        return
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        _set_alarm(request["limit"] + 2)
        grade = judge(rule, request["gold"], request["prediction"])
        _reply(replies, {"verdict": grade.verdict, "reason": grade.reason[:REASON]})
        _set_alarm(0)


def judge(rule: Rule, gold: str, prediction: str | None) -> Grade:
    """The rule's verdict on the prediction, or on the gold answer where there is none; `ungraded` if it raises."""
    try:
        return rule.check_gold(gold) if prediction is None else rule.thorough(gold, prediction)
    except MemoryError:
        return rule.out_of_memory()
    except Exception as error:
        return Grade("ungraded", f"{type(error).__name__}: {error}")


def _reply(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _limit_memory(size: int) -> None:
    try:
        import resource
    except ImportError:
        return  # Windows
    resource.setrlimit(resource.RLIMIT_AS, (size, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _set_alarm(seconds: float) -> None:
    # Unhandled, SIGALRM ends the process even inside one long C call: a hung worker does not outlive a killed parent.
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
