"""`ftmb doctor`: what this machine can run, and for what is missing the command that mends it."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Literal

from rich.console import Console
from rich.table import Table

from ftmb import environment, lock
from ftmb.debian import which
from ftmb.describe import describe, node_path
from ftmb.endpoints.programs import PROGRAMS
from ftmb.errors import FtmbError
from ftmb.node import MEMORY_MB, available_cpus
from ftmb.traffic_spec import TrexSpec

Status = Literal["ok", "note", "missing"]
PACKAGES = (
    "pydantic",
    "PyYAML",
    "rich",
    "scapy",
    "numpy",
    "pandas",
    "matplotlib",
    "seaborn",
    "Jinja2",
    "snakemake",
    "meson",
    "ninja",
)
CLIENT = "lbr-trex-client"
LIBRARIES = {
    "libdpdk": "libdpdk-dev",
    "jansson": "libjansson-dev",
    "libpcap": "libpcap-dev",
    "libhs": "libhyperscan-dev",
}
# Loggers, master and backup: packet buffers, both logs at the defaults, arena and two copies.
NEEDED_MB = 3 * MEMORY_MB + 1024
# Both logs at the defaults, and a base for each replica.
NEEDED_DIR_MB = 1024


@dataclass(frozen=True)
class Finding:
    """One line of the doctor. `missing` keeps the quick tier from running; `note` does not."""

    name: str
    status: Status
    found: str
    remedy: str = ""


def _python() -> Finding:
    # No test of the version: an older one could not have read this file's neighbours.
    return Finding("python", "ok", platform.python_version())


def _packages() -> Finding:
    absent = []
    for name in PACKAGES:
        try:
            metadata.version(name)
        except metadata.PackageNotFoundError:
            absent.append(name)
    if absent:
        return Finding("packages", "missing", f"without {', '.join(absent)}", "make setup")
    return Finding("packages", "ok", f"all {len(PACKAGES)}")


def _library(module: str, package: str) -> Finding:
    remedy = f"sudo apt-get install {package}"
    if shutil.which("pkg-config") is None:
        return Finding(module, "missing", "no pkg-config to ask", "sudo apt-get install pkg-config")
    answer = subprocess.run(
        ["pkg-config", "--modversion", module], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        return Finding(module, "missing", "not installed", remedy)
    return Finding(module, "ok", answer.stdout.strip())


def _compiler() -> Finding:
    path = shutil.which("cc") or shutil.which("gcc")
    if path is None:
        return Finding("compiler", "missing", "no C compiler", "sudo apt-get install gcc libc6-dev")
    return Finding("compiler", "ok", path)


def _binary() -> Finding:
    try:
        description = describe()
    except FtmbError as error:
        return Finding("data plane", "missing", str(error).partition(": ")[0], "make build")
    names = ", ".join(nf.name for nf in description.nfs)
    return Finding("data plane", "ok", f"{node_path().name} {description.version} ({names})")


def _engines() -> list[Finding]:
    """The snapshot engine that needs more than any Linux has."""
    try:
        engines = describe().engines
    except FtmbError:
        return []  # there is no data plane to ask, and `_binary` says so
    found = []
    for engine in engines:
        if engine.missing:
            remedy = "take a Linux kernel from 6.7 on" if engine.name == "page" else ""
            text = f"not here: {engine.missing}; trials with it are left out"
            found.append(Finding(f"engine {engine.name}", "note", text, remedy))
        elif engine.name == "page":
            found.append(Finding("engine page", "ok", "the kernel finds dirty pages"))
    return found


def _cores() -> Finding:
    count = len(available_cpus())
    if count >= 4:
        return Finding("cores", "ok", str(count))
    # No command mends this; the report states it, and trials yield the shared cores.
    return Finding("cores", "note", f"{count}: roles share cores and yield; enough for quick")


def _memory() -> Finding:
    free = environment.memory_mb("MemAvailable")
    if free >= NEEDED_MB:
        return Finding("memory", "ok", f"{free} MB available")
    remedy = "end what uses it (ps aux --sort=-rss | head), or take a larger machine"
    return Finding("memory", "missing", f"{free} MB available, {NEEDED_MB} needed", remedy)


def _runtime_directory() -> Finding:
    """Where a trial keeps its sockets and what survives its processes: logs, view, bases."""
    base = lock.runtime_bases()[0]
    stat = os.statvfs(base)
    free = stat.f_bavail * stat.f_frsize >> 20
    found = f"{base}, {free} MB free"
    if free < NEEDED_DIR_MB:
        remedy = "sudo mount -o remount,size=4G /dev/shm"
        if base != lock.SHARED_MEMORY:
            remedy = f"free some room in {base}, or sudo mount -t tmpfs tmpfs {lock.SHARED_MEMORY}"
        return Finding("runtime directory", "missing", f"{found}, {NEEDED_DIR_MB} needed", remedy)
    if not lock.on_tmpfs(base):
        remedy = f"sudo mount -t tmpfs tmpfs {lock.SHARED_MEMORY}"
        return Finding("runtime directory", "note", f"{found}; a disk, a write may wait", remedy)
    return Finding("runtime directory", "ok", f"{found}, in memory")


def _huge_pages() -> Finding:
    policy = environment.thp()
    if policy in ("always", "madvise"):
        return Finding("huge pages", "ok", f"transparent: {policy}")
    remedy = "echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled"
    return Finding("huge pages", "note", f"transparent: {policy}; death is seen later", remedy)


def _clock() -> Finding:
    source = environment.clocksource()
    if source == "tsc":
        return Finding("clock source", "ok", source)
    remedy = "echo tsc | sudo tee /sys/devices/system/clocksource/clocksource0/current_clocksource"
    return Finding("clock source", "note", f"{source}; reading it costs more than tsc", remedy)


def _governor() -> Finding:
    mode = environment.governor(available_cpus()[0])
    if mode in (None, "performance"):
        return Finding("frequency", "ok", mode or "not visible here (a virtual machine)")
    remedy = "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"
    return Finding("frequency", "note", f"governor {mode}; latencies will vary", remedy)


def _real_time() -> Finding:
    soft, _ = resource.getrlimit(resource.RLIMIT_RTPRIO)
    if os.geteuid() == 0 or soft != 0:
        return Finding("real time", "ok", "allowed for noise meters and death watches")
    remedy = f"sudo prlimit --pid $$ --rtprio=10  # then in this shell; user {os.getuid()}"
    return Finding("real time", "note", "not allowed; noise meters wait their turn", remedy)


def _optional(name: str, programs: tuple[str, ...], why: str, remedy: str) -> Finding:
    for program in programs:
        path = which(program)
        if path:
            return Finding(name, "ok", path)
    return Finding(name, "note", f"not installed; {why}", remedy)


def _endpoints() -> list[Finding]:
    """The programs that stand at the ends of a middlebox in `ftmb endpoints`."""
    return [
        _optional(
            program,
            (program,),
            f"`ftmb endpoints` with {kind} needs it",
            f"sudo apt-get install {package}",
        )
        for kind, wanted in PROGRAMS.items()
        for program, package in wanted.items()
        if kind != "download"  # nginx, as for pages
    ]


def _netns() -> Finding:
    """Whether two hosts and a cable between them can be made: they are, and taken away."""
    name = "testbed netns"
    try:
        from ftmb.testbed import namespaces

        with namespaces.network() as net:
            net.cable(net.host("doctor1"), "data0", net.host("doctor2"), "data0")
    except ImportError as error:
        return Finding(name, "note", str(error), "make setup")
    except FtmbError as error:
        return Finding(name, "note", str(error), "run as root, on a kernel with veth; or local")
    return Finding(name, "ok", "network namespaces and veth")


def _left_overs() -> Finding:
    found = lock.left_overs()
    if found:
        names = ", ".join(f"{process.name} (pid {process.pid})" for process in found)
        pids = " ".join(str(process.pid) for process in found)
        return Finding("left over", "missing", names, f"kill {pids}")
    pid = lock.holder()
    if pid is not None:
        return Finding(
            "left over", "note", f"a trial or a middlebox is running (pid {pid or 'unknown'})"
        )
    return Finding("left over", "ok", "nothing of an earlier run")


def _trex_client() -> Finding:
    try:
        return Finding("TRex client", "ok", f"{CLIENT} {metadata.version(CLIENT)}")
    except metadata.PackageNotFoundError:
        what = "not installed; needed only for traffic.generator trex"
        return Finding("TRex client", "note", what, f".venv/bin/pip install {CLIENT}")


def trex_server(address: str) -> Finding:
    """Whether a TRex server answers at `NAME[:PORT]`. Waits for it 15 s at most."""
    host, _, port = address.partition(":")
    try:
        number = int(port or TrexSpec().port)
        given = TrexSpec(server=host, port=number)
    except ValueError:
        return Finding("TRex server", "note", f"{address} is no address", "give NAME or NAME:PORT")
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(given.model_dump_json())
        file.flush()
        command = [sys.executable, "-m", "ftmb.generators.trex_client", file.name]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
        except subprocess.TimeoutExpired:
            return Finding("TRex server", "note", f"{address} answers too slowly", "look there")
    if done.returncode == 0:
        return Finding("TRex server", "ok", f"{address}, {done.stdout.strip()}")
    said, _, remedy = (done.stderr.strip().splitlines() or ["no reason told"])[-1].partition("; ")
    return Finding("TRex server", "note", said, remedy)


def examine() -> list[Finding]:
    """Look at everything. Starts nothing but pkg-config and `ftmb-node --describe`."""
    return [
        _python(),
        _packages(),
        _compiler(),
        *(_library(module, package) for module, package in LIBRARIES.items()),
        _binary(),
        *_engines(),
        _cores(),
        _memory(),
        _runtime_directory(),
        _huge_pages(),
        _clock(),
        _governor(),
        _real_time(),
        _left_overs(),
        _netns(),
        _optional(
            "network namespaces",
            ("ip", "/usr/sbin/ip", "/sbin/ip"),
            "needed for real endpoints, and to make a capture anew",
            "sudo apt-get install iproute2",
        ),
        *_endpoints(),
        *(
            _optional(
                name,
                (program,),
                "needed only by ftmb peers",
                f"sudo apt-get install {name}",
            )
            for name, program in (
                ("nftables", "nft"),
                ("conntrackd", "conntrackd"),
                ("keepalived", "keepalived"),
            )
        ),
        _optional(
            "chromium",
            ("chromium", "chromium-browser", "google-chrome"),
            "needed only to look at the report in tests",
            "sudo apt-get install chromium",
        ),
        _trex_client(),
    ]


def can_run(findings: list[Finding]) -> bool:
    """True if nothing is missing that the quick tier needs."""
    return all(finding.status != "missing" for finding in findings)


def main(as_json: bool, trex: str | None = None) -> int:
    """Print the findings, also of a TRex server. 0 if the quick tier can run here, else 1."""
    findings = examine() + ([] if trex is None else [trex_server(trex)])
    able = can_run(findings)
    if as_json:
        tree = {"quick": able, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(tree, indent=2))
        return 0 if able else 1
    marks = {"ok": "ok", "note": "note", "missing": "MISSING"}
    if sys.stdout.isatty():
        table = Table("", "", "found", "remedy", box=None, pad_edge=False)
        styles = {"ok": "green", "note": "yellow", "missing": "bold red"}
        for f in findings:
            table.add_row(f"[{styles[f.status]}]{marks[f.status]}[/]", f.name, f.found, f.remedy)
        Console().print(table)
    else:
        for f in findings:
            remedy = f"\n{'':<9}mend with: {f.remedy}" if f.remedy else ""
            print(f"{marks[f.status]:<8} {f.name}: {f.found}{remedy}")
    missing = [finding.name for finding in findings if finding.status == "missing"]
    print("the quick tier can run" if able else f"the quick tier cannot run: {', '.join(missing)}")
    return 0 if able else 1
