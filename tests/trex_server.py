#!/usr/bin/env python3
"""A stand-in for a TRex server: the wire protocol of its stateless API, and no packets.

JSON-RPC 2.0 over ZeroMQ request and reply, batches too; messages that are large, and those of a
client that asks for it, with the compression header (magic, size, zlib); a publisher that wakes the
client, which then fetches events. What it counts follows from the streams that it was given, and
from `errors`. Started as `trex_server.py OPTIONS.json`, it prints its two ports and runs until its
stdin ends. Written from the client's side of the wire, against lbr-trex-client 3.4.0.

Options: silent, version ([major, minor] that it speaks), mode, held (who has the ports), down (a
port without link), stops (once it has started), errors ({"dup": 2, "ooo": 1, "drp": 3} of the first
latency stream), journal (file for the methods that were called).
"""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
import zlib
from pathlib import Path

import lbr_trex_client

# Its ZeroMQ, so that the tests need no other.
sys.path.insert(0, str(Path(lbr_trex_client.__file__).parent / "external_libs" / "pyzmq-ctypes"))
import zmq

MAGIC, HEADER = 0xABE85CEA, struct.Struct(">II")
COMPRESSED_FROM = 256  # bytes of a reply
HANDLE, HANDLER = "Hyx6", "s3cr3t"
HISTOGRAM = {"10": 0.7, "20": 0.2, "100": 0.1}  # lower bound in us, share


class RefusedError(Exception):
    """An error reply."""

    def __init__(self, words, code=-32000):
        super().__init__(words)
        self.code = code


class Server:
    def __init__(self, options):
        self.options = options
        self.owner = {0: options.get("held", ""), 1: options.get("held", "")}
        self.streams = {0: {}, 1: {}}
        self.started, self.seconds, self.sending = None, 0.0, None
        self.events, self.sequence = [], 0

    # -- the protocol ---------------------------------------------------------------------------

    def reply(self, message):
        packed = len(message) > 8 and HEADER.unpack(message[:8])[0] == MAGIC
        if packed:
            size = HEADER.unpack(message[:8])[1]
            message = zlib.decompress(message[8:])
            assert len(message) == size
        asked = json.loads(message)
        answer = [self.one(each) for each in asked] if isinstance(asked, list) else self.one(asked)
        text = json.dumps(answer).encode()
        if packed and len(text) >= COMPRESSED_FROM:
            return HEADER.pack(MAGIC, len(text)) + zlib.compress(text)
        return text

    def one(self, asked):
        answer = {"jsonrpc": "2.0", "id": asked["id"]}
        assert asked["jsonrpc"] == "2.0"
        method, given = asked["method"], asked.get("params") or {}
        self.note(method, given)
        work = getattr(self, "do_" + method, None)
        try:
            if work is None:
                raise RefusedError("Method not found", -32601)
            if method not in ("api_sync_v2", "get_version") and given.get("api_h") != HANDLE:
                raise RefusedError("no or a wrong api_h")
            if self.started is not None and self.options.get("stops"):
                raise RefusedError("the server is going down")
            if given.get("handler") not in (None, HANDLER):
                raise RefusedError("not the owner")
            return answer | {"result": work(given)}
        except RefusedError as error:
            words = {"code": error.code, "message": "refused", "specific_err": str(error)}
            return answer | {"error": words}

    def note(self, method, given):
        journal = self.options.get("journal")
        if journal:
            with Path(journal).open("a") as out:
                out.write(json.dumps([method, given]) + "\n")

    # -- connecting -----------------------------------------------------------------------------

    def do_get_version(self, given):
        return {"version": "v3.99", "mode": self.options.get("mode", "STL"), "built_by": "tests",
                "build_date": "-", "build_time": "-"}  # fmt: skip

    def do_api_sync_v2(self, given):
        major, minor = self.options.get("version", [5, 1])
        if given["name"] != "STL" or given["major"] != major or given["minor"] > minor:
            theirs = f"{given['major']}.{given['minor']}"
            raise RefusedError(f"Version mismatch: server API {major}.{minor}, client API {theirs}")
        return {"api_h": HANDLE}

    def do_get_system_info(self, given):
        port = {"driver": "net_tests", "is_prom_supported": True, "is_virtual": False,
                "is_fc_supported": False, "is_led_supported": False, "rx": {"counters": 1024},
                "is_link_supported": True, "is_vxlan_supported": False}  # fmt: skip
        return {"ports": [port | {"index": index} for index in (0, 1)], "port_count": 2,
                "dp_core_count": 1, "dp_core_count_per_port": 1, "core_type": "-",
                "hostname": "tests", "uptime": "-"}  # fmt: skip

    def do_get_supported_cmds(self, given):
        mine = [name[3:] for name in dir(self) if name.startswith("do_")]
        return sorted([*mine, "get_profile_list"])  # it has profiles of streams, as servers have

    def do_get_port_xstats_names(self, given):
        return {"xstats_names": []}

    def do_get_port_xstats_values(self, given):
        return {"xstats_values": []}

    def do_get_port_status(self, given):
        port = given["port_id"]
        link = {"up": port != self.options.get("down")}
        attr = {"link": link, "speed": 10, "promiscuous": {"enabled": False},
                "layer_cfg": {"ether": {"state": "configured", "src": "-", "dst": "-"},
                              "ipv4": {"state": "none"}},
                "vlan": {"tags": []}}  # fmt: skip
        state = "TX" if self.active(port) else "STREAMS" if self.streams[port] else "IDLE"
        return {"state": state, "state_profile": {"_": state} if self.streams[port] else {},
                "owner": self.owner[port], "max_stream_id": 0, "service": False,
                "service_filtered": False, "attr": attr}  # fmt: skip

    def do_get_global_stats(self, given):
        return {"m_tx_bps": 0, "m_tx_pps": 0, "m_cpu_util": 0.0}

    def do_get_utilization(self, given):
        return {"cpu": [], "mbuf_stats": {}}

    def do_get_port_stats(self, given):
        names = ("opackets", "ipackets", "obytes", "ibytes", "m_total_tx_bps", "m_total_tx_pps",
                 "m_total_rx_bps", "m_total_rx_pps")  # fmt: skip
        return dict.fromkeys(names, 0)

    def do_ping(self, given):
        return {"ts": time.time()}

    def do_get_tpg_status(self, given):
        return {"enabled": False}

    # -- the publisher's side -------------------------------------------------------------------

    def tell(self, name, kind, data):
        self.events.append({"name": name, "type": kind, "data": data, "seq": self.sequence})
        self.sequence += 1

    def do_publish_now(self, given):
        self.tell("trex-barrier", given["key"], {})
        return {}

    def do_get_async_events(self, given):
        told, self.events = self.events, []
        return {"data": told}

    # -- ports and streams ----------------------------------------------------------------------

    def do_acquire(self, given):
        port = given["port_id"]
        if self.owner[port] not in ("", given["user"]) and not given["force"]:
            raise RefusedError(f"port is already taken by '{self.owner[port]}'")
        self.owner[port] = given["user"]
        return HANDLER

    def do_release(self, given):
        self.owner[given["port_id"]] = ""
        return {}

    def do_get_all_streams(self, given):
        return {"profiles": {}}

    def do_remove_all_streams(self, given):
        self.streams[given["port_id"]] = {}
        return {}

    def do_set_port_attr(self, given):
        return {}

    def do_add_stream(self, given):
        self.streams[given["port_id"]][given["stream_id"]] = given["stream"]
        return {}

    def do_remove_rx_filters(self, given):
        return {}

    # -- traffic --------------------------------------------------------------------------------

    def do_start_traffic(self, given):
        if not self.streams[given["port_id"]]:
            raise RefusedError("no streams")
        self.started, self.seconds = time.monotonic(), given["duration"]
        self.sending = given["port_id"]
        return {"multiplier": 1.0, "ts": time.time()}

    def do_stop_traffic(self, given):
        self.sending = None
        return {}

    def active(self, port):
        return port == self.sending and time.monotonic() < self.started + self.seconds

    def groups(self):
        """Streams of packet groups: (group, timed, packets sent by now)."""
        gone = 0.0
        if self.started is not None:
            gone = min(time.monotonic() - self.started, self.seconds)
        for stream in (each for port in (0, 1) for each in self.streams[port].values()):
            stats = stream["flow_stats"]
            if stats["enabled"]:
                pps = stream["mode"]["rate"]["value"]
                yield stats["stream_id"], stats["rule_type"] == "latency", int(gone * pps + 1e-6)

    def do_get_active_pgids(self, given):
        ids = {"latency": [], "flow_stats": []}
        for group, timed, _ in self.groups():
            ids["latency" if timed else "flow_stats"].append(group)
        return {"ids": ids}

    def do_get_pgid_stats(self, given):
        flows, latency, errors = {"g": {}}, {"g": {}}, self.options.get("errors", {})
        for group, timed, sent in self.groups():
            if group == self.options.get("uncounted"):
                continue
            wrong = errors if timed and not any(key != "g" for key in latency) and sent else {}
            arrived = sent + wrong.get("dup", 0) - wrong.get("drp", 0)
            flows[group] = {"tp": {"0": sent, "1": 0}, "rp": {"0": 0, "1": arrived},
                            "tb": {"0": sent * 64, "1": 0}, "rb": {"0": 0, "1": arrived * 64},
                            "tps": {"0": 0, "1": 0}, "rps": {"0": 0, "1": 0},
                            "tbs": {"0": 0, "1": 0}, "rbs": {"0": 0, "1": 0}}  # fmt: skip
            if timed:
                shares = {low: int(arrived * share) for low, share in HISTOGRAM.items()}
                times = {"jit": 1, "average": 20, "total_max": 150, "total_min": 11,
                         "last_max": 150, "histogram": shares}  # fmt: skip
                latency[group] = {"er": wrong, "lat": times}
        return {"flow_stats": flows, "latency": latency, "ver_id": {}}


def bound(socket):
    """Bind to a port of loopback that is free; returns it."""
    for port in range(20000 + time.monotonic_ns() % 10000, 60000):
        try:
            socket.bind(f"tcp://127.0.0.1:{port}")
            return port
        except zmq.ZMQError:
            continue
    raise SystemExit("no free port")


def main():
    options = json.loads(Path(sys.argv[1]).read_text())
    context = zmq.Context()
    requests, publisher = context.socket(zmq.REP), context.socket(zmq.PUB)
    ports = {"port": bound(requests), "async_port": bound(publisher)}
    requests.setsockopt(zmq.RCVTIMEO, 50)
    print(json.dumps(ports), flush=True)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    server = Server(options)
    while not over.is_set():
        publisher.send(b"{}")
        try:
            message = requests.recv()
        except zmq.Again:
            continue
        if not options.get("silent"):
            requests.send(server.reply(message))
    requests.close(linger=0)
    publisher.close(linger=0)


if __name__ == "__main__":
    main()
