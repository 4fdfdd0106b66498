"""Real servers and real clients, each in its namespace, with configurations of their own."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from ftmb.debian import which
from ftmb.endpoints import spec as s
from ftmb.errors import TrialError
from ftmb.testbed.namespaces import Host

PORTS = {"iperf3": 5201, "pages": 8080, "download": 8081, "dns": 53, "ssh": 2222}
NAME, ADDRESS = "www.example.test", "192.0.2.80"
TRY_S = 2
END_S = 30.0  # what is under way when a run ends has so long
LISTENS_S = 20.0
SPARE, SPARE_S = 1.5, 60.0  # of a download, beside how long the run is to take

NGINX = """
daemon off; worker_processes 1; user root; pid {dir}/nginx.pid; error_log {dir}/nginx.err;
events {{ worker_connections 1024; }}
http {{
  access_log off; keepalive_timeout 0;
  client_body_temp_path {dir}/t1; proxy_temp_path {dir}/t2; fastcgi_temp_path {dir}/t3;
  uwsgi_temp_path {dir}/t4; scgi_temp_path {dir}/t5;
  server {{ {listen} root {dir}/www; }}
}}
"""
SSHD = """
Port {port}
ListenAddress {address}
HostKey {dir}/host_key
AuthorizedKeysFile {dir}/user_key.pub
PidFile {dir}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""
SSH_RUN = Path("/run/sshd")  # sshd wants it, and Debian makes it where sshd is a service


@dataclass
class Ends:
    """Both ends of the testbed, and the directory where programs keep their files."""

    client: Host
    server: Host
    address: str  # of the server, as the client sees it
    dir: Path
    undo: ExitStack  # what is to be done when they go


@dataclass
class Load:
    """One workload at work."""

    spec: s.Workload
    out: Path
    start_client: Callable[[], subprocess.Popen[str]]
    client: subprocess.Popen[str] | None = None
    restart_server: Callable[[], None] | None = None
    broken: list[int] = field(default_factory=list)  # when its client ended by itself, ns
    mbps: float | None = None  # what iperf3 is limited to, None: to nothing

    @property
    def kind(self) -> str:
        return self.spec.kind

    def start(self) -> None:
        """Start the client."""
        self.client = self.start_client()

    def tend(self) -> None:
        """A client that ended has lost its connections; it begins anew, as a user would."""
        if self.client is None or self.client.poll() is None:
            return
        if self.kind != "iperf3":
            raise TrialError(f"{self.kind}: its client ended with {self.client.returncode}")
        self.broken.append(time.monotonic_ns())
        if self.restart_server:
            self.restart_server()
        self.start()

    def stop(self) -> None:
        """End the client in order. Raises TrialError if it does not."""
        if self.client is None or self.client.poll() is not None:
            return
        self.client.send_signal(signal.SIGINT if self.kind == "iperf3" else signal.SIGTERM)
        try:
            self.client.wait(END_S)
        except subprocess.TimeoutExpired:
            self.client.kill()
            raise TrialError(f"{self.kind}: its client did not end within {END_S:g} s") from None


def _listening(host: Host, port: int, table: str) -> bool:
    state = "0A" if table == "tcp" else "07"

    def look() -> bool:
        rows = Path("/proc/thread-self/net", table).read_text(encoding="ascii").splitlines()[1:]
        return any(r.split()[1].endswith(f":{port:04X}") and r.split()[3] == state for r in rows)

    return host.inside(look)


def _await_listening(server: subprocess.Popen[str], host: Host, port: int, table: str) -> None:
    deadline = time.monotonic() + LISTENS_S
    while not _listening(host, port, table):
        if server.poll() is not None or time.monotonic() > deadline:
            raise TrialError(f"the server at port {port} does not listen: {server.args!r}")
        time.sleep(0.01)


def _serve(ends: Ends, kind: str, words: list[str], table: str = "tcp") -> subprocess.Popen[str]:
    program = which(words[0])
    assert program is not None, words[0]
    with (ends.dir / f"{kind}.server").open("a", encoding="utf-8") as said:
        server = ends.server.start(
            [program, *words[1:]], stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
    _await_listening(server, ends.server, PORTS[kind], table)
    return server


def _noting(ends: Ends, kind: str, *words: object) -> Callable[[], subprocess.Popen[str]]:
    """A client of ours."""
    command = [sys.executable, "-m", "ftmb.endpoints.client", kind]

    def start() -> subprocess.Popen[str]:
        return ends.client.start(
            [*command, str(ends.dir / f"{kind}.csv"), *map(str, words)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    return start


# -- each kind -----------------------------------------------------------------------------------


def iperf3(ends: Ends, wanted: s.Iperf3) -> Load:
    """The server is there; unless the rate is given, it is tried how much gets through."""
    port = str(PORTS["iperf3"])
    serving: list[subprocess.Popen[str]] = []

    def serve() -> None:
        for server in serving:
            server.kill()
            server.wait()
        serving[:] = [_serve(ends, "iperf3", ["iperf3", "-s", "-4", "-p", port])]

    serve()
    base = ["iperf3", "-c", ends.address, "-p", port, "-P", str(wanted.connections), "-J"]
    mbps = wanted.mbps
    if mbps is None and wanted.capacity < 1:
        told = json.loads(ends.client.run([*base, "-t", str(TRY_S)]))
        mbps = told["end"]["sum_received"]["bits_per_second"] / 1e6 * wanted.capacity
    limit = [] if mbps is None else ["--fq-rate", str(round(mbps * 1e6 / wanted.connections))]
    out = ends.dir / "iperf3.json"

    def start() -> subprocess.Popen[str]:
        with out.open("a", encoding="utf-8") as file:
            words = [*base, *limit, "-t", str(s.MOST_S)]
            return ends.client.start(words, stdin=subprocess.DEVNULL, stdout=file, stderr=file)

    return Load(wanted, out, start, restart_server=serve, mbps=mbps)


def _www(ends: Ends, name: str, size: int) -> str:
    """A file for nginx, the same in each run; its SHA-256."""
    path, digest, left = ends.dir / "www" / name, hashlib.sha256(), size
    path.parent.mkdir(exist_ok=True)
    draw = random.Random(size)
    with path.open("wb") as file:
        while left:
            block = draw.randbytes(min(left, 1 << 20))
            file.write(block)
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def _nginx(ends: Ends, kind: str) -> None:
    """One server for each kind, so that each has its port."""
    place = ends.dir / f"nginx-{kind}"
    place.mkdir()
    (place / "www").symlink_to(ends.dir / "www")
    text = NGINX.format(dir=place, listen=f"listen {ends.address}:{PORTS[kind]};")
    (place / "nginx.conf").write_text(text, encoding="utf-8")
    _serve(ends, kind, ["nginx", "-p", str(place), "-c", str(place / "nginx.conf")])


def pages(ends: Ends, wanted: s.Pages) -> Load:
    """nginx, and loads of one page."""
    digest = _www(ends, "page", wanted.bytes)
    _nginx(ends, "pages")
    words = (ends.address, PORTS["pages"], wanted.per_s, "/page", digest)
    return Load(wanted, ends.dir / "pages.csv", _noting(ends, "pages", *words))


def download(ends: Ends, wanted: s.Download, duration_s: float) -> Load:
    """nginx, and one file that takes longer than the run, which kills put off may prolong."""
    _www(ends, "file", round(wanted.mb_per_s * 1e6 * (SPARE * duration_s + SPARE_S)))
    original = ends.dir / "www" / "file"
    _nginx(ends, "download")
    words = (ends.address, PORTS["download"], wanted.mb_per_s * 1e6, "/file", original)
    return Load(wanted, ends.dir / "download.csv", _noting(ends, "download", *words))


def dns(ends: Ends, wanted: s.Dns) -> Load:
    """dnsmasq, which knows one name."""
    _serve(
        ends, "dns",
        ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
         "--pid-file", "--user=root", "--bind-interfaces", f"--listen-address={ends.address}",
         f"--address=/{NAME}/{ADDRESS}"],
        "udp",
    )  # fmt: skip
    words = (ends.address, PORTS["dns"], wanted.per_s, NAME, ADDRESS)
    return Load(wanted, ends.dir / "dns.csv", _noting(ends, "dns", *words))


def _keygen(words: list[str]) -> None:
    try:
        done = subprocess.run(
            words, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise TrialError(f"ssh: {words[0]}: {error.strerror}") from None
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise TrialError(f"ssh: {words[0]}: {said}")


def _make_ssh_run(undo: ExitStack) -> None:
    """The directory that sshd wants, unless it is there; it goes again, unless others use it."""
    try:
        SSH_RUN.mkdir(mode=0o755)
    except FileExistsError:
        return

    def remove() -> None:
        with suppress(OSError):
            SSH_RUN.rmdir()

    undo.callback(remove)


def ssh(ends: Ends, wanted: s.Ssh) -> Load:
    """sshd with keys made for this run; `cat` at the far end of a session."""
    port, place = PORTS["ssh"], ends.dir / "ssh"
    place.mkdir(mode=0o700)
    for key in ("host_key", "user_key"):
        words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / key)]
        _keygen(words)
    kind, key = (place / "host_key.pub").read_text(encoding="ascii").split()[:2]
    known = place / "known_hosts"
    known.write_text(f"[{ends.address}]:{port} {kind} {key}\n", encoding="ascii")
    config = place / "sshd_config"
    config.write_text(SSHD.format(port=port, address=ends.address, dir=place), encoding="utf-8")
    _make_ssh_run(ends.undo)
    _serve(ends, "ssh", ["sshd", "-D", "-e", "-f", str(config)])
    session = [
        "ssh", "-F", "none", "-T", "-p", str(port), "-i", str(place / "user_key"),
        "-o", "BatchMode=yes", "-o", f"UserKnownHostsFile={known}", "-o", "IdentitiesOnly=yes",
        f"{pwd.getpwuid(os.getuid()).pw_name}@{ends.address}", "cat",
    ]  # fmt: skip
    start = _noting(ends, "echo", wanted.per_s, *session)
    return Load(wanted, ends.dir / "echo.csv", start)


def acquaint(ends: Ends) -> None:
    """Send until something comes back: who has to ask for a next hop first may drop what made it
    ask. A port where nobody listens refuses, which is an answer."""
    deadline = time.monotonic() + LISTENS_S

    def refused() -> bool:
        try:
            socket.create_connection((ends.address, 9), 0.2).close()
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
        return True

    while not ends.client.inside(refused):
        if time.monotonic() > deadline:
            raise TrialError(f"nothing comes back from {ends.address} through the middlebox")


def prepare(ends: Ends, wanted: s.EndpointsSpec) -> list[Load]:
    """Servers of all workloads, which listen when this returns; clients that can be started."""
    acquaint(ends)
    loads = []
    for each in wanted.workloads:
        match each:
            case s.Iperf3():
                loads.append(iperf3(ends, each))
            case s.Pages():
                loads.append(pages(ends, each))
            case s.Download():
                loads.append(download(ends, each, wanted.duration_s))
            case s.Dns():
                loads.append(dns(ends, each))
            case s.Ssh():
                loads.append(ssh(ends, each))
    return loads
