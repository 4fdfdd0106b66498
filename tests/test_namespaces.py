"""The testbed out of network namespaces: what it makes works, and nothing of it stays behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import namespaces as three
import pytest
from pyroute2 import netns

from ftmb.errors import MachineError
from ftmb.testbed import namespaces
from ftmb.testbed.namespaces import Host, Network

MAC = "02:00:00:00:00:07"


@pytest.fixture(scope="module", autouse=True)
def _possible() -> None:
    if why := three.missing():
        pytest.skip(why)


@pytest.fixture
def net() -> Iterator[Network]:
    """A testbed with nothing in it."""
    with namespaces.network() as made:
        yield made


HEAR = """
import socket
listener = socket.create_server(("10.9.0.2", 7))
print("up", flush=True)
listener.accept()
print("met", flush=True)
"""
CALL = "import socket; socket.create_connection(('10.9.0.2', 7), 20)"


def _reached(client: Host, servers: list[Host]) -> list[str]:
    """Which of the servers, all with one address, the client gets to."""
    hearing = [host.python(HEAR, stdout=subprocess.PIPE) for host in servers]
    pipes = [process.stdout for process in hearing]
    assert [pipe.readline() for pipe in pipes if pipe] == ["up\n"] * len(servers)
    client.run([sys.executable, "-c", CALL])
    met = select.select(pipes, [], [], 60)[0]
    for process in hearing:
        process.kill()
        process.communicate()
    return [host.name for host, pipe in zip(servers, pipes, strict=True) if pipe in met]


def test_a_port_is_moved_and_another_takes_its_place(net: Network) -> None:
    switch = net.switch("switch")
    switch.bridge("lan")
    client, one, two = (net.host(name) for name in ("client", "one", "two"))
    switch.port("lan", client, "eth0")
    client.address("eth0", "10.9.0.1/24")
    ports = [switch.port("lan", host, "eth0", mac=MAC) for host in (one, two)]
    for host in (one, two):
        assert host.mac("eth0") == MAC
        host.address("eth0", "10.9.0.2/24")
    client.neighbour("eth0", "10.9.0.2", MAC)
    switch.cut(ports[1])
    assert _reached(client, [one, two]) == [one.name]
    switch.cut(ports[0])
    switch.move(ports[1], "lan")
    assert _reached(client, [one, two]) == [two.name]


def test_the_pid_is_that_of_the_command_and_it_sees_its_own_network(net: Network) -> None:
    a, b = net.host("a"), net.host("b")
    net.cable(a, "left", b, "right")
    program = "import os; print(os.getpid(), sorted(os.listdir('/sys/class/net')), flush=True)"
    process = a.python(program, stdout=subprocess.PIPE)
    out, _ = process.communicate(timeout=60)
    assert out == f"{process.pid} ['left', 'lo']\n"
    assert b.inside(lambda: "right" in Path("/proc/thread-self/net/dev").read_text())
    assert not Path("/sys/class/net/left").exists()


def test_no_ipv6_no_offloads_and_a_knob(net: Network) -> None:
    a, b = net.host("a"), net.host("b")
    net.cable(a, "left", b, "right")
    assert "fe80" not in a.run(["ip", "address"])
    features = a.run(["ethtool", "-k", "left"])
    for what in ("tx-checksumming", "tx-tcp-segmentation", "generic-receive-offload"):
        assert f"{what}: off" in features
    a.set("ipv4.ip_default_ttl", 33)
    assert a.inside(lambda: Path("/proc/sys/net/ipv4/ip_default_ttl").read_text()) == "33\n"
    assert Path("/proc/sys/net/ipv4/ip_default_ttl").read_text() != "33\n"


def test_errors_are_one_line(net: Network) -> None:
    a = net.host("a")
    for wrong, words in (
        (lambda: a.up("nowhere"), "no interface nowhere"),
        (lambda: a.address("lo", "300.1.1.1/24"), "address 300.1.1.1/24"),
        (lambda: a.route("default", "10.1.1.1"), "route default via 10.1.1.1"),
        (lambda: a.run(["false"]), "false: exit code 1"),
        (lambda: a.run(["no-such-command"]), "no-such-command: No such file"),
        (lambda: net.host("a"), "exists already"),
    ):
        with pytest.raises(MachineError, match=words) as told:
            wrong()  # type: ignore[no-untyped-call]
        assert "\n" not in str(told.value)


def test_a_host_may_be_closed_whose_namespace_is_gone(net: Network) -> None:
    host = net.host("a")
    process = host.start(["sleep", "1000"])
    netns.remove(host.name)
    host.close()
    assert process.poll() == -signal.SIGKILL


def _mine(pid: int) -> list[str]:
    return [name for name in netns.listnetns() if name.startswith(f"ftmb-{pid}-")]


def test_nothing_stays_after_a_failure() -> None:
    with pytest.raises(ZeroDivisionError), namespaces.network() as net:
        process = net.host("a").start(["sleep", "1000"])
        raise ZeroDivisionError
    assert process.poll() == -signal.SIGKILL and _mine(os.getpid()) == []


ORPHAN = """
import os, time
if os.fork():
    time.sleep(1000)
print(os.getpid(), flush=True)
time.sleep(1000)
"""


def test_what_a_process_started_ends_too() -> None:
    """As the workers of a server, which outlive a master that is killed."""
    with namespaces.network() as net:
        process = net.host("a").python(ORPHAN, stdout=subprocess.PIPE)
        assert process.stdout is not None
        pidfd = os.pidfd_open(int(process.stdout.readline()))
    assert select.select([pidfd], [], [], 60)[0], "it lives on"
    os.close(pidfd)


MAKER = """
import sys
from ftmb import signals
from ftmb.errors import Stopped
from ftmb.testbed import namespaces
try:
    with signals.stoppable(), namespaces.network() as net:
        print(net.host("a").start(["sleep", "1000"]).pid, flush=True)
        signals.signal.pause()
except Stopped:
    pass
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_stays_when_the_maker_is_ended(how: signal.Signals, net: Network) -> None:
    """After SIGKILL: its processes are gone at once, its namespaces when the next one looks."""
    mine = net.host("mine")
    maker = subprocess.Popen([sys.executable, "-c", MAKER], stdout=subprocess.PIPE, text=True)
    assert maker.stdout is not None
    child = int(maker.stdout.readline())
    assert len(_mine(maker.pid)) == 1
    pidfd = os.pidfd_open(child)
    maker.send_signal(how)
    maker.communicate(timeout=60)
    assert select.select([pidfd], [], [], 60)[0], "its process lives on"
    os.close(pidfd)
    if how == signal.SIGKILL:
        namespaces.remove_left_overs()  # of others, too; and another may have been faster
    assert _mine(maker.pid) == []
    assert mine.name in netns.listnetns()  # what others made is not touched
