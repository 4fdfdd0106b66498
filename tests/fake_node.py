#!/usr/bin/env python3
"""A stand-in for ftmb-node in unit tests: the same words on stdin and stdout, no packets.

$FAKE_NODE is a JSON object of misbehaviours, by process name:
  any process:  never-ready  ignore-finish  bad-setup  chatty  segfault
  loggers:      never-protected  die-in-window  no-resume  lose-one  no-samples  late  poison
                no-room
  replicas:     poisoned  never-prepared
A replica may also die by itself ("poisoned"), at the start of a replay.
Replicas hold a file lock for life; the loggers take its release for a death, like the real ones.
"""

import json
import os
import queue
import signal
import sys
import threading
from pathlib import Path

from fake_base import begin, die, emit
from fake_roles import Loggers, Replica

DESCRIPTION = {
    "version": "fake",
    "max_workers": 8,
    "nfs": [
        {"name": "chain", "params": [], "stages": 3},
        {
            "name": "monitor",
            "params": [
                {"name": "shared", "kind": "uint", "default": 1, "min": 0, "max": 64, "help": "x"},
            ],
        },
        {
            "name": "nat",
            "params": [
                {
                    "name": "outside",
                    "kind": "ipv4",
                    "default": "203.0.113.1",
                    "help": "first address",
                },
                {
                    "name": "addresses",
                    "kind": "uint",
                    "default": 4,
                    "min": 1,
                    "max": 256,
                    "help": "how many",
                },
                {
                    "name": "strict",
                    "kind": "flag",
                    "default": 0,
                    "help": "drop what has no mapping",
                },
            ],
        },
    ],
    "engines": [
        {"name": "stop-copy", "missing": None},
        {"name": "page", "missing": "no PAGEMAP_SCAN"},
    ],
    "compiler": "none",
    "flags": "",
    "dpdk": "none",
    "git": "none",
}
COMMON = {
    "version",
    "process",
    "dir",
    "out",
    "mode",
    "workers",
    "replicas",
    "idle",
    "memory_mb",
    "nf",
    "ft",
    "log",
    "when_full",
    "lcores",
    "groups",
}
ALLOWED = COMMON | {"slot", "noise_cpus", "traffic", "links", "interfaces"}


def read_words(words):
    for line in sys.stdin:
        words.put(line.strip())
    words.put("EOF")


def next_word(words, timeout):
    try:
        word = words.get(timeout=timeout)
    except queue.Empty:
        return None
    if word == "EOF":
        os._exit(5)
    return word


def main():
    if MISBEHAVE == "bad-setup":
        die(3, "no huge pages: run `echo 64 > nr_hugepages`")
    if MISBEHAVE == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    unknown = set(SPEC) - ALLOWED
    missing = COMMON - set(SPEC)
    if unknown or missing:
        die(2, f"node spec: unknown keys {sorted(unknown)}, missing {sorted(missing)}")
    words = queue.Queue()
    threading.Thread(target=read_words, args=(words,), daemon=True).start()
    role = Replica() if "slot" in SPEC else Loggers()
    if MISBEHAVE == "chatty":
        os.write(1, b"EAL: a library talks to stdout\n")
    if MISBEHAVE != "never-ready":
        emit("ready")
    finished = False
    while True:
        word = next_word(words, 0.005)
        if not finished:  # then nobody's end is a failure any more
            role.step()
        if word in ("finish", "exit") and MISBEHAVE == "ignore-finish":
            continue
        if word == "finish":
            finished = True
            role.stats()
        if word == "exit":
            os._exit(0)
        if word:
            role.command(word)


if __name__ == "__main__":
    if sys.argv[1:] == ["--describe"]:
        print(json.dumps(DESCRIPTION))
        sys.exit(0)
    SPEC = json.loads(Path(sys.argv[1]).read_text())
    MISBEHAVE = json.loads(os.environ.get("FAKE_NODE", "{}")).get(SPEC["process"], "")
    begin(SPEC, MISBEHAVE)
    main()
