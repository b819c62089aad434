"""`Grader`: the one way to grade, in this process where that is safe and in a killable worker where it is not.

A worker is `python -c "… serve()"` with one JSON object a line over its pipes. It is not made with multiprocessing,
whose spawn re-imports the user's script and so needs an `if __name__ == "__main__"` guard there. The time limit is kept
by the parent with SIGKILL: no limit inside the worker can stop one long operation on big integers.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

from motif.grading import exact, math, numeric
from motif.grading.verdict import Grade

GRADERS = ("exact", "numeric", "math")

START_LIMIT = 120.0  # seconds for a worker to import SymPy on a busy machine
MEMORY = 2 << 30  # bytes of address space of a worker
CACHED = 20_000  # verdicts kept
CACHED_LENGTH = 4_000  # characters; longer pairs are rare and judged without a process

_PACKAGES = str(Path(__file__).resolve().parents[2])

Pair = tuple[str, str | None]


class Grader:
    """Grades answers by one rule, each within `time_limit` seconds of wall-clock time.

    An answer that cannot be judged (the limit passed, the worker died, the grader raised) is `ungraded` with a reason.
    Safe to use from several threads. Use it as a context manager or call `close`; workers never outlive this process.

    Raises:
        ValueError: unknown name, or a limit or number of workers out of range.
    """

    def __init__(self, name: str, time_limit: float = 5.0, workers: int = 1) -> None:
        if name not in GRADERS:
            raise ValueError(f"no grader {name!r}: known are {', '.join(GRADERS)}")
        if not time_limit > 0 or workers < 1:
            raise ValueError(f"time_limit and workers must be positive, got {time_limit} and {workers}")
        self.name, self.time_limit, self.workers = name, time_limit, workers
        self._cache: dict[tuple[str, str], Grade] = {}
        self._writing = threading.Lock()
        self._all = [_Worker(time_limit) for _ in range(workers)]
        self._idle: queue.LifoQueue[_Worker] = queue.LifoQueue()  # the last used first: the others may never start
        for worker in self._all:
            self._idle.put(worker)
        weakref.finalize(self, _stop, self._all)  # runs when this object is collected, or at exit

    def grade(self, gold: str, prediction: str | None) -> Grade:
        """Judge one answer. No answer (None) is wrong.

        Raises:
            RuntimeError: the worker cannot import the grader; the message is the import's.
        """
        if prediction is None:
            return Grade("wrong", "no answer")
        cached = self._cache.get((gold, prediction))
        if cached is not None:
            return cached
        grade, final = self._judge(gold, prediction)
        if final:
            self._remember(gold, prediction, grade)
        return grade

    def grade_many(self, pairs: Sequence[Pair]) -> list[Grade]:
        """Judge (gold, prediction) pairs on all workers, in the given order; equal pairs are judged once."""
        different = list(dict.fromkeys(pairs))
        if self.workers == 1 or self.name != "math":
            grades = [self.grade(*pair) for pair in different]
        else:
            with ThreadPoolExecutor(self.workers) as pool:
                grades = list(pool.map(lambda pair: self.grade(*pair), different))
        found = dict(zip(different, grades, strict=True))
        return [found[pair] for pair in pairs]

    def check(self, golds: Iterable[str]) -> list[Grade]:
        """Grade each gold answer against itself, without the shortcut that equal texts are equal answers."""
        golds = list(golds)
        different = list(dict.fromkeys(golds))
        with ThreadPoolExecutor(self.workers) as pool:
            found = dict(zip(different, pool.map(self._check, different), strict=True))
        return [found[gold] for gold in golds]

    def close(self) -> None:
        """Stop the workers. A later `grade` starts them again."""
        _stop(self._all)

    def __enter__(self) -> Grader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _judge(self, gold: str, prediction: str) -> tuple[Grade, bool]:
        # The second value: whether another try would give the same.
        started = time.perf_counter()
        try:
            inline = _inline(self.name, gold, prediction)
        except Exception as error:
            inline = Grade("ungraded", f"{type(error).__name__}: {error}")
        if inline is not None:
            return Grade(inline.verdict, inline.reason, time.perf_counter() - started), True
        return self._ask(gold, prediction)

    def _check(self, gold: str) -> Grade:
        if self.name != "math" or numeric.number(gold, units=False) is not None:
            return self.grade(gold, gold)
        skipped = math.quick(gold, gold)
        return self._ask(gold, gold)[0] if skipped is None or skipped.verdict == "right" else skipped

    def _ask(self, gold: str, prediction: str) -> tuple[Grade, bool]:
        worker = self._idle.get()
        try:
            return worker.grade(gold, prediction)
        finally:
            self._idle.put(worker)

    def _remember(self, gold: str, prediction: str, grade: Grade) -> None:
        if len(gold) + len(prediction) > CACHED_LENGTH:
            return
        with self._writing:
            while len(self._cache) >= CACHED:
                del self._cache[next(iter(self._cache))]  # the oldest
            self._cache[gold, prediction] = grade


def _inline(name: str, gold: str, prediction: str) -> Grade | None:
    if name == "math":
        return math.quick(gold, prediction)
    return exact.grade(gold, prediction) if name == "exact" else numeric.grade(gold, prediction)


def _stop(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.stop()


class _Worker:
    """One process, started at the first question and again after it was killed. Used by one thread at a time."""

    def __init__(self, time_limit: float) -> None:
        self.time_limit = time_limit
        self.process: subprocess.Popen[str] | None = None

    def grade(self, gold: str, prediction: str) -> tuple[Grade, bool]:
        """The verdict, and whether it is final (a time-out or a crash is not)."""
        if self.process is None or self.process.poll() is not None:
            problem = self._start()
            if problem:
                return Grade("ungraded", problem), False
        started = time.perf_counter()
        request = {"gold": gold, "prediction": prediction, "limit": self.time_limit}
        reply, timed_out = self._exchange(request, self.time_limit)
        seconds = time.perf_counter() - started
        if reply is not None:
            return Grade(reply["verdict"], reply["reason"], seconds), True
        if timed_out:
            return Grade("ungraded", f"timed out after {self.time_limit:g} s", seconds), False
        return Grade("ungraded", "the grading worker died", seconds), False

    def stop(self) -> None:
        """Kill the process, if there is one, and wait until it is gone."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                _close_quietly(pipe)

    def _start(self) -> str:
        # Returns what went wrong, if anything did.
        self.stop()
        paths = [_PACKAGES, *filter(None, [os.environ.get("PYTHONPATH")])]
        # A fixed hash seed: SymPy's way through an expression follows the order of sets.
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0"}
        try:
            self.process = subprocess.Popen(
                # -P: a file named math.py in the user's folder must not replace the standard library's.
                [sys.executable, "-P", "-c", "from motif.grading.worker import serve; serve()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                encoding="utf-8",
                env=environment,
                start_new_session=True,  # out of reach of the terminal's Ctrl-C
            )
        except OSError as error:
            return f"the grading worker did not start: {error}"
        ready, timed_out = self._exchange(None, START_LIMIT)
        if ready is None:
            return "the grading worker did not start" + (f" in {START_LIMIT:g} s" if timed_out else "")
        if "error" in ready:
            self.stop()
            raise RuntimeError(
                f"grader 'math' cannot start: {ready['error']}. Install it with: pip install math-verify"
            )
        return ""

    def _exchange(self, request: dict[str, Any] | None, limit: float) -> tuple[dict[str, Any] | None, bool]:
        """Send a line and read one: the reply (None: the process is gone), and whether that was for the time limit."""
        process = self.process
        assert process is not None and process.stdin is not None and process.stdout is not None
        expired = threading.Event()

        def expire() -> None:
            expired.set()
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
            pass  # killed: a broken pipe, or an empty or half-written line
        finally:
            timer.cancel()
            timer.join()  # from here on it can no longer kill
            if reply is None or expired.is_set():  # also on Ctrl-C, when a late reply would answer the next question
                self.stop()
        return reply, expired.is_set()


def _close_quietly(pipe: IO[str] | None) -> None:
    try:
        if pipe is not None:
            pipe.close()
    except OSError:
        pass  # the unsent rest of a line to a dead process


def serve() -> None:
    """The worker's loop: a request a line on standard input, a verdict a line on standard output, until input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _limit_memory()
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what a library prints must not look like a reply
    try:
        importlib.import_module("math_verify")
    except Exception as error:
        _reply(replies, {"error": f"{type(error).__name__}: {error}"})
        return
    _reply(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        _set_alarm(request["limit"] + 2)
        _reply(replies, _judgement(request["gold"], request["prediction"]))
        _set_alarm(0)


def _judgement(gold: str, prediction: str) -> dict[str, str]:
    try:
        grade = math.by_math_verify(gold, prediction)
    except Exception as error:
        grade = Grade("ungraded", f"{type(error).__name__}: {error}"[:200])
    return {"verdict": grade.verdict, "reason": grade.reason}


def _reply(replies: IO[str], message: dict[str, Any]) -> None:
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:
        return  # Windows
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _set_alarm(seconds: float) -> None:
    # Unhandled, SIGALRM ends the process even inside one long C call: a hung worker does not outlive a killed parent.
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_REAL, seconds)
