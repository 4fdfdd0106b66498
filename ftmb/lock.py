"""One trial at a time on a machine, and nothing left over from an earlier one.

A second workflow in another clone is outside any scheduler's view, so the trial itself holds a
machine-wide advisory lock. A run that was killed may leave data-plane processes behind: they are
found through the pid files in its runtime directory, named, and never killed from here.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ftmb.errors import MachineError

WAIT_S = 900.0  # for another trial
ENDING_S = 3.0  # for processes of a run that was killed a moment ago
PREFIX = "ftmb-"
PID_FILE = "pids.json"
# A Unix socket's path has at most 107 bytes; file names inside the directory take up to 40.
LONGEST_DIR = 60


def lock_path() -> Path:
    """The lock file. One for all users, so not below $XDG_RUNTIME_DIR or $TMPDIR."""
    return Path(os.environ.get("FTMB_LOCK", "/tmp/ftmb.lock"))


def _open_lock(path: Path) -> int:
    try:
        # Without O_CREAT first: in a sticky directory kernels refuse it on another user's file.
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        pass
    except PermissionError:
        return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        os.fchmod(fd, 0o666)  # whatever the umask: other users share it
    except PermissionError:
        pass
    return fd


def holder(path: Path | None = None) -> int | None:
    """The pid of who holds the lock, shared or not, 0 if it is held and does not say; None if
    free."""
    path = path or lock_path()
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
        return int(text) if text.isdigit() else 0
    finally:
        os.close(fd)
    return None


@contextmanager
def machine_lock(wait_s: float, shared: bool = False) -> Iterator[None]:
    """Hold the lock. Another trial: wait up to `wait_s` with a message, then MachineError.

    shared: others that share it may hold it too, a trial may not: middleboxes at work."""
    path = lock_path()
    try:
        fd = _open_lock(path)
    except OSError as error:
        raise MachineError(
            f"cannot open the lock {path}: {error.strerror}; set FTMB_LOCK to another file"
        ) from None
    try:
        deadline = time.monotonic() + wait_s
        told = False
        while True:
            try:
                fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                who = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            if time.monotonic() >= deadline:
                raise MachineError(
                    f"another trial is running on this machine (pid {who} holds {path}): "
                    "wait for it to end, or end that process"
                )
            if not told:
                print(f"ftmb: waiting for another trial (pid {who})", file=sys.stderr, flush=True)
                told = True
            time.sleep(0.2)
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # another user's file: the lock holds all the same, only the pid is not shown
        yield
    finally:
        os.close(fd)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process.

    Tells a process from a later one with the same pid. A zombie counts as gone.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


SHARED_MEMORY = Path("/dev/shm")


def on_tmpfs(path: Path) -> bool:
    """Whether what is written there stays in memory."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
        device = path.stat().st_dev
    except OSError:
        return False
    number = f"{os.major(device)}:{os.minor(device)}"
    lines = (line.split() for line in mounts.splitlines())
    return any(f[2] == number and f[f.index("-") + 1] == "tmpfs" for f in lines)


def runtime_bases() -> list[Path]:
    """Where runtime directories are made, the best first: in memory, since logs and bases are
    mapped there and a write must never wait for a disk; else $XDG_RUNTIME_DIR, else /tmp."""
    bases = []
    if os.access(SHARED_MEMORY, os.W_OK | os.X_OK) and on_tmpfs(SHARED_MEMORY):
        bases.append(SHARED_MEMORY)
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and len(given) <= LONGEST_DIR - 20 and os.access(given, os.W_OK | os.X_OK):
        bases.append(Path(given))
    bases.append(Path("/tmp"))
    return bases


@dataclass(frozen=True)
class LeftOver:
    """A data-plane process of an earlier run that is still alive."""

    pid: int
    name: str
    directory: Path


class RuntimeDir:
    """The private directory of a trial: sockets, mapped files, and who is running in it."""

    def __init__(self) -> None:
        base = runtime_bases()[0]
        try:
            self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # mode 0700
        except OSError as error:
            raise MachineError(f"cannot make a directory in {base}: {error.strerror}") from None
        assert len(str(self.path)) <= LONGEST_DIR
        self._pids: dict[str, tuple[int, int]] = {}
        self.add("ftmb", os.getpid())

    def add(self, name: str, pid: int) -> None:
        """Note a process, so that a later run can name it if this one is killed."""
        ticks = start_ticks(pid)
        if ticks is None:
            return  # gone already: nothing to leave behind
        self._pids[name] = (pid, ticks)
        self._write()

    def forget(self, name: str) -> None:
        """A process is gone, and will not be named."""
        if self._pids.pop(name, None):
            self._write()

    def _write(self) -> None:
        fresh = self.path / (PID_FILE + ".new")
        fresh.write_text(json.dumps(self._pids), encoding="utf-8")
        fresh.replace(self.path / PID_FILE)

    def remove(self) -> None:
        """Take the directory away. Only after all processes in it are gone."""
        shutil.rmtree(self.path, ignore_errors=True)


def _alive(directory: Path) -> list[LeftOver] | None:
    """The living processes of a runtime directory; None if it has no readable pid file."""
    try:
        tree = json.loads((directory / PID_FILE).read_text(encoding="utf-8"))
        entries = [(str(name), int(pid), int(ticks)) for name, (pid, ticks) in tree.items()]
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return [
        LeftOver(pid, name, directory) for name, pid, ticks in entries if start_ticks(pid) == ticks
    ]


def left_overs(clean: bool = False) -> list[LeftOver]:
    """Data-plane processes of runs whose `ftmb` is gone. Own user only.

    clean: also remove the directories in which nothing lives any more (stale sockets and all).
    """
    found = []
    for base in runtime_bases():
        for directory in sorted(base.glob(PREFIX + "*")):
            try:
                mine = directory.lstat().st_uid == os.getuid() and not directory.is_symlink()
            except OSError:
                continue
            if not mine or not directory.is_dir():
                continue
            alive = _alive(directory)
            if alive is None or any(process.name == "ftmb" for process in alive):
                continue
            found += alive
            if not alive and clean:
                shutil.rmtree(directory, ignore_errors=True)
    return found


def refuse_left_overs() -> None:
    """Raises MachineError if a process of an earlier run is alive; clears stale directories.

    Processes whose `ftmb` was killed end by themselves; returning their memory takes a moment.
    """
    deadline = time.monotonic() + ENDING_S
    while (found := left_overs(clean=True)) and time.monotonic() < deadline:
        time.sleep(0.05)
    if found:
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in found)
        pids = " ".join(str(process.pid) for process in found)
        raise MachineError(f"left over from an earlier run: {names}; end it with `kill {pids}`")
