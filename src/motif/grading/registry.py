"""Rules by name: those of this package, each imported only when it is needed, or a user's own function."""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, cast

from motif.errors import DataError
from motif.grading import given
from motif.grading.given import GIVEN, UserFunction
from motif.grading.rule import Rule

RULES = ("exact", "numeric", "math", "code", "circuit")

_FUNCTION = re.compile(r"(?P<place>[^:]+(?:\\[^:]*)?|[A-Za-z]:[^:]+):(?P<name>[A-Za-z_]\w*)")


def find(name: str) -> Rule:
    """The rule of this name: one of `RULES`, `module:function` or `file.py:function`, or one given in Python.

    Raises:
        DataError: there is no such rule; the message names the nearest.
    """
    match name:
        case "exact":
            from motif.grading.exact import Exact

            return Exact()
        case "numeric":
            from motif.grading.numeric import Numeric

            return Numeric()
        case "math":
            from motif.grading.math.rule import Math

            return Math()
        case "code":
            from motif.grading.code.rule import Code

            return Code()
        case "circuit":
            from motif.grading.circuit.rule import Circuit

            return Circuit()
    if name.startswith(GIVEN):
        return given.find(name)
    if match := _FUNCTION.fullmatch(name):
        return UserFunction(name, functools.partial(load_function, match["place"], match["name"]))
    close = difflib.get_close_matches(name, RULES, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "your own is given as 'module:function' or 'file.py:function'"
    raise DataError(f"no grader {name!r}: known are {', '.join(RULES)}; {hint}")


def load_function(place: str, name: str) -> Callable[..., Any]:
    """A user's own function of this name, from a module or a .py file.

    Raises:
        DataError: it cannot be imported, or there is no such function in it.
    """
    try:
        module = _module(place)
    except Exception as error:  # whatever the user's module raises
        raise DataError(f"{place} cannot be imported: {type(error).__name__}: {error}") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise DataError(f"{place} has no function {name!r}")
    return cast("Callable[..., Any]", function)


def _module(place: str) -> ModuleType:
    path = Path(place)
    if path.suffix != ".py":
        # At the end, so that a user's file with the name of a library's module does not replace that module.
        sys.path.append(str(Path.cwd()))
        return importlib.import_module(place)
    sys.path.append(str(path.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"motif_own_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
