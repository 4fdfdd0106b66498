"""Becomes a command in a network namespace: `python enter.py NAMESPACE PARENT COMMAND...`.

A program of its own, since between fork and exec a process with threads may run no Python. It is
replaced by the command, which so has the pid that whoever started it knows. NAMESPACE is the path
of one; PARENT the pid with which the command ends, 0 to outlive it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

# linux/sched.h, sys/mount.h, sys/prctl.h
CLONE_NEWNET, CLONE_NEWNS = 0x40000000, 0x20000
MS_REC, MS_SLAVE, MNT_DETACH = 0x4000, 0x80000, 2
PR_SET_PDEATHSIG = 1


def _checked(result: int, what: str) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{what}: {os.strerror(ctypes.get_errno())}")


def enter(libc: ctypes.CDLL, namespace: str) -> None:
    """Go there, and see its interfaces below /sys as well. Raises OSError."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    _checked(libc.setns(fd, CLONE_NEWNET), "setns")
    os.close(fd)
    _checked(libc.unshare(CLONE_NEWNS), "unshare")
    _checked(libc.mount(b"", b"/", b"none", MS_REC | MS_SLAVE, None), "mount /")
    libc.umount2(b"/sys", MNT_DETACH)  # it shows the network that it was mounted in
    _checked(libc.mount(b"sysfs", b"/sys", b"sysfs", 0, None), "mount /sys")


def main(namespace: str, parent: str, command: list[str]) -> None:
    """Does not return: the command runs, or this ends with 127 and one line on stderr."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        enter(libc, namespace)
        if int(parent):
            _checked(libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0), "prctl")
            if os.getppid() != int(parent):
                sys.exit(1)  # it ended before that
        os.execvp(command[0], command)
    except OSError as error:
        print(f"{command[0]}: {error.strerror}", file=sys.stderr, flush=True)
        sys.exit(127)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
