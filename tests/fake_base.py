"""What the roles of the stand-in for ftmb-node have in common: their spec, their words, and files
in the trial's runtime directory, through which they see each other."""

import fcntl
import json
import os
import time
from pathlib import Path

SPEC = {}
DIR = Path()
MISBEHAVE = ""
PACKETS = 1000


def begin(spec, misbehave):
    """Take the node spec; once, before anything else."""
    global SPEC, DIR, MISBEHAVE
    SPEC, DIR, MISBEHAVE = spec, Path(spec["dir"]), misbehave


def emit(name, /, t_ns=None, **fields):
    stamp = t_ns or time.monotonic_ns()
    line = json.dumps({"t_ns": stamp, "process": SPEC["process"], "event": name, **fields})
    os.write(1, line.encode() + b"\n")


def die(code, text):
    os.write(2, f"ftmb-node: {text}\n".encode())
    os._exit(code)


def held(name):
    """True while a living process holds the lock on a file."""
    try:
        with (DIR / name).open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def put(name, **tree):
    """Writes a file in one step: others read it at any time."""
    fresh = DIR / f"{name}.{os.getpid()}"
    fresh.write_text(json.dumps(tree))
    fresh.replace(DIR / name)


def get(name):
    try:
        return json.loads((DIR / name).read_text())
    except FileNotFoundError:
        return None
