"""`ftmb up`, `status`, `down`: a middlebox between real endpoints, which notice nothing."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import namespaces
import pytest
from conftest import FTMB
from prometheus_client.parser import text_string_to_metric_families

from ftmb import interface, site, spec, trial
from ftmb.errors import MachineError, SpecError

# Sends at so many bytes a second until there is a line on stdin; then tells the digest.
SEND = """
import hashlib, os, socket, struct, sys, threading, time
address, port, rate = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
enough = threading.Event()
threading.Thread(target=lambda: (sys.stdin.readline(), enough.set()), daemon=True).start()
listener = socket.create_server((address, port))
print("listening", flush=True)
peer, _ = listener.accept()
block, digest, sent, begun = os.urandom(1 << 16), hashlib.sha256(), 0, time.monotonic()
while not enough.is_set():
    digest.update(block)
    peer.sendall(block)
    sent += len(block)
    time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
peer.shutdown(socket.SHUT_WR)
# tcpi_total_retrans of struct tcp_info
resent, = struct.unpack_from("I", peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)
print(sent, digest.hexdigest(), resent, flush=True)
"""
# Tells of each line on stdin when a MB more has come.
RECEIVE = """
import hashlib, socket, sys, threading
peer = socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=120)
digest, received, came = hashlib.sha256(), 0, threading.Condition()
def asked():
    for _ in sys.stdin:
        with came:
            enough = received + 1_000_000
            came.wait_for(lambda: received >= enough)
        print("more", flush=True)
threading.Thread(target=asked, daemon=True).start()
while data := peer.recv(1 << 16):
    digest.update(data)
    with came:
        received += len(data)
        came.notify()
print(received, digest.hexdigest(), flush=True)
"""


ECHO = """
import socket, sys
listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listener.bind((sys.argv[1], int(sys.argv[2])))
print("listening", flush=True)
while True:
    listener.sendto(*listener.recvfrom(1 << 16))
"""
ASK = """
import os, socket, sys
asker = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asker.settimeout(1)
data, answer = os.urandom(4000), b""
while not answer:  # the NAT asks for a next hop with the first packet on each side
    asker.sendto(data, (sys.argv[1], int(sys.argv[2])))
    try:
        answer = asker.recv(1 << 16)
    except TimeoutError:
        pass
print("the same" if answer == data else "something else")
"""

FETCH = """
import http.client, sys
server = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=30)
server.request("GET", "/metrics")
sys.stdout.write(server.getresponse().read().decode())
"""
METRICS = "127.0.0.1:9464"  # within the box


@pytest.fixture(scope="module")
def hosts() -> Iterator[namespaces.Hosts]:
    """Three hosts; where the user may not make them, the reason."""
    if why := namespaces.missing():
        pytest.skip(why)
    with namespaces.hosts() as made:
        yield made


def _until(true: Callable[[], object], limit_s: float = 120) -> None:
    deadline = time.monotonic() + limit_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def _named(name: str) -> site.Status:
    (found,) = (each for each in site.sites() if each.name == name)
    return found


def _protected(name: str) -> bool:
    return any(each.name == name and each.protected for each in site.sites())


@pytest.fixture(params=["firewall", "nat"])
def box(
    hosts: namespaces.Hosts,
    node: Path,
    root: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """A middlebox of the examples between the hosts, protected: its name and its process."""
    name = f"{request.param}{os.getpid()}"
    example = root / "config" / "sites" / f"{request.param}.yaml"
    # Deaths are seen at once; a master that a crowded machine holds up is not meant here.
    words = [str(FTMB), "up", str(example), "--name", name, "--set", "ft.detect_ms=3000"]
    words += ["--set", f"metrics={METRICS}"]
    with (tmp_path / "said").open("w") as said:
        running = hosts.box.start(words, stdout=said, stderr=subprocess.STDOUT)
        try:
            _until(lambda: running.poll() is not None or _protected(name))
            assert running.poll() is None, (tmp_path / "said").read_text()
            yield name, running
        finally:
            running.terminate()
            running.wait(120)


def _transfer(hosts: namespaces.Hosts, server: str, meanwhile: Callable[[], None]) -> int:
    """One TCP connection from inside, compared at both ends; how many segments were sent again."""
    words = (server, "8001")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    sender = hosts.server.python(SEND, *words, "8e6", **pipes)
    assert sender.stdout is not None and sender.stdout.readline() == "listening\n"
    receiver = hosts.client.python(RECEIVE, *words, **pipes)

    def it_flows() -> None:
        assert receiver.stdin is not None and receiver.stdout is not None
        receiver.stdin.write("\n")
        receiver.stdin.flush()
        assert receiver.stdout.readline() == "more\n", "the connection broke"

    try:
        it_flows()
        meanwhile()
        it_flows()
        assert sender.poll() is None and receiver.poll() is None, "the connection broke"
        sent, _ = sender.communicate("\n", timeout=120)
        received, _ = receiver.communicate(timeout=120)
    finally:
        for process in (sender, receiver):
            process.kill()
            process.wait()
    *carried, resent = sent.split()
    assert carried == received.split() and int(carried[0]) > 1_000_000
    return int(resent)


@pytest.mark.timeout(900)
def test_a_connection_lives_on_while_one_process_after_the_other_is_killed(
    hosts: namespaces.Hosts, box: tuple[str, subprocess.Popen[str]], tmp_path: Path
) -> None:
    name, running = box

    def kill(who: str) -> None:
        before = _named(name)
        pid = before.processes[before.master if who == "master" else who]
        os.kill(pid, signal.SIGKILL)
        _until(lambda: pid not in _named(name).processes.values())
        _until(lambda: _named(name).protected)

    def kill_all() -> None:
        kill("master")
        kill("master")
        kill("loggers")

    server = namespaces.FAR_SERVER if name.startswith("nat") else namespaces.SERVER
    _transfer(hosts, server, kill_all)
    assert _named(name).failovers >= 2
    done = subprocess.run([FTMB, "down", name], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{name} is down\n")
    assert running.wait(60) == 0
    said = (tmp_path / "said").read_text()
    assert said.count("has taken over") >= 2
    assert f"{name}: stopped; failovers" in said


def _metrics(text: str) -> dict[str, float]:
    """The samples by name, but for those with labels of their own."""
    families = list(text_string_to_metric_families(text))
    return {s.name: s.value for f in families for s in f.samples if set(s.labels) == {"site"}}


@pytest.mark.parametrize("box", ["nat"], indirect=True)
def test_a_connection_goes_on_through_a_switchover(
    hosts: namespaces.Hosts, box: tuple[str, subprocess.Popen[str]]
) -> None:
    name, _ = box
    said: list[str] = []

    def switch() -> None:
        before = _named(name)
        words = [FTMB, "switchover", name, "--wait"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        after = _named(name)
        assert after.master != before.master and after.view == before.view + 1
        assert before.processes[before.master] not in after.processes.values()
        assert after.protected and (after.switchovers, after.failovers) == (1, 0)
        said.extend(done.stdout.splitlines())

    resent = _transfer(hosts, namespaces.FAR_SERVER, switch)
    print(f"{said}; segments sent again: {resent}")
    # On a machine that stood still for long enough nothing seems to flow; the digest is the judge.
    how = r"(outputs paused for [0-9.]+ ms|nothing was flowing)"
    assert re.match(rf"{name}: r[01] is replaced; {how}", said[0])
    assert "protected again" in said[1]

    told = subprocess.run([FTMB, "metrics", name], capture_output=True, text=True, check=True)
    found = _metrics(told.stdout)
    assert found["ftmb_protected"] == found["ftmb_switchovers_total"] == 1
    assert found["ftmb_failovers_total"] == found["ftmb_switchovers_failed_total"] == 0
    assert found["ftmb_packets_sent_total"] > 500 and found["ftmb_commits_total"] > 10
    assert found["ftmb_view"] == 2 and found["ftmb_replay_duration_seconds_count"] == 1
    address, _, port = METRICS.partition(":")
    fetched = hosts.box.python(FETCH, address, port, stdout=subprocess.PIPE)
    assert _metrics(fetched.communicate(timeout=60)[0]).keys() == found.keys()


@pytest.mark.parametrize("box", ["nat"], indirect=True)
def test_datagrams_in_fragments_are_translated(
    hosts: namespaces.Hosts, box: tuple[str, subprocess.Popen[str]]
) -> None:
    """As they are on the wire: nobody puts them together on the way."""
    words = (namespaces.FAR_SERVER, "9")
    echo = hosts.server.python(ECHO, *words, stdout=subprocess.PIPE)
    try:
        assert echo.stdout is not None and echo.stdout.readline() == "listening\n"
        asker = hosts.client.python(ASK, *words, stdout=subprocess.PIPE)
        assert asker.communicate(timeout=120)[0] == "the same\n"
    finally:
        echo.kill()
        echo.wait()


@pytest.mark.parametrize("box", ["firewall"], indirect=True)
def test_a_second_one_of_that_name_or_at_that_interface_is_refused(
    hosts: namespaces.Hosts, box: tuple[str, subprocess.Popen[str]], root: Path
) -> None:
    file = str(root / "config" / "sites" / "firewall.yaml")
    for other, words in ((box[0], f"{box[0]} is up already"), ("other", "stands at inside")):
        second = hosts.box.start([str(FTMB), "up", file, "--name", other], stderr=subprocess.PIPE)
        assert words in second.communicate(timeout=120)[1]
        assert second.returncode == 3


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({"interfaces": {"inside": "a", "outside": "a"}}, "between two interfaces"),
        ({"interfaces": {"inside": "a/b", "outside": "b"}}, "interfaces.inside"),
        ({"interfaces": {"inside": "a"}}, "interfaces.outside"),
        ({"interfaces": {"inside": "a", "outside": "b"}, "ft": {"mode": "direct"}}, "no loggers"),
    ],
)
def test_what_makes_no_middlebox(tree: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        spec.parse(tree)


def test_a_middlebox_without_interfaces_and_a_trial_with_them(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="interfaces: which two"):
        site.up("any", spec.parse({}), None)
    with pytest.raises(SpecError, match="there is `ftmb up`"):
        trial.run(spec.parse({"interfaces": {"inside": "a", "outside": "b"}}), tmp_path, 0)


def test_interfaces_that_will_not_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MachineError, match="does not exist here"):
        interface.check("ftmbnone0")
    told = {"flags": "0x1003", "mtu": "9000"}
    monkeypatch.setattr(interface, "_read", lambda name, what: told[what])
    with pytest.raises(MachineError, match="frames of 9000 bytes"):
        interface.check("eth1")
    told["flags"] = "0x1002"
    with pytest.raises(MachineError, match="ip link set eth1 up"):
        interface.check("eth1")
    told.update(flags="0x1003", mtu="1500")
    monkeypatch.setattr(interface, "_ask", lambda name, command: 1)
    with pytest.raises(MachineError, match="gro off lro off"):
        interface.check("eth1")


def test_what_is_not_up_cannot_be_ended() -> None:
    with pytest.raises(SpecError, match="no middlebox nowhere is up"):
        site.down("nowhere")
