"""Hosts: the same trees grown inside TRL, verl and verifiers (and so prime-rl).

    host          module                       what it trains
    TRL           motif.integrations.trl       round 1 (as the paper), or every node of the tree
    verl          motif.integrations.verl      round 1
    verifiers     motif.integrations.verifiers round 1; with prime-rl's hierarchical GRPO the later rounds too

A host is imported only by its own module, and each has the range of versions that it was tested with: the hooks are
young and move. The hosts' own pins exclude each other, so each wants an environment of its own.
"""

from __future__ import annotations

import importlib.metadata

from packaging.version import InvalidVersion, Version

from motif.errors import MotifError

SUPPORTED = {"trl": ("1.16", "1.17"), "verl": ("0.9.1", "0.10"), "verifiers": ("0.4.0", "0.5")}
"""For each host the first version that is supported and the first that is not any more."""


class HostError(MotifError, ImportError):
    """A host is missing, or of a version that this integration was not made for; the message says what to install."""


def require(host: str) -> None:
    """Check that a host is installed in a version of its range, before anything of it is imported.

    Raises:
        HostError: it is not.
    """
    first, end = SUPPORTED[host]
    advice = f"pip install 'motif-rl' '{host}>={first},<{end}'"
    try:
        found = importlib.metadata.version(host)
    except importlib.metadata.PackageNotFoundError:
        raise HostError(
            f"motif.integrations.{host} needs {host} >= {first}, < {end}, and none is installed: {advice}"
        ) from None
    try:
        fits = Version(first) <= Version(found) < Version(end)
    except InvalidVersion:
        fits = False
    if not fits:
        raise HostError(f"motif.integrations.{host} is made for {host} >= {first}, < {end}, not {found}: {advice}")
