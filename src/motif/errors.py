"""The errors of motif: each message says what to do, each kind has an exit status.

The command line catches `MotifError`, prints the message and exits; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import errno
import re

REASONS = {
    errno.ENOSPC: "the disk is full: free some space",
    errno.EDQUOT: "the disk quota is used up: free some space",
    errno.EFBIG: "a file has reached the largest size allowed here: see ulimit -f",
    errno.EMFILE: "too many files are open: raise the limit with ulimit -n",
    errno.ENFILE: "too many files are open on this machine",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk reports an error",
}
SPOKEN = re.compile(r"\bos error (\d+)\b|\[Errno (\d+)\]")
"""How libraries that are not written in Python quote the system's error."""
NO_MEMORY = ("not enough memory", "can't allocate memory")
"""How torch says on a CPU that memory is used up, in an error that has no class of its own."""


class MotifError(Exception):
    """An error that a user can do something about; the message says what."""

    exit_status = 2


class UsageError(MotifError):
    """Options or arguments that do not go together, or name something that is not there."""


class RecipeError(MotifError, ValueError):
    """A recipe that cannot be run; the message says what to change."""


class DataError(MotifError, ValueError):
    """Questions or answers that cannot be read or graded."""


class ModelError(MotifError, ValueError):
    """A model, tokenizer or device that cannot be used, or weights that do not fit it."""


class RunFolderError(MotifError):
    """A run folder that does not hold what is needed, is damaged, or belongs to another process."""


class ServiceError(MotifError):
    """An address, a port, a key or a service elsewhere (a server, the hub) that cannot be used."""


class SamplerError(MotifError, RuntimeError):
    """Sampling failed but may work later: what has been trained so far is as it was."""


class NonFiniteError(MotifError, FloatingPointError):
    """The model's numbers are not finite."""


class SamplerMismatch(SamplerError):
    """Sampler and trainer compute different log-probabilities. All processes raise it at once."""


class OutOfResources(MotifError, RuntimeError):
    """Disk, memory or open files have run out, or a disk failed. The run can be resumed."""

    exit_status = 1


class PeerFailed(MotifError, RuntimeError):
    """Another process of this run failed; the message says which, and of what."""

    exit_status = 1


def first_line(error: BaseException) -> str:
    """The first line of an error's message, at most 500 characters, with the error's kind where that says more."""
    line = str(error).strip().split("\n")[0][:500]
    return line if isinstance(error, OSError | ValueError) and line else f"{type(error).__name__} {line}".strip()


def out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on a GPU or a CPU."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in NO_MEMORY)


def ran_out(error: BaseException | None) -> str | None:
    """What has run out, as a sentence without its full stop, if that is what an error comes from; otherwise None."""
    while error is not None:
        if isinstance(error, OutOfResources):
            return str(error)
        if out_of_memory(error):
            return (
                "out of memory: lower rollout.max_rows (sampling) or train.microbatch_tokens (update), and add "
                "--allow-changes"
            )
        found = SPOKEN.search(str(error))
        number = error.errno if isinstance(error, OSError) else int(found[1] or found[2]) if found else None
        if number in REASONS:
            name = error.filename if isinstance(error, OSError) and error.filename else ""
            return REASONS[number] + (f" ({name})" if name else "")
        error = error.__cause__ or error.__context__
    return None
