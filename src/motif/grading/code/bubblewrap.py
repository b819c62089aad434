"""The command line of a bubblewrap sandbox, on Linux.

Inside there are the standard library and the system's libraries (read-only), four devices, and an empty scratch folder
in memory that vanishes with the sandbox. There is no network, no /proc, no /etc, no home, no site-packages, no file of
the run, and no environment variable except three of ours. `motif.grading.code.seccomp` does the rest. Only the time
limits two things: reading, and the number of (empty) files in the scratch folder, each of which takes a kilobyte of
kernel memory.
"""

from __future__ import annotations

import functools
import platform
import shutil
import sys
import sysconfig
from pathlib import Path

from motif.grading.code import inside, seccomp

INSTALL = "install bubblewrap (apt-get install bubblewrap, dnf install bubblewrap)"
REFUSED = (
    "bubblewrap needs user namespaces: allow them (sysctl -w kernel.unprivileged_userns_clone=1, or on Ubuntu 24.04 "
    "kernel.apparmor_restrict_unprivileged_userns=0; start a Docker container with --security-opt seccomp=unconfined "
    "--security-opt apparmor=unconfined)"
)

DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr/lib", "/usr/lib64", "/lib", "/lib64")
# With a fixed order of sets, a program is always right or always wrong, not by chance.
_ENVIRONMENT = {"PYTHONHASHSEED": "0", "TMPDIR": "/scratch", "LC_ALL": "C.UTF-8"}


@functools.cache
def command(filter_fd: int, info_fd: int, seconds: int, memory: int, scratch: int, files: int) -> list[str]:
    """The command that runs `inside.py` with these limits (CPU seconds, bytes, bytes, open files) under the filter.

    It reads the filter from one file descriptor and reports the process id, `child-pid` in JSON, on the other.
    The program is the first process of its namespace (`--as-pid-1`): no signal from inside reaches it, and bubblewrap
    reaps it when it ends. With the usual extra process in between, each run would leave a zombie to the machine's init,
    which in containers often reaps nothing.

    Raises:
        RuntimeError: bubblewrap is missing, or the filter does not know the machine; the message says what to do.
    """
    if platform.system() != "Linux" or platform.machine() not in seccomp.MACHINES:
        raise RuntimeError(f"bubblewrap is used only on Linux, on {' and '.join(seccomp.MACHINES)}")
    bubblewrap = shutil.which("bwrap")
    if bubblewrap is None:
        raise RuntimeError(f"bubblewrap is missing: {INSTALL}")
    base = Path(sys.base_prefix).resolve()
    python = (base / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}").resolve()
    library = Path(sysconfig.get_path("stdlib", vars={"installed_base": str(base)})).resolve().parent
    shown = [Path(path) for path in _SYSTEM if Path(path).is_dir()]
    shown += [path for path in (library, python) if not path.is_relative_to("/usr/lib")]
    # What is installed beside the standard library, including the project's own code.
    hidden = {path for folder in (library, Path("/usr/lib")) for path in folder.glob("python*/*-packages")}

    command = [bubblewrap, "--unshare-all", "--unshare-user", "--uid", "65534", "--gid", "65534"]
    command += ["--as-pid-1", "--seccomp", str(filter_fd), "--info-fd", str(info_fd)]
    command += ["--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
    for path in shown:
        command += ["--ro-bind", str(path), str(path)]
    for path in sorted(hidden):
        command += ["--tmpfs", str(path), "--remount-ro", str(path)]
    for device in DEVICES:
        command += ["--dev-bind", device, device]
    command += ["--size", str(scratch), "--tmpfs", "/scratch", "--chdir", "/scratch", "--remount-ro", "/"]
    for name, value in _ENVIRONMENT.items():
        command += ["--setenv", name, value]
    command += [str(python), "-s", "-S", "-P", "-B", "-X", "utf8", "-c"]
    program = Path(inside.__file__).read_text(encoding="utf-8")
    return [*command, program, str(seconds), str(memory), str(scratch), str(files)]
