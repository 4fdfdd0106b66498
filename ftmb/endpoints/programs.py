"""Programs of other people that stand at the ends, and the Debian packages they come in."""

from __future__ import annotations

from ftmb.debian import which

# Programs behind each kind, and the Debian packages that they come in.
PROGRAMS: dict[str, dict[str, str]] = {
    "iperf3": {"iperf3": "iperf3"},
    "pages": {"nginx": "nginx-light"},
    "download": {"nginx": "nginx-light"},
    "dns": {"dnsmasq": "dnsmasq-base"},
    "ssh": {
        "sshd": "openssh-server",
        "ssh": "openssh-client",
        "ssh-keygen": "openssh-client",
    },
}


def missing(kinds: list[str]) -> list[tuple[str, str]]:
    """Programs that these workloads need and this machine lacks, with their Debian packages."""
    wanted = {p: package for kind in kinds for p, package in PROGRAMS[kind].items()}
    return [(p, package) for p, package in wanted.items() if which(p) is None]
