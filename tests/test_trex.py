"""The generator `trex`: its client against a stand-in that speaks the server's protocol."""

from __future__ import annotations

import base64
import importlib.util
import json
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SPEC, Run, one_line
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from test_generators import ended

from ftmb import doctor, interface, spec
from ftmb import trial as trials
from ftmb.errors import SpecError
from ftmb.generators.ground import child_spec
from ftmb.generators.trex import Counts
from ftmb.generators.trex_streams import FIRST_LATENCY_ID, Stream, streams
from ftmb.traffic import profile

INSIDE = "10.0.0.0/8"
Serve = Callable[..., dict[str, Any]]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """serve(options) starts a stand-in; returns the section `traffic.trex` that leads to it."""
    if importlib.util.find_spec("lbr_trex_client") is None:
        pytest.skip("the Python package lbr-trex-client is not installed: `make setup`")
    if sys.version_info >= (3, 12):
        pytest.skip("lbr-trex-client does not load with Python 3.12 and later")
    running: list[subprocess.Popen[str]] = []

    def start(**options: Any) -> dict[str, Any]:
        path = tmp_path / "server.json"
        path.write_text(json.dumps(options | {"journal": str(tmp_path / "journal")}))
        command = [sys.executable, str(Path(__file__).with_name("trex_server.py")), str(path)]
        pipe = subprocess.PIPE
        server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        running.append(server)
        assert server.stdout is not None
        where = json.loads(server.stdout.readline())
        limit_s = 0.5 if options.get("silent") else 20
        return {"server": "127.0.0.1", "timeout_s": limit_s, **where}

    yield start
    for server in running:
        server.kill()
        server.communicate()


def _journal(tmp_path: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = (tmp_path / "journal").read_text().splitlines()
    return [(method, given) for method, given in map(json.loads, lines)]


def _tree(trex: dict[str, Any], out: Path, **traffic: Any) -> dict[str, Any]:
    """The spec of a child."""
    given = {"generator": "trex", "rate_pps": 3000, "flows": 50, "profile": "imix", "trex": trex}
    between = {"inside": "a", "outside": "b"}
    checked = spec.parse({"traffic": given | traffic, "interfaces": between})
    section = {
        "rate_pps": checked.traffic.rate_pps, "flows": checked.traffic.flows, "warmup_ms": 200,
        "duration_ms": 500, "drain_ms": 100, "histogram": str(out / "histogram.json"),
        **profile.prepare(checked.traffic.profile, out, 1),
    }  # fmt: skip
    return child_spec(checked, section)


def _drive(tree: dict[str, Any], tmp_path: Path) -> list[dict[str, Any]]:
    """The events of a child's whole life."""
    path = tmp_path / "child.json"
    path.write_text(json.dumps(tree))
    command = [sys.executable, "-m", "ftmb.generators.child", str(path)]
    pipe = subprocess.PIPE
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        assert child.stdin is not None and child.stdout is not None and child.stderr is not None
        first = child.stdout.readline()
        assert first, child.stderr.read()
        child.stdin.write("start\nfinish\nexit\n")
        child.stdin.flush()
        told = [json.loads(line) for line in [first, *child.stdout]]
        assert child.wait(30) == 0
        return told
    finally:
        child.kill()
        child.communicate()


def test_the_client_goes_through_a_whole_trial_with_the_server(
    serve: Serve, tmp_path: Path
) -> None:
    told = _drive(_tree(serve(), tmp_path), tmp_path)
    assert [event["event"] for event in told] == [
        "ready", "window_start", "window_end", "drained", "stats",
    ]  # fmt: skip
    stats = told[-1]
    assert 2000 < stats["sent"] <= 2100 and stats["delivered"] == stats["sent"]
    assert (stats["duplicated"], stats["reordered"], stats["corrupted"]) == (None, None, None)
    assert stats["sample"]["lost"] == 0 and 650 < stats["sample"]["sent"] <= 700
    assert stats["window_delivered"] <= stats["delivered"]
    called = _journal(tmp_path)
    order = ["api_sync_v2", "acquire", "add_stream", "start_traffic", "get_pgid_stats", "release"]
    first = [[name for name, _ in called].index(name) for name in order[:4]]
    assert first == sorted(first)
    assert {name for name, _ in called} >= set(order) | {"publish_now", "get_async_events"}
    assert [given["port_id"] for name, given in called if name == "release"] == [0, 1]
    assert next(given for name, given in called if name == "start_traffic")["duration"] == 0.7
    _check_streams([given["stream"] for name, given in called if name == "add_stream"])


def _check_streams(made: list[dict[str, Any]]) -> None:
    """The profile's sizes at the asked rate; a flow for each latency stream."""
    assert sum(each["mode"]["rate"]["value"] for each in made) == pytest.approx(3000)
    timed = [each for each in made if each["flow_stats"]["rule_type"] == "latency"]
    assert sum(each["mode"]["rate"]["value"] for each in timed) == pytest.approx(1000)
    frames = {id(each): Ether(base64.b64decode(each["packet"]["binary"])) for each in made}
    assert len({frames[id(each)][IP].src for each in timed}) == len(timed) == 8
    sizes = {len(frames[id(each)]): each["mode"]["rate"]["value"] for each in made
             if each not in timed}  # fmt: skip
    assert sizes == {60: pytest.approx(2000 * 7 / 12), 590: pytest.approx(2000 * 4 / 12),
                     1514: pytest.approx(2000 / 12)}  # fmt: skip
    for frame in frames.values():
        assert frame[UDP].chksum == 0
        given = frame[IP].chksum
        del frame[IP].chksum
        assert Ether(bytes(frame))[IP].chksum == given


def test_where_all_is_timed_all_is_known(serve: Serve, tmp_path: Path) -> None:
    trex = serve(errors={"dup": 2, "ooo": 1, "drp": 3})
    stats = _drive(_tree(trex, tmp_path, rate_pps=600, flows=20), tmp_path)[-1]
    assert (stats["duplicated"], stats["reordered"]) == (2, 1)
    assert stats["sent"] - stats["delivered"] == stats["sample"]["lost"] == 3
    made = [given for name, given in _journal(tmp_path) if name == "add_stream"]
    assert len(made) == 20
    assert all(each["stream"]["flow_stats"]["rule_type"] == "latency" for each in made)


@pytest.mark.parametrize(
    ("options", "more", "words"),
    [
        ({"silent": True}, {}, "no answer within 0.5 s; is a server running there"),
        ({"version": [4, 1]}, {}, "its version v3.99 refuses this client (Version mismatch"),
        ({"mode": "ASTF"}, {}, "it runs in mode ASTF"),
        ({"held": "alice"}, {}, "already taken by 'alice'); release them there, or set"),
        ({"down": 1}, {}, "its port 1 is down; check the cable"),
        ({}, {"ports": [0, 7]}, "has the ports 0, 1, and no port 7"),
    ],
)
def test_what_is_wrong_with_a_server_is_one_line_with_the_remedy(
    serve: Serve, tmp_path: Path, options: dict[str, Any], more: dict[str, Any], words: str
) -> None:
    trex = serve(**options) | more
    code, said = ended(_tree(trex, tmp_path), tmp_path)
    assert code == 3
    assert said.startswith(f"ftmb: TRex at 127.0.0.1:{trex['port']}: ") and words in said
    if options.get("held"):
        assert "release" in said and words in said


def test_ports_of_others_are_taken_only_by_force(serve: Serve, tmp_path: Path) -> None:
    trex = serve(held="alice") | {"force": True}
    assert _drive(_tree(trex, tmp_path, rate_pps=600, flows=8), tmp_path)[-1]["sent"] > 0


def _elsewhere(tmp_path: Path, modules: dict[str, str]) -> tuple[int, str]:
    """The client's program where these modules are found first."""
    for name, text in modules.items():
        path = tmp_path / "first" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    trex = spec.parse({}).traffic.trex.model_dump() | {"server": "192.0.2.1"}
    (tmp_path / "trex.json").write_text(json.dumps(trex))
    program = (
        "import sys; sys.path.insert(0, sys.argv.pop(1));"
        "from ftmb.generators.trex_client import main; sys.exit(main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "first"), str(tmp_path / "trex.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


GONE = "raise ImportError('hidden')"
HIDDEN = {"lbr_trex_client.py": GONE, "trex.py": GONE}
OLD = """
class STLError(Exception):
    pass
class STLClient:
    def __init__(self, username, server, sync_port, async_port, verbose_level):
        pass
    def connect(self):
        %s
    def is_connected(self):
        return False
"""


def test_a_missing_client_is_named_with_how_to_install_it(tmp_path: Path) -> None:
    code, said = _elsewhere(tmp_path, HIDDEN | {"trex_stl_lib.py": GONE})
    assert code == 3
    assert one_line("ftmb: " + said).count("pip install lbr-trex-client") == 1


@pytest.mark.parametrize("refused", [False, True])
def test_the_old_client_is_taken_where_the_server_takes_it(tmp_path: Path, refused: bool) -> None:
    what = "raise STLError('API mismatch')" if refused else "return None"
    api = {"trex_stl_lib/__init__.py": "", "trex_stl_lib/api.py": OLD % what}
    code, said = _elsewhere(tmp_path, HIDDEN | api)
    if not refused:
        assert (code, said) == (0, "version ?\n")
        return
    assert code == 3
    assert "refuses trex-stl-lib" in said and "pip install lbr-trex-client" in said


def test_streams_add_up_and_no_flow_is_in_two() -> None:
    udp = bytes(
        Ether() / IP(src="10.0.0.1", dst="192.0.2.1") / UDP(sport=9, dport=53) / (b"x" * 20)
    )
    made = streams([udp], INSIDE, 100, 50_000, 1000)
    assert sum(each.pps for each in made) == pytest.approx(50_000)
    timed = {Ether(each.frame)[IP].src for each in made if each.timed}
    (bulk,) = (each for each in made if not each.timed)
    assert (Ether(bulk.frame)[IP].src, bulk.last) == ("10.0.0.9", "10.0.0.100")  # 100 with timed
    assert timed == {f"10.0.0.{i}" for i in range(1, 9)}
    assert next(each.group for each in made if each.timed) == FIRST_LATENCY_ID > bulk.group
    few = streams([udp], INSIDE, 8, 50_000, 1000)  # what is not timed needs a flow of its own
    assert [each.last for each in few if not each.timed] == ["10.0.0.9"]
    tcp = bytes(Ether() / IP(proto=6) / (b"x" * 40))
    with pytest.raises(SpecError, match="sends UDP only"):
        streams([udp, tcp], INSIDE, 100, 50_000, 1000)


@pytest.mark.parametrize("flows", [{}, {7: {}}, {7: {"tx_pkts": {"total": "N/A"}}}])
def test_what_is_not_counted_is_no_zero(flows: dict[int, Any]) -> None:
    with pytest.raises(ValueError, match="it does not count group 7: tx_pkts is"):
        Counts({"flow_stats": flows, "latency": {}}, [Stream(7, 1.0, b"", True, None)])


def test_a_server_that_does_not_count_a_group_is_told(serve: Serve, tmp_path: Path) -> None:
    trex = serve(uncounted=FIRST_LATENCY_ID)
    path = tmp_path / "child.json"
    path.write_text(json.dumps(_tree(trex, tmp_path)))
    command = [sys.executable, "-m", "ftmb.generators.child", str(path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as child:
        assert child.stdin is not None and child.stderr is not None
        child.stdin.write("start\n")
        child.stdin.flush()  # and open: at its end the child would go in peace
        said = child.stderr.read()
    assert child.returncode == 5, said
    words = f"TRex at 127.0.0.1:{trex['port']}: it does not count group {FIRST_LATENCY_ID}"
    assert words in one_line(said)


def test_latencies_are_those_since_the_window_began() -> None:
    stream = Stream(7, 1.0, b"", True, None)

    def counts(histogram: dict[int, int], received: int) -> Counts:
        latency = {"histogram": histogram, "total_max": 1350}
        flows = {"tx_pkts": {"total": received}, "rx_pkts": {"total": received}}
        timed = {"err_cntrs": {}, "latency": latency}
        return Counts({"flow_stats": {7: flows}, "latency": {7: timed}}, [stream])

    before = counts({0: 4, 10: 5}, 9)
    made = counts({0: 4, 10: 25, 200: 80, 1000: 20}, 129).latencies(before)
    assert dict(made.buckets) == {
        (10_000, 19_999): 20, (200_000, 299_999): 80, (1_000_000, 1_999_999): 20,
    }  # fmt: skip
    told = made.summary()
    assert (told["count"], told["p50"], told["p99"], told["max"]) == (
        120, 299_999, 1_350_000, 1_350_000,
    )  # fmt: skip


def test_a_trial_with_a_server_has_a_record_of_what_was_measured(
    serve: Serve, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the stand-in for the data plane: what it counts does not fit to what the server does."""
    checked: list[str] = []
    monkeypatch.setattr(interface, "check", checked.append)
    monkeypatch.setattr(interface, "check_rights", lambda: None)
    monkeypatch.setattr(trials, "packets", lambda given, out: profile.prepare("udp64", out, 1))
    traffic = {"generator": "trex", "rate_pps": 3000, "flows": 50, "trex": serve()}
    between = {"inside": "eth1", "outside": "eth2"}
    code, record, err = run(SPEC | {"traffic": traffic, "interfaces": between})
    assert code == 0 and record is not None, err
    assert checked == ["eth1", "eth2"]
    assert record["packets"]["delivered"] > 0 and record["packets"]["duplicated"] is None
    assert record["sample"]["lost"] == 0 and record["sample"]["sent"] > 0
    assert record["latency_ns"] is not None
    assert {"sample", "nothing_lost"} <= {check["name"] for check in record["checks"]}
    traffic["trex"] = serve(stops=True)
    code, _, err = run(SPEC | {"traffic": traffic, "interfaces": between})
    assert code == 4
    assert "process trex died" in one_line(err) and "it stopped doing as asked" in err


def test_doctor_looks_for_the_client_and_asks_a_server(serve: Serve) -> None:
    trex = serve()
    finding = doctor.trex_server(f"127.0.0.1:{trex['port']}")
    assert (finding.status, finding.found) == ("ok", f"127.0.0.1:{trex['port']}, version v3.99")
    assert doctor.trex_server("127.0.0.1:x").found == "127.0.0.1:x is no address"
    assert any(each.name == "TRex client" and each.status == "ok" for each in doctor.examine())
