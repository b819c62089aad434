"""A seccomp filter, as the bytes that bubblewrap loads: which system calls fail inside the sandbox.

The filter restricts the sandbox to one process with one thread. So the limits of that process (memory, CPU time) are
the limits of the whole sandbox. RLIMIT_NPROC cannot do this: it is not enforced for root, and on kernels before 5.14 it
also counts the user's processes outside. The filter also denies memory that RLIMIT_AS does not count (anonymous files,
System V and POSIX queues), and calls that no pure function needs and that have let programs escape from namespaces.
"""

from __future__ import annotations

import errno
import platform
import struct

MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}  # column below, and the kernel's AUDIT_ARCH number

# Numbers on x86_64 and on aarch64 (-1: no such call there), from the kernel's unistd_64.h and asm-generic/unistd.h.
DENIED = {
    # other processes and threads
    "clone": (56, 220),
    "clone3": (435, 435),
    "fork": (57, -1),
    "vfork": (58, -1),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    # the network (socketpair stays: asyncio's event loop wakes itself through one)
    "socket": (41, 198),
    # memory that is not address space
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    # namespaces and mounts
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    # large parts of the kernel that a function does not need
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "vmsplice": (278, 75),
    "personality": (135, 92),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "keyctl": (250, 219),
}

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF operations
_NUMBER, _MACHINE = 0, 4  # offsets in struct seccomp_data
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_X32 = 0x40000000  # the second set of call numbers of x86_64, which would bypass the list


def program(machine: str = platform.machine()) -> bytes:
    """The filter for this machine: the calls above fail with EPERM, other machines' calls kill, the rest is allowed.

    Raises:
        KeyError: the machine is not one of `MACHINES`.
    """
    column, audit = MACHINES[machine]
    steps = [
        (_LOAD, 0, 0, _MACHINE),
        (_EQUAL, 1, 0, audit),  # each pair: steps to skip if true, if false
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER),
        (_AT_LEAST, 0, 1, _X32),
        (_RETURN, 0, 0, _FAIL),
    ]
    for numbers in DENIED.values():
        if numbers[column] >= 0:
            steps += [(_EQUAL, 0, 1, numbers[column]), (_RETURN, 0, 0, _FAIL)]
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)
