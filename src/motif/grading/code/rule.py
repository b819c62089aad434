r"""A Python function that passes its unit tests, run in a sandbox (`motif.grading.code.sandbox`).

The gold answer is a JSON object, `{"tests": ["assert f(2) == 3", …]}`, with two optional keys: `entry_point`, the name
of the function, and `solution`, a program that passes. `motif.grading.code.unit_tests` says which tests can be used. A
gold answer with any other test is `ungraded`, because half of the tests would be another question.

The prediction is the program, or a text with the program in a fenced block. The last block marked as Python counts,
otherwise the last unmarked one, otherwise the whole text.

Whatever a program does, it is right or wrong. A program that hangs, fills the memory, floods or kills itself is wrong:
if it were `ungraded`, a policy could learn to hide there.
"""

from __future__ import annotations

import functools
import json
import textwrap

from motif.grading.code import sandbox, unit_tests, values
from motif.grading.code.unit_tests import UnitTest, UnitTests
from motif.grading.rule import Rule
from motif.grading.verdict import GoldError, Grade

LONGEST = 20_000  # characters of a program
LONGEST_RESPONSE = 200_000  # characters that are searched for it
LIMIT = sandbox.START_SECONDS + sandbox.WALL_SECONDS + 5  # seconds for one verdict; a caller waits longer
REASON = 200  # characters
SHOWN = 80  # characters of a call in a reason

_PYTHON = frozenset({"```python", "```python3", "```py"})


class Code(Rule):
    """Programs that pass all tests of the gold answer. A verdict takes some 30 ms for a simple program."""

    name = "code"
    reads_responses = True
    wrong_answers = ()  # `check_gold` has a better one
    seconds = LIMIT

    def quick(self, gold: str, prediction: str) -> Grade | None:
        """The verdict where no program needs to run, else None.

        This does not look at whether the program is Python at all: on hostile text the parser takes long or crashes, so
        the parser, too, runs in the sandbox.
        """
        try:
            tests = _read(gold)
        except GoldError as error:
            return Grade("ungraded", str(error)[:REASON])
        if len(prediction) > LONGEST_RESPONSE:
            return Grade("wrong", f"too long: {len(prediction)} characters")
        source = program(prediction)
        if not source.strip():
            return Grade("wrong", "empty")
        if len(source) > LONGEST:
            return Grade("wrong", f"too long: {len(source)} characters")
        if tests.entry_point not in source:
            return Grade("wrong", f"does not define {tests.entry_point}"[:REASON])
        return None

    def thorough(self, gold: str, prediction: str) -> Grade:
        """The verdict of the tests, within `LIMIT` seconds."""
        return self.quick(gold, prediction) or _by_running(_read(gold), program(prediction))

    def check_gold(self, gold: str) -> Grade:
        """Whether the tests tell right from wrong: their own solution, if given, passes, and an empty function fails.

        Raises:
            DataError: there is no sandbox that works here.
        """
        sandbox.prepare()
        try:
            read = _read(gold)
        except GoldError as error:
            return Grade("ungraded", str(error)[:REASON])
        names = sorted(set.union(*(unit_tests.tested_names(test.call) for test in read.tests)))
        stub = "".join(f"def {name}(*args, **kwargs): pass\n" for name in names)
        of_stub = _by_running(read, stub)
        if of_stub.verdict == "right":
            return Grade("wrong", "a function that returns None passes all tests")
        if of_stub.verdict == "ungraded":
            return of_stub
        if not read.solution:
            return Grade("right", "no solution to run")
        of_solution = self.grade(gold, read.solution)
        if of_solution.verdict == "wrong":
            return Grade("wrong", f"its own solution fails: {of_solution.reason}"[:REASON])
        return of_solution

    def prepare(self) -> None:
        """Find a sandbox and try it out.

        Raises:
            DataError: there is none that works here; the message says what to install.
        """
        sandbox.prepare()


def program(text: str) -> str:
    """The program in a response: the last block marked as Python, else the last unmarked one, else all of it.

    An unclosed block counts where no other does, because generation may have stopped there.
    """
    programs: dict[bool, str] = {}  # by whether the block is marked
    block: list[str] = []
    mark = ""  # of the current block
    for line in text.split("\n"):
        edge = line.strip().lower()
        if not edge.startswith("```"):
            block.append(line)
        elif mark and edge == "```":
            if mark in _PYTHON or mark == "```":
                programs[mark in _PYTHON] = "\n".join(block)
            mark = ""
        else:
            mark, block = edge, []
    if mark in _PYTHON or mark == "```":
        programs.setdefault(mark in _PYTHON, "\n".join(block))
    return textwrap.dedent(programs.get(True, programs.get(False, text)))


@functools.lru_cache(maxsize=1024)
def _read(gold: str) -> UnitTests:
    return unit_tests.read_gold(gold)


def _by_running(gold: UnitTests, source: str) -> Grade:
    try:
        run = sandbox.run(source, [test.call for test in gold.tests])
    except sandbox.SandboxError as error:
        return Grade("ungraded", str(error)[:REASON])
    for test, reply in zip(gold.tests, run.replies, strict=False):
        problem = _problem(test, reply)
        if problem:
            return _wrong(test, problem)
    if len(run.replies) < len(gold.tests):
        return _wrong(gold.tests[len(run.replies)], run.problem)
    return Grade("right")


def _wrong(test: UnitTest, problem: str) -> Grade:
    call = test.call if len(test.call) <= SHOWN else test.call[: SHOWN - 1] + "…"
    # The text of an error is the program's own: make it one line that can be written to a file.
    text = " ".join(f"{call}: {problem}"[: 2 * REASON].split())
    return Grade("wrong", text.encode("utf-8", "backslashreplace").decode()[:REASON])


def _problem(test: UnitTest, reply: str) -> str:
    # The reply is whatever the program chose to send; only the expected value helps it.
    try:
        kind, content = json.loads(reply)
    except (ValueError, TypeError, RecursionError):
        return "sent something that is not a result"
    if kind == "error" and isinstance(content, str):
        return "out of memory" if content.startswith("MemoryError") else content
    if kind != "value" or not values.well_formed(content):
        return "sent something that is not a result"
    return "" if test.passes(content) else f"returned {values.show(content)}"
