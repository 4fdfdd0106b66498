"""Metrics of a middlebox at work: their text, by the parser of Prometheus' own client; where they
are served."""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from ftmb import exporter, metrics, spec
from ftmb.errors import MachineError, SpecError
from ftmb.events import Event
from ftmb.exporter import Exporter
from ftmb.watch import Watch

AWKWARD = 'a "b"\\\n'
SITE = spec.parse({"nf": {"name": "nat"}, "interfaces": {"inside": "a", "outside": "b"}})
TOLD = {
    "il": {"role": "il", "received": 12, "accepted": 10, "refused": 1, "malformed": 1, "ticks": 5,
           "logged_bytes": 900, "resent": 0, "log_bytes": 300, "log_capacity_bytes": 4096},
    "ol": {"role": "ol", "sent": 9, "released": 9, "pals": 30, "duplicates": 0, "lost_in_hand": 0,
           "bad": 0, "held": 1, "log_bytes": 80, "log_capacity_bytes": 8192, "commits": 3,
           "commit_age_ns": 20_000_000, "backups": 1},
    "r0": {"role": "replica", "active": True, "inputs": 10, "outputs": 9, "dropped": 1, "pals": 30,
           "waits": 0, "resent": 0, "snapshots": 4, "snapshots_abandoned": 0,
           "snapshot_bytes": 5000, "snapshot_ns": 1_500_000, "state_bytes": 70_000},
}  # fmt: skip


def parsed(text: str) -> dict[str, Any]:
    """Families by name. The parser refuses what the format does not allow; what it lets pass and
    Prometheus does not is looked at here."""
    families = {family.name: family for family in text_string_to_metric_families(text)}
    names = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(names) == len(set(names)), "a family in two pieces"
    for family in families.values():
        assert family.documentation and family.type != "unknown", family.name
    samples = [(s.name, *sorted(s.labels.items())) for f in families.values() for s in f.samples]
    assert len(samples) == len(set(samples)), "a sample twice"
    return families


def value(families: dict[str, Any], name: str, **labels: str) -> float:
    for family in families.values():
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return float(sample.value)
    raise AssertionError(f"no {name} {labels}")


def watched() -> Watch:
    watch = Watch(AWKWARD, SITE)
    watch.take(Event(1, "r0", "spawn", {}))
    watch.take(Event(1, "r1", "spawn", {}))
    watch.take(Event(1, "loggers", "spawn", {}))
    for process, fields in (("loggers", TOLD["il"]), ("loggers", TOLD["ol"]), ("r0", TOLD["r0"])):
        watch.take(Event(2, process, "telemetry", dict(fields)))
    return watch


def test_all_of_it_parses_with_types_and_help() -> None:
    watch = watched()
    watch.publish("r0", True, 1)
    families = parsed(watch.text)
    for family in families.values():
        assert family.name.startswith("ftmb_")
        for sample in family.samples:
            assert sample.labels["site"] == AWKWARD
            assert sample.name.endswith("_total") == (family.type == "counter"), sample.name
    assert value(families, "ftmb_protected") == 1
    assert value(families, "ftmb_packets_received_total") == 12
    assert value(families, "ftmb_log_bytes", log="output") == 80
    assert value(families, "ftmb_snapshot_duration_seconds") == 0.0015
    assert value(families, "ftmb_process_restarts_total", place="r1") == 0
    age = time.time() - value(families, "ftmb_last_commit_timestamp_seconds")
    assert age >= 0.019
    told = {key for entries in metrics.COUNTERS.values() for _, key, _ in entries}
    assert told <= {key for fields in TOLD.values() for key in fields}


def test_every_metric_is_in_the_table_of_the_docs_and_no_other(root: Path) -> None:
    watch = watched()
    watch.publish("r0", True, 1)
    rows = (root / "docs" / "DEPLOY.md").read_text(encoding="utf-8").splitlines()
    table = {row.split("`")[1]: row.split("|")[2].strip() for row in rows
             if row.startswith("| `ftmb_")}  # fmt: skip
    shown = {line.split()[2]: line.split()[3] for line in watch.text.splitlines()
             if line.startswith("# TYPE")}  # fmt: skip
    assert table == shown


def test_alerts_name_metrics_that_there_are(root: Path) -> None:
    watch = watched()
    watch.publish("r0", True, 1)
    known = {sample.name for family in parsed(watch.text).values() for sample in family.samples}
    rules = yaml.safe_load((root / "config" / "sites" / "alerts.yaml").read_text("utf-8"))
    entries = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len(entries) >= 5
    for rule in entries:
        used = set(re.findall(r"\b(?:ftmb_[a-z_]+|up)\b", re.sub(r"{.*?}", "", rule["expr"])))
        assert used and used <= {"up", *known}, rule["alert"]
        assert rule["annotations"]["summary"]
    # All others compare what there is: where there is nothing, they are silent.
    gone = next(rule["expr"] for rule in entries if rule["alert"] == "FtmbGone")
    assert "absent(ftmb_protected)" in gone and re.search(r"\bup\b.*== 0", gone)


def test_one_that_hangs_is_not_hidden_by_those_that_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"il": "loggers", "ol": "loggers", "master": "r0"}
    for hung in names:
        watch = watched()
        begun = time.time()
        monkeypatch.setattr(time, "time", lambda at=begun: at + 100)
        for role, process in names.items():
            if role != hung:
                fields = TOLD.get(role, TOLD["r0"])
                watch.take(Event(3, process, "telemetry", dict(fields)))
        watch.take(Event(3, "r1", "telemetry", dict(TOLD["r0"], active=False)))
        watch.publish("r0", True, 1)
        families = parsed(watch.text)
        assert value(families, "ftmb_telemetry_timestamp_seconds") <= begun, hung
        committed = value(families, "ftmb_last_commit_timestamp_seconds")
        assert (committed <= begun) == (hung == "ol")
        monkeypatch.undo()


def test_nothing_is_told_before_anything_is_known() -> None:
    watch = Watch("new", SITE)
    watch.publish("", False, 0)
    families = parsed(watch.text)
    assert value(families, "ftmb_protected") == 0
    assert not any(name.startswith("ftmb_packets") for name in families)
    assert "ftmb_last_commit_timestamp_seconds" not in families


def test_what_a_master_told_is_not_told_for_the_next_one() -> None:
    watch = watched()
    watch.publish("r1", False, 2)
    assert not any(name.startswith("ftmb_snapshots") for name in parsed(watch.text))


def test_restarts_and_replays_are_counted() -> None:
    watch = watched()
    watch.take(Event(5, "r0", "exit", {"code": -9}))
    watch.take(Event(3, "r0", "replay_start", {"view": 1}))
    watch.take(Event(3, "r0", "replay_done", {"view": 1}))
    watch.take(Event(6, "r1", "replay_start", {"view": 2}))
    watch.take(Event(4_000_006, "r1", "replay_done", {}))
    watch.take(Event(7, "r0-2", "spawn", {}))
    watch.publish("r1", True, 2)
    families = parsed(watch.text)
    assert value(families, "ftmb_process_restarts_total", place="r0") == 1
    assert value(families, "ftmb_replay_duration_seconds_bucket", le="0.005") == 1
    assert value(families, "ftmb_replay_duration_seconds_bucket", le="0.0025") == 0
    assert value(families, "ftmb_replay_duration_seconds_count") == 1
    started = {s.labels["process"] for s in families["ftmb_process_start_time_seconds"].samples}
    assert started == {"r1", "loggers", "r0-2"}


def test_who_does_not_answer_is_not_asked_again() -> None:
    class Fake:
        def __init__(self, name: str) -> None:
            self.name, self.working, self.asked = name, True, 0

        def command(self, verb: str) -> None:
            assert verb == "telemetry"
            self.asked += 1

    watch, one, other = Watch("any", SITE), Fake("r0"), Fake("r1")
    processes: Any = [one, other]
    for second in range(1, 4):
        watch.ask(processes, second * 1_000_000_000)
        watch.ask(processes, second * 1_000_000_000 + 1)
        watch.take(Event(0, "r0", "telemetry", dict(TOLD["r0"])))
    assert (one.asked, other.asked) == (3, 1)


# ---- by HTTP --------------------------------------------------------------------------------


@pytest.fixture
def served() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    found = Exporter(f"127.0.0.1:{port}", lambda: "ftmb_protected 1\n")
    yield "127.0.0.1", port
    found.close()


def fetch(where: tuple[str, int], method: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*where, timeout=30)
    connection.request(method, path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_only_get_metrics(served: tuple[str, int]) -> None:
    assert fetch(served, "GET", "/metrics") == (200, "ftmb_protected 1\n")
    assert fetch(served, "GET", "/")[0] == 404
    assert fetch(served, "GET", "/metrics/../etc/passwd")[0] == 404
    for method in ("POST", "PUT", "DELETE"):
        assert fetch(served, method, "/metrics")[0] == 501
    with socket.create_connection(served) as peer, suppress(OSError):
        peer.sendall(b"\x00\xff" * 40_000)  # refused before all of it is read
        peer.shutdown(socket.SHUT_WR)
    assert fetch(served, "GET", "/metrics")[0] == 200


def test_who_is_slow_is_cut_off(served: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "LIMIT_S", 0.3)
    stop = threading.Event()
    with socket.create_connection(served, timeout=30) as slow:

        def drip() -> None:
            with suppress(OSError):
                while not stop.wait(0.05):
                    slow.sendall(b"G")  # never a whole line

        dripping = threading.Thread(target=drip)
        dripping.start()
        dripping.join(60)
        cut_off = not dripping.is_alive()
        stop.set()
        dripping.join()
    assert cut_off
    monkeypatch.undo()
    assert fetch(served, "GET", "/metrics")[0] == 200


def test_it_closes_at_once_whoever_is_being_served(
    served: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = threading.Event()

    class Patient(exporter._Handler):
        timeout = None

        def setup(self) -> None:
            super().setup()
            begun.set()

    monkeypatch.setattr(exporter, "_Handler", Patient)
    monkeypatch.setattr(exporter, "LIMIT_S", 3600)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    opened = Exporter(f"127.0.0.1:{port}", str)
    with socket.create_connection(("127.0.0.1", port)):  # says nothing
        assert begun.wait(60)
        closing = threading.Thread(target=opened.close, daemon=True)
        closing.start()
        closing.join(60)
        assert not closing.is_alive()


@pytest.mark.parametrize("text", ["9464", "localhost:9464", "127.0.0.1:", "127.0.0.1:0", "::1",
                                  "127.0.0.1:99999", "127.0.0.1:9x"])  # fmt: skip
def test_addresses_that_are_none(text: str) -> None:
    with pytest.raises(SpecError, match="metrics is ADDRESS:PORT"):
        spec.parse({"interfaces": {"inside": "a", "outside": "b"}, "metrics": text})


def test_an_address_that_is_taken(served: tuple[str, int]) -> None:
    assert exporter.address("[::1]:9464") == ("::1", 9464)
    with pytest.raises(MachineError, match="cannot listen"):
        Exporter(f"{served[0]}:{served[1]}", str)
    with pytest.raises(SpecError, match="for `ftmb up`"):
        spec.parse({"metrics": "127.0.0.1:9464"})
