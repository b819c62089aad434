"""Rules that are functions of the user's own: from a file, which workers import, or given in Python.

A function from a file runs in worker processes, under the time limit. One that was given in Python may be of a notebook
or a closure, which no other process has: it runs in this process, one call at a time, after the answers of its step
have been sampled. Coroutines (`async def`) run beside the sampling, many at a time. Each call has a time limit.
"""

from __future__ import annotations

import ast
import asyncio
import hashlib
import inspect
import re
import textwrap
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from types import CodeType
from typing import Any

from motif.errors import DataError, RecipeError
from motif.grading.limit import TookTooLong, time_limit
from motif.grading.own import Answered, Reward
from motif.grading.rule import Rule
from motif.grading.verdict import Grade

GIVEN = "python:"
"""What the name of a rule that was given in Python begins with."""
AT_ONCE = 32
"""Coroutines that grade at the same time; a judge with a lower limit keeps it with a semaphore of its own."""
SECONDS = 60.0
"""The least time limit of a function that was given in Python: it may wait for something, or ask a model."""
GRACE = 5.0
"""Seconds after its time limit in which a coroutine ends, unless it blocks its loop."""

_given: dict[str, GivenFunction] = {}


class OwnRule(Rule):
    """A rule that is asked with all that is known of an answer."""

    reads_responses = True
    own = True
    waits = True

    def __init__(self, name: str) -> None:
        self.name = name

    def thorough(self, gold: str, prediction: str) -> Grade:
        """The grade of an answer of which nothing else is known."""
        return self.judge(Answered(prediction, gold))


class UserFunction(OwnRule):
    """A function from a file or a module. Only workers import and call it.

    Raises:
        DataError: (when it is prepared) it cannot be imported.
    """

    memory = 8 << 30  # it may import whatever it likes

    def __init__(self, name: str, load: Callable[[], Callable[..., Any]]) -> None:
        super().__init__(name)
        self._load = load
        self._reward: Reward | None = None

    @property
    def asks(self) -> list[str] | None:
        """The names that the function asks for; None: everything."""
        self.prepare()
        assert self._reward is not None
        return self._reward.asks

    def judge(self, answered: Answered) -> Grade:
        """What the function returns, as a `Grade`.

        Raises:
            TypeError, ValueError: it asks for what there is not, or returns what is not a reward.
            Exception: whatever the function raises.
        """
        self.prepare()
        assert self._reward is not None
        if self._reward.waits:
            return asyncio.run(self._reward.grade_waiting(answered))
        return self._reward.grade(answered)

    def prepare(self) -> None:
        """Import the function.

        Raises:
            DataError: its module cannot be imported or has no such function.
        """
        if self._reward is None:
            self._reward = Reward({self.name: self._load()}, positional=True)

    def out_of_memory(self) -> Grade:
        """`ungraded`: it may be the function that takes the memory."""
        return Grade("ungraded", super().out_of_memory().reason)


class GivenFunction(OwnRule):
    """Functions that were given in Python; they run in this process."""

    here = True

    def __init__(self, name: str, reward: Reward, digest: str) -> None:
        super().__init__(name)
        self.reward, self.digest = reward, digest
        self.seconds = SECONDS
        self.at_once = AT_ONCE if reward.waits else 0
        self._one_at_a_time = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def judge(self, answered: Answered, limit: float | None = None) -> Grade:
        """What the functions return, as a `Grade`; `limit`: the seconds that they may take.

        Raises:
            TypeError, ValueError: they ask for what there is not, or return what is not a reward.
            Exception: whatever they raise.
        """
        seconds = limit or SECONDS
        if not self.reward.waits:
            with self._one_at_a_time:
                return self._within(seconds, answered)
        waiting = asyncio.run_coroutine_threadsafe(
            asyncio.wait_for(self.reward.grade_waiting(answered), seconds), self._running()
        )
        try:
            return waiting.result(seconds + GRACE)  # it takes this long if it blocks the loop
        except TimeoutError:
            return self._timed_out(seconds, answered)
        except BaseException:
            waiting.cancel()
            raise

    def _within(self, seconds: float, answered: Answered) -> Grade:
        try:
            with time_limit(seconds):
                return self.reward.grade(answered)
        except TookTooLong:
            return self._timed_out(seconds, answered)

    def _timed_out(self, seconds: float, answered: Answered) -> Grade:
        warnings.warn(
            f"the reward {self.name.removeprefix(GIVEN)!r} did not return within {seconds:.3g} s on the answer "
            f"{answered.answer!r:.60}, which is ungraded; data.grader_seconds gives it more time",
            RuntimeWarning,
            stacklevel=2,
        )
        return Grade("ungraded", f"timed out after {seconds:.3g} s")

    def _running(self) -> asyncio.AbstractEventLoop:
        """The one loop of all its coroutines, so that they can share a client or a semaphore."""
        with self._one_at_a_time:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name="reward", daemon=True).start()
            return self._loop


def give(reward: Any, weights: Mapping[str, float] | Sequence[float] | None = None) -> str:
    """Make a rule of a function, or of several, and return the name by which a recipe calls it.

    Args:
        reward: a function, an object with `__call__`, a class of such, or a list or mapping of these.
        weights: of the parts, by name or in the order of several functions.

    Raises:
        DataError: it cannot be called, or a weight is of a part that there is not.
    """
    several = isinstance(reward, (list, tuple, Mapping))
    functions = dict(reward) if isinstance(reward, Mapping) else _named(reward if several else [reward])
    if not functions:
        raise DataError("reward: there is no function in it")
    if weights is not None and not isinstance(weights, Mapping):
        if len(weights) != len(functions):
            raise DataError(f"reward_weights: {len(weights)} weights for {len(functions)} functions")
        weights = dict(zip(functions, weights, strict=True))
    weights = {name: float(weight) for name, weight in (weights or {}).items()}
    if several and len(functions) > 1 and (unknown := [name for name in weights if name not in functions]):
        raise DataError(f"reward_weights: no reward is called {unknown[0]!r}: there are {', '.join(functions)}")
    try:
        rule = Reward(functions, weights)
    except TypeError as error:
        raise DataError(f"reward: {error}") from None
    facts = [*(f"{name}={_source(function)}" for name, function in functions.items()), repr(sorted(weights.items()))]
    digest = hashlib.sha256("\n".join(facts).encode(errors="replace")).hexdigest()[:16]
    name = GIVEN + "+".join(functions)
    _given[name] = GivenFunction(name, rule, digest)
    return name


def find(name: str) -> Rule:
    """A rule that was given in this process.

    Raises:
        DataError: it was not.
    """
    if name not in _given:
        function = name.removeprefix(GIVEN)
        raise DataError(
            f"the reward {function!r} was given in Python: give it again (motif.train, motif.evaluate: reward=…), or "
            "choose a grader with --set data.grader=…"
        )
    return _given[name]


def refuse_lost_reward(name: str, run: object) -> None:
    """Refuse to go on with a run whose reward was given in Python, and has not been given again.

    Raises:
        RecipeError: it was; says how to go on.
    """
    if name.startswith(GIVEN) and name not in _given:
        raise RecipeError(
            f"{run} was trained with the reward {name.removeprefix(GIVEN)!r}, which was given in Python and is in no "
            f'file: go on from Python, with motif.train("{run}", resume=True, reward=…)'
        )


def digest_of(name: str) -> str:
    """A hash of the code of a rule that was given in Python; empty if it was not given in this process."""
    rule = _given.get(name)
    return rule.digest if rule else ""


def _named(functions: Sequence[Any]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for function in functions:
        bare = getattr(function, "func", function)  # of functools.partial
        name = getattr(bare, "__name__", type(bare).__name__)
        name = re.sub(r"\W+", "_", name).strip("_") or "reward"
        named[name if name not in named else f"{name}_{len(named) + 1}"] = function
    return named


def _source(function: Any) -> str:
    """The code of a function or of an object's class, apart from its layout, with the plain values that it holds."""
    bare = getattr(function, "func", function)
    held = dict(getattr(bare, "__dict__", {})) if not inspect.isclass(bare) else {}
    held |= getattr(function, "keywords", {}) | {"places": list(getattr(function, "args", ()))}  # of a partial
    if inspect.isroutine(bare):
        with_cells = inspect.getclosurevars(bare).nonlocals if inspect.isfunction(bare) else {}
        held |= dict(with_cells) | {"defaults": getattr(bare, "__defaults__", None)}
    values = sorted(f"{name}={value!r}" for name, value in held.items() if _is_plain(value))
    defined = bare if inspect.isroutine(bare) or inspect.isclass(bare) else type(bare)
    code = getattr(defined, "__code__", None)
    if code and code.co_name == "<lambda>":  # its line may hold anything
        return f"{_facts(code)} {values}"
    try:
        return ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(defined)))) + repr(values)
    except (OSError, TypeError, SyntaxError, ValueError):
        return f"{_facts(code) if code else defined!r} {values}"


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple, set, frozenset)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (str, bytes, int, float, bool))


def _facts(code: CodeType) -> str:
    constants = [_facts(part) if isinstance(part, CodeType) else repr(part) for part in code.co_consts]
    return repr((code.co_code.hex(), constants, code.co_names))
