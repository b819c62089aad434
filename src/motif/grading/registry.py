"""The rules by which answers are judged: modules of this package by name, or a function of the user's own.

A rule's module holds

* `grade(gold, prediction) -> Grade`: the verdict, in a worker process that can be killed;
* `quick(gold, prediction) -> Grade | None`, optional: the verdict where it is cheap and safe to find in this process;
* `thorough(gold, prediction) -> Grade`, optional: `grade` without the shortcuts of `quick`, which workers then use;
* `check_gold(gold) -> Grade`, optional: can this gold answer tell right from wrong? (Otherwise: see `Grader.check`.)
  `quick_check(gold) -> Grade | None`, optional: the same where no worker is needed;
* `prepare()`, optional: load what is slow to load; raises RuntimeError with what to install;
* `LIMIT`, `START_LIMIT`, `MEMORY`, optional: seconds for one verdict, seconds to prepare, bytes of address space.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from motif.grading.verdict import Grade

RULES = ("exact", "numeric", "math", "code", "circuit")
IN_PROCESS = ("exact", "numeric")  # never slow, so no worker is started for them

_OWN = re.compile(r"(?P<place>[^:]+(?:\\[^:]*)?|[A-Za-z]:[^:]+):(?P<function>[A-Za-z_]\w*)")


@dataclass(frozen=True)
class Rule:
    """A rule by name; without a module it is the user's own function, which workers load."""

    name: str
    module: Any = None

    @property
    def limit(self) -> float:
        """Seconds that one verdict may need; 0 where the caller decides."""
        return float(getattr(self.module, "LIMIT", 0))

    @property
    def start_limit(self) -> float:
        """Seconds for a worker to load the rule on a busy machine."""
        return float(getattr(self.module, "START_LIMIT", 120))

    @property
    def memory(self) -> int:
        """Bytes of a worker's address space; a user's function may import whatever it likes."""
        return int(getattr(self.module, "MEMORY", (8 if self.module is None else 2) << 30))

    def quick(self, gold: str, prediction: str) -> Grade | None:
        """The verdict that needs no worker, or None."""
        if self.name in IN_PROCESS:
            grade: Grade = self.module.grade(gold, prediction)
            return grade
        quick = getattr(self.module, "quick", None)
        return quick(gold, prediction) if quick else None

    def load(self) -> Callable[[str, str], Grade]:
        """In a worker: the function, with all it needs loaded.

        Raises:
            RuntimeError: what it needs is not installed, or there is no such function; the message says what to do.
        """
        if self.module is None:
            return _own(self.name)
        getattr(self.module, "prepare", lambda: None)()
        grade: Callable[[str, str], Grade] = getattr(self.module, "thorough", self.module.grade)
        return grade


def find(name: str) -> Rule:
    """The rule of this name: one of `RULES`, or `module:function` or `file.py:function`.

    Raises:
        ValueError: no such rule; the message names the nearest.
    """
    if name in RULES:
        place = name if name in IN_PROCESS else f"{name}.rule"
        return Rule(name, importlib.import_module(f"motif.grading.{place}"))
    if _OWN.fullmatch(name):
        return Rule(name)
    close = difflib.get_close_matches(name, RULES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "your own is given as 'module:function' or 'file.py:function'"
    raise ValueError(f"no grader {name!r}: known are {', '.join(RULES)}; {hint}")


def _own(name: str) -> Callable[[str, str], Grade]:
    match = _OWN.fullmatch(name)
    assert match is not None
    place, wanted = match["place"], match["function"]
    try:
        module = _module(place)
    except Exception as error:  # whatever the user's module raises
        raise RuntimeError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, wanted, None)
    if not callable(function):
        raise RuntimeError(f"{place} has no function {wanted!r}")
    return lambda gold, prediction: as_grade(function(gold, prediction))


def _module(place: str) -> Any:
    path = Path(place)
    if path.suffix != ".py":
        # At the end: a file of the user's named like a library's module must not replace it.
        sys.path.append(str(Path.cwd()))
        return importlib.import_module(place)
    sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"motif_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def as_grade(result: Any) -> Grade:
    """What a user's function may return: a Grade, True or False, or `right`, `wrong` or `ungraded`.

    Raises:
        TypeError: anything else.
    """
    if isinstance(result, Grade):
        return result
    if isinstance(result, str) and result in ("right", "wrong", "ungraded"):
        return Grade(result)  # type: ignore[arg-type]
    if type(result).__name__ in ("bool", "bool_"):  # NumPy's, too
        return Grade("right" if result else "wrong")
    raise TypeError(f"the grader returned {type(result).__name__}, not True, False, a verdict or a Grade")
