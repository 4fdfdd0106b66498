"""Three hosts on this machine, for real endpoints: client - box - server.

The box has two interfaces without addresses, `inside` and `outside`. Client and server are on one
network, 10.77.0.0/24, as with a cable where the box is. Where the box is a NAT, whose inside is
10.77.0.254 and whose outside is 198.18.0.1, the server is 198.18.0.2.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from ftmb.errors import MachineError
from ftmb.testbed.namespaces import Host, network

CLIENT, SERVER = "10.77.0.1", "10.77.0.2"
NAT, FAR_SERVER = "10.77.0.254", "198.18.0.2"


@dataclass(frozen=True)
class Hosts:
    """The three."""

    client: Host
    box: Host
    server: Host


@contextmanager
def hosts() -> Iterator[Hosts]:
    """Make the three hosts; take them away at the end, with whatever is in them."""
    with network() as net:
        made = Hosts(*(net.host(role) for role in ("client", "box", "server")))
        net.cable(made.client, "c0", made.box, "inside")
        net.cable(made.server, "s0", made.box, "outside")
        made.client.address("c0", f"{CLIENT}/24")
        made.client.route("default", NAT)
        for address in (SERVER, FAR_SERVER):
            made.server.address("s0", f"{address}/24")
        yield made


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
            probe = made.box.python(PROBE, stderr=subprocess.PIPE)
            said = probe.communicate(timeout=60)[1]
    except (OSError, subprocess.SubprocessError, MachineError) as error:
        return f"network namespaces: {error}"
    last = (said.strip().splitlines() or ["no reason told"])[-1]
    return f"a middlebox in a network namespace: {last}" if probe.returncode else None
