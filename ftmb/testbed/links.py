"""Which hosts a trial needs, and which of them its data links connect. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass

from ftmb.node import Plan
from ftmb.testbed.local import replica_host

# What an interface between hosts must let through: a role's frame and its head, native/io/trunk.h.
MTU = 1930


@dataclass(frozen=True)
class Cable:
    """Two hosts, `a` before `b`, and the links between them."""

    a: str
    b: str
    links: tuple[str, ...]


def hosts(plan: Plan) -> list[str]:
    """All hosts: those of the generator and of the loggers, then a replica's each."""
    return plan.logger_names() + [replica_host(slot) for slot in range(plan.replicas)]


def cables(plan: Plan) -> list[Cable]:
    """Pairs of hosts that have data links to each other, in a fixed order."""
    at = plan.processes
    ends = []
    if "il" in at:
        ends += [("traffic-il", at["traffic"], at["il"]), ("traffic-ol", at["traffic"], at["ol"])]
    for slot in range(plan.replicas):  # without loggers the generator takes their places
        for role in ("il", "ol"):
            near = at.get(role, at["traffic"])
            ends.append((f"{role}-{slot}", near, replica_host(slot)))
    pairs: dict[tuple[str, str], list[str]] = {}
    for link, near, far in ends:
        if near != far:
            pairs.setdefault((near, far), []).append(link)
    return [Cable(a, b, tuple(links)) for (a, b), links in pairs.items()]
