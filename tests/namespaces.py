"""Three hosts on this machine, for real endpoints: client - box - server, in network namespaces.

The box has two interfaces without addresses, `inside` and `outside`. Client and server are on one
network, 10.77.0.0/24, as with a cable where the box is. Where the box is a NAT, whose inside is
10.77.0.254 and whose outside is 198.18.0.1, the server is 198.18.0.2.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
NAT, FAR_SERVER = "10.77.0.254", "198.18.0.2"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Hosts:
    """Names of the namespaces."""

    client: str
    box: str
    server: str

    def start(self, host: str, words: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command on a host; the caller ends it."""
        return subprocess.Popen(["ip", "netns", "exec", host, *words], text=True, **options)

    def python(self, host: str, program: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a Python program, given as text, on a host."""
        return self.start(host, [sys.executable, "-c", program, *words], **options)


def _cable(host: str, far: str, address: str, box: str, near: str) -> None:
    _ip("link", "add", near, "netns", box, "type", "veth", "peer", "name", far, "netns", host)
    for where, name in ((host, far), (box, near)):
        # Nobody but the endpoints says anything, and they hand over whole packets.
        off = ["rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"]
        for words in (
            ["sysctl", "-qw", f"net.ipv6.conf.{name}.disable_ipv6=1"],
            ["ethtool", "-K", name, *off],
        ):
            subprocess.run(["ip", "netns", "exec", where, *words], capture_output=True)
        _ip("-n", where, "link", "set", name, "up")
    _ip("-n", host, "address", "add", f"{address}/24", "dev", far)


@contextmanager
def hosts() -> Iterator[Hosts]:
    """Make the three hosts; take them away at the end, with whatever interfaces are in them."""
    made = Hosts(*(f"ftmb-{os.getpid()}-{role}" for role in ("client", "box", "server")))
    names = (made.client, made.box, made.server)
    try:
        for name in names:
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        _cable(made.client, "c0", CLIENT, made.box, "inside")
        _cable(made.server, "s0", SERVER, made.box, "outside")
        _ip("-n", made.server, "address", "add", f"{FAR_SERVER}/24", "dev", "s0")
        _ip("-n", made.client, "route", "add", "default", "via", NAT)
        yield made
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


PROBE = """
import socket
from ftmb import interface
interface.check("inside")
interface.check("outside")
interface.check_rights()
socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
"""


def missing() -> str | None:
    """Why there can be no such hosts here, in words; None if there can."""
    try:
        with hosts() as made:
            probe = made.python(made.box, PROBE, stderr=subprocess.PIPE)
            said = probe.communicate(timeout=60)[1]
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces: {error}"
    last = (said.strip().splitlines() or ["no reason told"])[-1]
    return f"a middlebox in a network namespace: {last}" if probe.returncode else None
