"""A seccomp filter, as the bytes that bubblewrap loads: which system calls fail inside the sandbox.

The filter restricts the sandbox to one process with one thread. So the limits of that process (memory, CPU time) are
the limits of the whole sandbox. RLIMIT_NPROC cannot do this: it is not enforced for root, and on kernels before 5.14 it
also counts the user's processes outside. The filter also denies memory that RLIMIT_AS does not count (anonymous files,
queues, locks, larger buffers of pipes and sockets), calls that no pure function needs and that have let programs escape
from namespaces, and every change of a file's metadata: started by root, the program owns the devices that it sees, and
these are the machine's own. Of `ioctl` and `fcntl` only the listed commands pass, and no call newer than the list.
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
    # the network. `socketpair` stays: asyncio's event loop wakes itself through one. Its buffers stay as small as they
    # are, and none is kept alive by an address, a queue of connections or a message that carries it.
    "socket": (41, 198),
    "bind": (49, 200),
    "listen": (50, 201),
    "connect": (42, 203),
    "accept": (43, 202),
    "accept4": (288, 242),
    "setsockopt": (54, 208),
    "sendmsg": (46, 211),
    "sendmmsg": (307, 269),
    # metadata of files
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "setxattrat": (463, 463),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "removexattrat": (466, 466),
    "file_setattr": (469, 469),
    # entries of folders that take memory without taking space
    "symlink": (88, -1),
    "symlinkat": (266, 36),
    "link": (86, -1),
    "linkat": (265, 37),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    # files that other programs use: to lock them, to watch them, to write all of them to the disk
    "flock": (73, 32),
    "inotify_init": (253, -1),
    "inotify_init1": (294, 26),
    "fanotify_init": (300, 262),
    "sync": (162, 81),
    "syncfs": (306, 267),
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
    "open_tree_attr": (467, 467),
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

COMMANDS = {
    # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX, and those of terminals that `isatty` and `get_terminal_size` ask
    "ioctl": ((16, 29), (0x541B, 0x5421, 0x5450, 0x5451, 0x5401, 0x5413)),
    # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_GETPIPE_SZ
    "fcntl": ((72, 25), (0, 1, 2, 3, 4, 1030, 1032)),
}
"""Numbers of calls whose second argument is a command, and the commands that pass."""
NEWEST = 462  # on both machines; the kernel does not know newer calls, as far as a program can see

_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06  # BPF operations
_NUMBER, _MACHINE, _SECOND = 0, 4, 24  # offsets in struct seccomp_data; the second argument's lower half
_ALLOW, _KILL, _FAIL = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM
_UNKNOWN = 0x00050000 | errno.ENOSYS
_X32 = 0x40000000  # the second set of call numbers of x86_64, which would bypass the list


def program(machine: str = platform.machine()) -> bytes:
    """The filter for this machine: other machines' calls kill, calls and commands that are denied fail with EPERM.

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
    steps += [(_AT_LEAST, 0, 1, NEWEST + 1), (_RETURN, 0, 0, _UNKNOWN)]
    for calls, commands in COMMANDS.values():
        steps += [(_EQUAL, 0, 2 * len(commands) + 2, calls[column]), (_LOAD, 0, 0, _SECOND)]
        for number in commands:
            steps += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
        steps.append((_RETURN, 0, 0, _FAIL))
    steps.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("HBBI", *step) for step in steps)
