"""What runs inside the sandbox, before and around the untrusted program. It is sent as text: standard library only.

It lowers its own limits for good, prints `ready`, reads `{"source": …, "calls": […]}` from standard input, runs the
source and evaluates the calls one after another. Each call gives a line of JSON, `["value", encoded]` or
`["error", text]`. Nothing in here is secret, and nothing in here is trusted: the program may rewrite all of it and send
lines of its own. That gains it nothing, because the expected values never come in here.
"""

import io
import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

READY = b'"ready"\n'
DEEPEST = 50  # levels of nesting in a result
LONGEST_ERROR = 300  # characters

Encoded = Any  # None, bool, str, or a list whose first item names the kind


def encode(value: Any, depth: int = 0) -> Encoded:
    """Plain data as JSON that distinguishes Python's types; integers in hex, floats as `repr`.

    A subclass counts as its base (a Counter is a dict), a frozenset as a set, a bytearray as bytes.

    Raises:
        TypeError: the value, or a part of it, is not plain data, or it is nested more than 50 levels deep.
    """
    if depth > DEEPEST:
        raise TypeError(f"a result nested more than {DEEPEST} levels deep")
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return ["int", hex(value)]  # decimal digits take quadratic time, and Python refuses more than 4300
    if isinstance(value, float):
        return ["float", repr(float(value))]
    if isinstance(value, complex):
        return ["complex", repr(value.real), repr(value.imag)]
    if isinstance(value, (bytes, bytearray)):
        return ["bytes", value.hex()]
    if isinstance(value, dict):
        return ["dict", *([encode(key, depth + 1), encode(item, depth + 1)] for key, item in value.items())]
    if isinstance(value, (list, tuple)):
        return ["list" if isinstance(value, list) else "tuple", *(encode(item, depth + 1) for item in value)]
    if isinstance(value, (set, frozenset)):  # sorted, so that equal sets are equal as text inside other sets
        return ["set", *sorted((encode(item, depth + 1) for item in value), key=json.dumps)]
    raise TypeError(f"a {type(value).__name__} is not plain data")


def _limit(seconds: int, memory: int, file_size: int, files: int) -> None:
    import resource  # here, because Windows has no such module and imports this file for `encode`

    for kind, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds),  # SIGKILL: the first process of a namespace ignores SIGXCPU
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_FSIZE, file_size, file_size),
        (resource.RLIMIT_NOFILE, files, files),
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_MSGQUEUE, 0, 0),
        (resource.RLIMIT_MEMLOCK, 0, 0),
    ):
        resource.setrlimit(kind, (soft, hard))


def _reply_channel() -> Callable[[Any], Any]:
    """A function that writes replies; from here on, what the program prints goes to standard error."""
    replies = io.FileIO(os.dup(1), "w")
    os.dup2(2, 1)
    return replies.write


def _text(error: BaseException) -> str:
    try:
        message = str(error)
    except BaseException:
        message = "?"
    return f"{type(error).__name__}: {message}"[:LONGEST_ERROR] if message else type(error).__name__


def main(seconds: int, memory: int, file_size: int, files: int) -> None:
    """Read one request, answer it, and end the process without a clean-up that the program could delay."""
    _limit(seconds, memory, file_size, files)
    write, dumps = _reply_channel(), json.JSONEncoder().encode

    def reply(kind: str, content: Any) -> None:
        rest = memoryview(dumps([kind, content]).encode() + b"\n")
        while rest:
            rest = rest[write(rest) :]

    write(READY)
    request = json.loads(sys.stdin.buffer.read())
    # A module of its own, because dataclasses and pickling look it up by name. It is not `__main__`, so that what a
    # script does on the command line does not run.
    module = types.ModuleType("answer")
    sys.modules["answer"] = module
    failed = ""
    try:
        exec(compile(request["source"], "<answer>", "exec"), module.__dict__)
    except BaseException as error:
        failed = _text(error)
    for call in request["calls"]:
        if failed:
            reply("error", failed)
            continue
        try:
            encoded = encode(eval(call, module.__dict__))
            reply("value", encoded)
        except BaseException as error:
            reply("error", _text(error))
    os._exit(0)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
