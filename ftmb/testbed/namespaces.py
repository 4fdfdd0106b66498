"""Hosts in network namespaces, cables and switches between them; nothing is left behind.

    with namespaces.network() as net:
        client, box = net.host("client"), net.host("box")
        net.cable(client, "c0", box, "inside")
        client.address("c0", "10.77.0.1/24")
        process = box.start(["ftmb", "up", "nat.yaml"])  # its pid is that of `ftmb` itself

Each namespace is named `ftmb-PID-HOST` after the process that made it, so what a process left that
was killed is found and removed by the next (`remove_left_overs`). No other namespace is touched.
Interfaces have no IPv6 and no offloads: frames and checksums are those of a wire. Needs root.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyroute2
from pyroute2 import netns
from pyroute2.netlink.exceptions import NetlinkError

from ftmb import interface, lock
from ftmb.errors import MachineError
from ftmb.signals import held
from ftmb.testbed import enter

PLACE = Path("/run/netns")  # where `ip netns` looks for them, too
NAME = re.compile(r"ftmb-(\d+)-[a-z0-9-]+")
END_S = 5.0
T = TypeVar("T")
_libc = ctypes.CDLL(None, use_errno=True)


def _inside(namespace: Path, work: Callable[[], T]) -> T:
    """Do it on a thread that is in the namespace: sockets made there stay there."""
    told: list[T] = []
    failed: list[BaseException] = []

    def visit() -> None:
        try:
            fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if _libc.setns(fd, enter.CLONE_NEWNET) < 0:
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
            finally:
                os.close(fd)
            told.append(work())
        except BaseException as error:
            failed.append(error)

    visitor = threading.Thread(target=visit)
    visitor.start()
    visitor.join()
    if failed:
        raise failed[0]
    return told[0]


class Host:
    """A network namespace with interfaces, and the processes in it. Made by `Network.host`."""

    def __init__(self, name: str, path: Path) -> None:
        """name: as in `ip netns`. The namespace is there already."""
        self.name, self.path = name, path
        self._netlink = pyroute2.IPRoute(netns=name)
        self._started: list[subprocess.Popen[str]] = []
        self.inside(self._prepare)
        self.up("lo")

    def _prepare(self) -> None:
        for which in ("all", "default"):  # nobody but the endpoints says anything
            knob = Path(f"/proc/sys/net/ipv6/conf/{which}/disable_ipv6")
            if knob.exists():
                knob.write_text("1")

    def inside(self, work: Callable[[], T]) -> T:
        """Call it with this network around it: its sockets, its /proc/sys/net; and return what it
        returns. /proc/net is that of the caller: read /proc/thread-self/net."""
        return _inside(self.path, work)

    # -- interfaces -----------------------------------------------------------------------------

    def _index(self, link: str) -> int:
        found = self._netlink.link_lookup(ifname=link)
        if not found:
            raise MachineError(f"{self.name} has no interface {link}")
        return int(found[0])

    def link(self, command: str, link: str, **settings: Any) -> None:
        """`ip link COMMAND` for one that exists. Raises MachineError."""
        with _told(f"{self.name}: link {command} {link}"):
            self._netlink.link(command, index=self._index(link), **settings)

    def up(self, link: str) -> None:
        """Switch an interface on."""
        self.link("set", link, state="up")

    def down(self, link: str) -> None:
        """Switch an interface off: its routes and neighbours go, those given as permanent too."""
        self.link("set", link, state="down")

    def mac(self, link: str) -> str:
        """The address of an interface, as `02:00:00:00:00:01`."""
        (found,) = self._netlink.get_links(self._index(link))
        return str(found.get("address"))

    def address(self, link: str, address: str) -> None:
        """Give an interface an address with its prefix length, as `10.0.0.1/24`."""
        with _told(f"{self.name}: address {address} at {link}"):
            self._netlink.addr("add", index=self._index(link), address=address)

    def route(self, where: str, via: str) -> None:
        """A route to `where` (`default`, `10.0.0.0/8`) by way of a gateway."""
        with _told(f"{self.name}: route {where} via {via}"):
            self._netlink.route("add", dst=where, gateway=via)

    def neighbour(self, link: str, address: str, mac: str) -> None:
        """That `address` has this `mac`, for good: nobody asks, nobody forgets."""
        with _told(f"{self.name}: neighbour {address} at {link}"):
            self._netlink.neigh(
                "replace", ifindex=self._index(link), dst=address, lladdr=mac, state="permanent"
            )

    def set(self, key: str, value: object) -> None:
        """A knob of this network, as `ipv4.ip_forward`. Raises MachineError."""
        path = Path("/proc/sys/net", *key.split("."))
        with _told(f"{self.name}: net.{key}"):
            self.inside(lambda: path.write_text(str(value)))

    # -- processes ------------------------------------------------------------------------------

    def start(
        self, command: Sequence[str | Path], outlive: bool = False, **options: Any
    ) -> subprocess.Popen[str]:
        """Start a command on this host; `pid` is its own. It ends at the latest with the network.

        outlive: not killed when the *thread* that started it ends; needed off the main thread.
        """
        launcher = [sys.executable, "-I", "-S", enter.__file__, str(self.path)]
        parent = "0" if outlive else str(os.getpid())
        with held():
            process = subprocess.Popen(
                [*launcher, parent, *map(str, command)], **{"text": True, **options}
            )
            self._started.append(process)
        return process

    def python(self, program: str, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start a Python program, given as text, on this host."""
        return self.start([sys.executable, "-c", program, *words], **options)

    def run(self, command: Sequence[str | Path], limit_s: float = 60) -> str:
        """Run a command to its end; returns its stdout. Raises MachineError if it fails."""
        pipe = subprocess.PIPE
        process = self.start(command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)
        try:
            out, said = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            said = f"not done within {limit_s:g} s"
        if process.returncode:
            last = (said.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
            raise MachineError(f"{self.name}: {command[0]}: {last}")
        return str(out)

    def close(self) -> None:
        """End whatever runs in this namespace: what was started here, and what that started, as the
        workers of a server, which nobody else would end."""
        for process in self._started:
            if process.poll() is None:
                process.kill()
        for pid in _inhabitants(self.path):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for process in self._started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
        self._netlink.close()


@dataclass(frozen=True)
class Port:
    """A port of a switch: the switch's end of a cable."""

    name: str


class Switch:
    """Bridges in a namespace of their own: each is one network segment.

    Ports go from one bridge to another, or to none, with one message to the kernel.
    """

    def __init__(self, host: Host, cable: Callable[..., None]) -> None:
        """host: the namespace that is to be a switch; cable: `Network.cable`."""
        self.host, self._cable, self._ports = host, cable, 0

    def bridge(self, name: str) -> None:
        """Add a segment. No spanning tree: a port forwards from the moment that it is in."""
        with _told(f"{self.host.name}: bridge {name}"):
            self.host._netlink.link(
                "add", ifname=name, kind="bridge", br_stp_state=0, br_forward_delay=0,
                br_mcast_snooping=0,
            )  # fmt: skip
        self.host.up(name)

    def port(self, bridge: str, host: Host, link: str, mac: str | None = None) -> Port:
        """Connect a new interface `link` of `host` to a segment."""
        self._ports += 1
        port = Port(f"port{self._ports}")
        self._cable(host, link, self.host, port.name, mac)
        self.move(port, bridge)
        return port

    def move(self, port: Port, bridge: str) -> None:
        """The port's cable is in this segment from now on; what was learnt of it is forgotten."""
        self.host.link("set", port.name, master=self.host._index(bridge))

    def cut(self, port: Port) -> None:
        """The port's cable leads nowhere from now on. The host at it sees no change."""
        self.host.link("set", port.name, master=0)


class Network:
    """All that one testbed made. Use `network()`, which takes it down."""

    def __init__(self) -> None:
        """Nothing is made yet."""
        self.hosts: list[Host] = []
        self._names: list[str] = []

    def host(self, name: str) -> Host:
        """Make a host. name: lower-case letters and digits. Raises MachineError."""
        full = f"ftmb-{os.getpid()}-{name}"
        assert NAME.fullmatch(full), name
        with held(), _told(f"network namespace {full}"):
            if (PLACE / full).exists():
                raise MachineError(f"{full} exists already; `ip netns del {full}`")
            self._names.append(full)
            netns.create(full)
            made = Host(full, PLACE / full)
            self.hosts.append(made)
        return made

    def switch(self, name: str) -> Switch:
        """Make a switch, a host that does nothing else."""
        return Switch(self.host(name), self.cable)

    def cable(
        self, a: Host, a_link: str, b: Host, b_link: str,
        a_mac: str | None = None, b_mac: str | None = None,
    ) -> None:  # fmt: skip
        """Connect two hosts by new interfaces, which are up then. Raises MachineError."""
        near = {"address": a_mac} if a_mac else {}
        far = {"address": b_mac} if b_mac else {}
        peer = {"ifname": b_link, "net_ns_fd": b.name, **far}
        with held(), _told(f"cable {a.name} {a_link} - {b.name} {b_link}"):
            a._netlink.link("add", ifname=a_link, kind="veth", peer=peer, **near)
        for host, link in ((a, a_link), (b, b_link)):
            host.inside(lambda link=link: interface.plain(link))  # type: ignore[misc]
            host.up(link)

    def close(self) -> None:
        """End the processes, take the namespaces away with all in them."""
        with held():
            for host in self.hosts:
                host.close()
            for name in self._names:
                _remove(name)
            self.hosts, self._names = [], []


@contextmanager
def network() -> Iterator[Network]:
    """A testbed for as long as the block lasts, however it ends. Raises MachineError."""
    if os.geteuid() != 0:
        raise MachineError("network namespaces: only root can make them; run as root")
    remove_left_overs()
    made = Network()
    try:
        yield made
    finally:
        made.close()


@contextmanager
def _told(what: str) -> Iterator[None]:
    """What the kernel refuses as one line."""
    try:
        yield
    except NetlinkError as error:
        raise MachineError(f"{what}: {error.args[1] if len(error.args) > 1 else error}") from None
    except OSError as error:
        raise MachineError(f"{what}: {error.strerror or error}") from None


def _inhabitants(namespace: Path) -> list[int]:
    """The processes whose network this is."""
    found: list[int] = []
    try:
        here = namespace.stat()
    except FileNotFoundError:  # its maker took it away before us
        return found
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with suppress(OSError):  # it has ended meanwhile, or is a zombie
            stat = path.stat()
            if (stat.st_dev, stat.st_ino) == (here.st_dev, here.st_ino):
                found.append(int(path.parts[2]))
    return found


def _remove(name: str) -> None:
    with suppress(OSError):  # it never came to be, or somebody was faster
        netns.remove(name)


def left_overs() -> list[str]:
    """Namespaces whose maker is gone: it was killed."""
    found = []
    for path in sorted(PLACE.glob("ftmb-*")):
        match = NAME.fullmatch(path.name)
        if match and lock.start_ticks(int(match[1])) is None:
            found.append(path.name)
    return found


def remove_left_overs() -> list[str]:
    """Take them away; returns their names."""
    found = left_overs()
    for name in found:
        _remove(name)
    return found
