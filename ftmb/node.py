"""Placement and node specs: from one trial spec to the JSON file of each process."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ftmb import filling
from ftmb.errors import MachineError
from ftmb.generators import ground
from ftmb.spec import Placement, Processes, TrialSpec

# Memory of a process's packet buffers (EAL's -m). Buffers in a dead peer's ring stay there until
# the port is closed, so pools are sized for that; logs and arena are outside of it.
MEMORY_MB = 768
LOGGER_ROLES = ("traffic", "il", "ol")


@dataclass(frozen=True)
class Plan:
    """Where everything runs: resolved `auto`s of a spec. `processes` is role to process name."""

    placement: Placement
    processes: dict[str, str]
    idle: str
    replicas: int
    cpus: list[int]

    def logger_names(self) -> list[str]:
        """The processes that hold traffic and loggers, in a fixed order."""
        return list(dict.fromkeys(self.processes.values()))

    @property
    def traffic_name(self) -> str:
        """The process that generates traffic; empty where interfaces take its place."""
        return self.processes.get("traffic", "")


def available_cpus() -> list[int]:
    """CPU numbers this process may use, ascending."""
    return sorted(os.sched_getaffinity(0))


def _auto_placement(workers: int, cpus: list[int]) -> Placement:
    """Few CPUs: the loggers share the first, the workers the others. Four and more: each logger
    role its own."""
    if len(cpus) >= 4:
        traffic, il, ol, *rest = cpus
    else:
        traffic = il = ol = cpus[0]
        rest = cpus[1:] or cpus
    spread = [rest[i % len(rest)] for i in range(workers)]
    return Placement(traffic=traffic, il=il, ol=ol, workers=spread)


def _roles(spec: TrialSpec) -> tuple[str, ...]:
    if spec.interfaces or spec.traffic.external:
        return ("il", "ol")
    return ("traffic",) if spec.ft.mode in ("direct", "floor") else LOGGER_ROLES


def _processes(spec: TrialSpec) -> dict[str, str]:
    roles = _roles(spec)
    if spec.traffic.external:
        return {"traffic": spec.traffic.generator} | dict.fromkeys(roles, "loggers")
    if isinstance(spec.processes, Processes):
        return {role: getattr(spec.processes, role) for role in roles}
    if spec.testbed != "local" and len(roles) > 1:
        return {"traffic": "gen", "il": "il", "ol": "ol"}  # a host each
    if any(role in ("il", "ol") for fault in spec.faults for role in fault.roles):
        # What is killed or stopped must not take the generator or the other logger with it.
        return {"traffic": "gen", "il": "il", "ol": "ol"}
    name = "traffic" if roles == ("traffic",) else "loggers"
    return dict.fromkeys(roles, name)


def make_plan(spec: TrialSpec, cpus: list[int] | None = None) -> Plan:
    """Resolve placement, processes and idling. Raises MachineError for a CPU that is not there."""
    cpus = cpus if cpus is not None else available_cpus()
    if isinstance(spec.placement, Placement):
        placement = spec.placement
    else:
        placement = _auto_placement(spec.workers, cpus)
    roles = _roles(spec)
    workers = placement.workers if spec.ft.mode != "floor" else []
    wanted = [getattr(placement, role) for role in roles] + workers
    missing = sorted(set(wanted) - set(cpus))
    if missing:
        raise MachineError(
            f"placement: CPU {missing[0]} is not available here (there are "
            f"{', '.join(map(str, cpus))}); correct placement, or set it to auto"
        )
    processes = _processes(spec)
    pollers = len({(processes[r], getattr(placement, r)) for r in roles}) + len(workers)
    idle: str = spec.idle
    if idle == "auto":
        # One CPU stays for what does not poll: streamers, heart-beats, a standby, the kernel.
        alone = len(set(wanted)) == pollers
        idle = "poll" if alone and pollers < len(cpus) else "yield"
    # In mode floor the generator sends straight to the sink: there is nothing in between.
    replicas = {"ftmb": 1 + spec.backups, "floor": 0}.get(spec.ft.mode, 1)
    return Plan(placement, processes, idle, replicas, sorted(set(wanted)))


def _ft_section(spec: TrialSpec) -> dict[str, Any]:
    ft = spec.ft
    return {
        "release": ft.release,
        "reads": ft.reads,
        "pal_batch": ft.pal_batch,
        "engine": ft.snapshot.engine,
        "schedule": ft.snapshot.schedule,
        "period_us": round(ft.snapshot.period_ms * 1000),
        "log_mb": ft.snapshot.log_mb,
        "replay_target_us": round(ft.snapshot.replay_target_ms * 1000),
        "undo_mb": ft.snapshot.undo_mb,
        "full_mb_per_s": ft.snapshot.full_mb_per_s,
        "detect_ms": ft.detect_ms,
        "heir_ms": ft.heir_ms,
        "peer_ms": ft.peer_ms,
        "check": ft.check,
    }


def _common(spec: TrialSpec, plan: Plan, nf: dict[str, Any], run_dir: Path, out: Path) -> Any:
    tree = {
        "version": 1,
        "dir": str(run_dir),
        "out": str(out),
        "mode": spec.ft.mode,
        "workers": spec.workers,
        "replicas": max(1, plan.replicas),
        "idle": plan.idle,
        "memory_mb": MEMORY_MB,
        "nf": nf,
        "ft": _ft_section(spec),
        "log": spec.log.model_dump(),
        "when_full": "wait" if spec.traffic.rate_pps == "max" else "refuse",
        "groups": {"traffic": plan.traffic_name, **plan.processes},
    }
    if names := ground.interfaces(spec):
        tree["interfaces"] = names
    if spec.links.lie:
        tree["links"] = {"seed": spec.traffic.seed} | {
            name: link.model_dump() for name, link in spec.links if link.lies
        }
    return tree


def traffic_section(spec: TrialSpec, prepared: dict[str, Any], out: Path) -> dict[str, Any]:
    """The `traffic` section. `prepared`: template, capture, inside, from the profile."""
    traffic = spec.traffic
    return {
        "rate_pps": 0 if traffic.rate_pps == "max" else traffic.rate_pps,
        "warmup_ms": round(spec.warmup_s * 1000),
        "duration_ms": round(spec.duration_s * 1000),
        "drain_ms": round(spec.drain_s * 1000),
        "flows": traffic.flows,
        "fill_pps": traffic.fill_pps if traffic.fill else 0,
        "fill_silence_ms": filling.GIVE_UP_S * 1000,
        "zipf": traffic.zipf,
        "new_flows_per_s": traffic.new_flows_per_s,
        "reply_share": traffic.reply_share,
        "seed": traffic.seed,
        "histogram": str(out / "histogram.json"),
        "timeline": str(out / "timeline.csv"),
        "samples": str(out / "samples.bin") if traffic.samples else "",
        "noise": str(out / "noise.json"),
        **prepared,
    }


def logger_spec(
    group: str,
    name: str,
    spec: TrialSpec,
    plan: Plan,
    nf: dict[str, Any],
    run_dir: Path,
    out: Path,
    traffic: dict[str, Any],
) -> dict[str, Any]:
    """Node spec of the process `name`, which holds traffic or loggers as the plan's `group`."""
    if spec.traffic.external and group == plan.traffic_name:
        return ground.child_spec(spec, traffic)
    by_cpu: dict[int, list[str]] = {}
    for role, process in plan.processes.items():
        if process == group:
            by_cpu.setdefault(getattr(plan.placement, role), []).append(role)
    tree = _common(spec, plan, nf, run_dir, out)
    tree["process"] = name
    tree["lcores"] = [{"cpu": cpu, "roles": roles} for cpu, roles in by_cpu.items()]
    if group == plan.traffic_name:
        tree["noise_cpus"] = plan.cpus
        tree["traffic"] = traffic
    return dict(tree)


def replica_spec(
    name: str, slot: int, spec: TrialSpec, plan: Plan, nf: dict[str, Any], run_dir: Path, out: Path
) -> dict[str, Any]:
    """Node spec of the replica in `slot`: one lcore per worker, several may share a CPU."""
    tree = _common(spec, plan, nf, run_dir, out)
    tree["process"] = name
    tree["slot"] = slot
    tree["lcores"] = [
        {"cpu": cpu, "roles": [f"worker:{worker}"]}
        for worker, cpu in enumerate(plan.placement.workers)
    ]
    return dict(tree)


def write_spec(tree: dict[str, Any], out: Path) -> Path:
    """Write a node spec as <process>.json; returns its path."""
    path = out / f"{tree['process']}.json"
    path.write_text(json.dumps(tree, indent=2) + "\n", encoding="utf-8")
    return path
