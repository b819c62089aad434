"""Chat templates that run without end or fill the memory: each is tried in a process with limits before it is used.

This file is also that process: it reads a template and chats from its standard input and renders them.
"""

from __future__ import annotations

import contextlib
import functools
import json
import subprocess
import sys
from typing import Any

CPU_SECONDS = 2
MEMORY = 1 << 30
LONGEST = 1 << 22
"""Characters of a rendered chat."""
WALL_SECONDS = 60.0
"""Timeout of the process, which may have to wait for a processor."""
REFUSED = 3
_SIMPLE_FILTERS = {"trim", "upper", "lower", "capitalize", "title", "default", "length"}
_SIMPLE_CALLS = {"raise_exception", "strftime_now"}


def runs_away(source: str, chats: str) -> bool:
    """Whether rendering takes more than a few seconds or 1 GiB, or writes megabytes.

    Args:
        chats: JSON, a list of the keyword arguments of each rendering.
    """
    return not _is_simple(source) and _fails_in_limits(source, chats)


@functools.cache
def _fails_in_limits(source: str, chats: str) -> bool:
    command = [sys.executable, "-I", __file__]
    given = json.dumps({"source": source, "chats": json.loads(chats), "seconds": CPU_SECONDS})
    try:
        done = subprocess.run(command, input=given, text=True, capture_output=True, timeout=WALL_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode < 0 or done.returncode == REFUSED  # any other error will be met again, and told


@functools.cache
def _is_simple(source: str) -> bool:
    """Whether a template can be seen to end soon: one loop over the messages, and nothing that computes."""
    from jinja2 import TemplateError, nodes

    try:
        tree = _environment().parse(source)
    except (TemplateError, RecursionError):
        return False
    costly = (
        *(nodes.Mul, nodes.Pow, nodes.Mod, nodes.Concat, nodes.Assign, nodes.AssignBlock, nodes.Macro, nodes.CallBlock),
        *(nodes.Import, nodes.FromImport, nodes.Include, nodes.Extends, nodes.FilterBlock, nodes.With),
    )
    loops = list(tree.find_all(nodes.For))
    calls = [call.node for call in tree.find_all(nodes.Call)]
    return (
        not any(True for _ in tree.find_all(costly))
        and not any(loop.recursive or any(True for _ in loop.find_all(nodes.For)) for loop in loops)
        and all(isinstance(loop.iter, nodes.Name) and loop.iter.name == "messages" for loop in loops)
        and all(isinstance(called, nodes.Name) and called.name in _SIMPLE_CALLS for called in calls)
        and all(used.name in _SIMPLE_FILTERS for used in tree.find_all(nodes.Filter))
    )


@functools.cache
def _environment() -> Any:
    """Jinja as transformers sets it up for chat templates."""
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        tags = frozenset({"generation"})  # type: ignore[assignment]

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def raise_exception(message: str) -> None:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value)
    environment.globals["raise_exception"] = raise_exception
    return environment


def _render_all(given: dict[str, Any]) -> int:
    """Render every chat within the limits; returns the exit status."""
    with contextlib.suppress(ImportError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (given["seconds"], given["seconds"] + 1))
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        if _is_costly_to_compile(given["source"]):
            return REFUSED
        template = _environment().from_string(given["source"])
        for chat in given["chats"]:
            try:
                if len(template.render(**chat)) > LONGEST:
                    return REFUSED
            except (MemoryError, OverflowError):
                return REFUSED
            except Exception:  # a template that refuses this chat may take another
                continue
    except (MemoryError, OverflowError):
        return REFUSED
    return 0


def _is_costly_to_compile(source: str) -> bool:
    """Whether a constant does not fit. Jinja computes constants early, and goes on without those that fail."""
    from jinja2 import nodes

    for expression in _environment().parse(source).find_all(nodes.Expr):
        try:
            expression.as_const()
        except nodes.Impossible as error:
            if isinstance(error.__context__, MemoryError | OverflowError):
                return True
        except Exception:  # compiling meets it again
            continue
    return False


if __name__ == "__main__":
    raise SystemExit(_render_all(json.load(sys.stdin)))
