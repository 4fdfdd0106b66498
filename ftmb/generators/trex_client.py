"""The official client of a TRex server, and what it refuses in one line with the remedy.

The client replaces modules that are loaded already (scapy, yaml, zmq) by its own, old ones: only
`ftmb.generators.child` and `main` below, programs of their own, may import it.
"""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

from ftmb.errors import FtmbError, MachineError

PACKAGE = "lbr-trex-client"
OLD = "trex-stl-lib"


def _modules() -> tuple[Any, str]:
    """The API's module, and which package it is of."""
    warnings.filterwarnings("ignore")  # of regular expressions and thread names, as old as it is
    for first, name, package in (
        ("lbr_trex_client", "trex.stl.api", PACKAGE),
        ("trex.stl.api", "trex.stl.api", "a TRex release"),
        ("trex_stl_lib.api", "trex_stl_lib.api", OLD),
    ):
        try:
            importlib.import_module(first)
            return importlib.import_module(name), package
        except ImportError:
            continue
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    raise MachineError(
        f"traffic.generator trex: its client does not load with this Python {version} (it works up "
        f"to 3.11); install it with `.venv/bin/pip install {PACKAGE}`"
    )


def _words(error: Exception) -> str:
    """What the client says, on one line."""
    text = str(getattr(error, "brief", lambda: error)())
    return " ".join(text.replace("***", " ").split())


class Server:
    """A connection to a TRex server. Every call ends after a few times `timeout_s` at most."""

    def __init__(self, trex: dict[str, Any]) -> None:
        """trex: the spec's section `traffic.trex`. Raises MachineError without a client."""
        self.api, self.package = _modules()
        self._trex = trex
        self.at = f"TRex at {trex['server']}:{trex['port']}"
        options = {"sync_timeout": trex["timeout_s"], "async_timeout": trex["timeout_s"]}
        if self.package == OLD:
            options = {}  # it knows none, and waits for 3 s
        self.client = self.api.STLClient(
            username=trex["user"],
            server=trex["server"],
            sync_port=trex["port"],
            async_port=trex["async_port"],
            verbose_level=0 if self.package == OLD else "none",
            **options,
        )

    def fail(self, what: str) -> MachineError:
        """An error about this server."""
        return MachineError(f"{self.at}: {what}")

    def connect(self) -> str:
        """Reach it; returns its version. Raises MachineError."""
        version = self._probe() if hasattr(self.client, "probe_server") else "?"
        try:
            self.client.connect()
        except self.api.STLError as error:
            raise self._refused(version, _words(error)) from None
        return version

    def _probe(self) -> str:
        try:
            told = self.client.probe_server()
        except self.api.STLError:
            told = None
        if not isinstance(told, dict):
            raise self.fail(
                f"no answer within {self._trex['timeout_s']:g} s; is a server running there "
                "(`./t-rex-64 -i`), and may this machine reach the port (traffic.trex.port)?"
            )
        if told.get("mode", "STL") != "STL":
            raise self.fail(
                f"it runs in mode {told['mode']}, this needs the stateless one; start it as "
                "`./t-rex-64 -i`"
            )
        return str(told.get("version", "?"))

    def _refused(self, version: str, words: str) -> MachineError:
        if self.package == OLD:
            return self.fail(
                f"it refuses {OLD}, whose protocol is that of servers before 2.50; install "
                f"`.venv/bin/pip install {PACKAGE}` ({words})"
            )
        return self.fail(
            f"its version {version} refuses this client ({words}); take a server whose API the "
            f"client {self.package} speaks (TRex 3), or the client of its release"
        )

    def acquire(self) -> None:
        """Take both ports, with nothing on them. Raises MachineError."""
        ports = self._trex["ports"]
        there = self.client.get_all_ports()
        for port in ports:
            if port not in there:
                raise self.fail(
                    f"it has the ports {', '.join(map(str, there))}, and no port {port}; name two "
                    "of them (traffic.trex.ports)"
                )
        try:
            self.client.acquire(ports=ports, force=self._trex["force"])
        except self.api.STLError as error:
            raise self.fail(
                f"ports {ports[0]} and {ports[1]} are not to be had ({_words(error)}); release "
                "them there, or set traffic.trex.force"
            ) from None
        for port in ports:
            if not self.client.ports[port].is_up():
                raise self.fail(
                    f"its port {port} is down; check the cable and the interface at its other end"
                )

    def close(self) -> None:
        """Stop, release and hang up. Never raises."""
        try:
            if self.client.is_connected():
                self.client.disconnect(stop_traffic=True, release_ports=True)
        except Exception:
            pass  # it is gone, or was never there


def main(words: list[str]) -> int:
    """`python -m ftmb.generators.trex_client TREX.json`: connect, and print the version."""
    try:
        server = Server(json.loads(Path(words[0]).read_text(encoding="utf-8")))
        try:
            print(f"version {server.connect()}")
        finally:
            server.close()
    except FtmbError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
