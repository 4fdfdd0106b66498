"""The trial spec: what a user writes in SPEC.yaml, checked. An unknown key is an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ftmb import exporter
from ftmb.errors import SpecError
from ftmb.fault_spec import FaultSpec, LinkSpec, LinksSpec, RepeatSpec
from ftmb.generators import kinds
from ftmb.model import Model
from ftmb.snapshot_spec import SnapshotSpec
from ftmb.traffic_spec import TrafficSpec, TrexSpec
from ftmb.unique_yaml import parse_yaml


class NfSpec(BaseModel):
    """The network function. Its own parameters stand beside `name`; the data plane knows them."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True)

    name: str = Field("monitor", description="network function, one of `ftmb-node --describe`")

    @property
    def params(self) -> dict[str, Any]:
        """The parameters given, without the name."""
        return dict(self.model_extra or {})


class FtSpec(Model):
    mode: Literal["ftmb", "none", "direct", "floor"] = Field(
        "ftmb",
        description="none: same hops, nothing logged; direct: no loggers; floor: no function",
    )
    release: Literal["max", "exact"] = Field("max", description="dependency vector of an output")
    reads: Literal["optimistic", "locked"] = Field(
        "optimistic", description="read accesses; locked is the paper's way"
    )
    pal_batch: bool = Field(True, description="PALs of a burst share a frame")
    snapshot: SnapshotSpec = Field(default_factory=SnapshotSpec)
    detect_ms: int = Field(100, ge=5, description="silence after which the master is suspected")
    heir_ms: int = Field(
        20_000,
        ge=0,
        le=3_600_000,
        description="master dead, nobody eligible: how long a process that holds the base is "
        "waited for",
    )
    peer_ms: int = Field(
        20_000, ge=1, le=3_600_000, description="how long a dead logger's return is waited for"
    )
    check: bool = Field(True, description="compare the state digests of master and backup")


class Placement(Model):
    """CPU numbers. Roles of one process on one CPU share an lcore; each worker has its own."""

    traffic: int = Field(ge=0)
    il: int = Field(ge=0)
    ol: int = Field(ge=0)
    workers: list[int] = Field(min_length=1)


class Processes(Model):
    """Which process holds which role. Replicas are always processes of their own."""

    traffic: str = Field(pattern=r"^[a-z][a-z0-9_]{0,15}$")
    il: str = Field(pattern=r"^[a-z][a-z0-9_]{0,15}$")
    ol: str = Field(pattern=r"^[a-z][a-z0-9_]{0,15}$")


class Interfaces(Model):
    """The middlebox's own network interfaces, by side. Whoever stands on a side is not asked."""

    inside: str = Field(pattern=r"^[^/\s]{1,15}$", description="towards those that are served")
    outside: str = Field(pattern=r"^[^/\s]{1,15}$", description="towards the rest of the world")

    @model_validator(mode="after")
    def _two(self) -> Interfaces:
        if self.inside == self.outside:
            raise ValueError(f"a middlebox stands between two interfaces, not at {self.inside}")
        return self


class LogSpec(Model):
    """Bounds of the logs, per worker. At the bound input is refused, and the record says so."""

    input_mb: int = Field(
        64, ge=1, le=16384, description="input log, megabytes per worker, a power of two"
    )
    pals: int = Field(4_194_304, description="PALs per worker, a power of two")
    outputs: int = Field(1_048_576, description="outputs per worker, a power of two")

    @model_validator(mode="after")
    def _powers(self) -> LogSpec:
        for name, least in (("input_mb", 1), ("pals", 4096), ("outputs", 1024)):
            value = getattr(self, name)
            if value < least or value & (value - 1):
                raise ValueError(f"{name} is a power of two, at least {least}, not {value}")
        return self


class TrialSpec(Model):
    nf: NfSpec = Field(default_factory=NfSpec)
    ft: FtSpec = Field(default_factory=FtSpec)
    workers: int = Field(2, ge=1, description="workers of a replica; more than CPUs: they yield")
    backups: int = Field(1, ge=1, le=3, description="standby replicas (mode ftmb)")
    testbed: Literal["local", "netns"] = Field(
        "local",
        description="local: all processes on this machine; netns: each on a host of its own, which "
        "is a network namespace (needs root)",
    )
    interfaces: Interfaces | None = Field(
        None, description="inside and outside, for `ftmb up` and for the generator trex"
    )
    metrics: str | None = Field(None, description="for `ftmb up`: serve them at ADDRESS:PORT, too")
    idle: Literal["auto", "yield", "poll"] = Field(
        "auto", description="what an empty poll does; auto: poll where every lcore has its CPU"
    )
    placement: Literal["auto"] | Placement = Field("auto", description="CPU numbers of the roles")
    processes: Literal["auto"] | Processes = Field("auto", description="process of each role")
    traffic: TrafficSpec = Field(default_factory=TrafficSpec)
    warmup_s: float = Field(0.5, ge=0, le=3600, description="traffic before the window")
    duration_s: float = Field(5, gt=0, le=86400, description="the measured window")
    drain_s: float = Field(2, ge=0, le=3600, description="time for late packets after the window")
    log: LogSpec = Field(default_factory=LogSpec)
    links: LinksSpec = Field(default_factory=LinksSpec, description="what links do to frames")
    faults: list[FaultSpec] = Field(default_factory=list, description="what happens, and when")
    expect: list[Literal["altered", "false_suspicion", "poison"]] = Field(
        default_factory=list,
        description="what would else be a failure: payloads that the function changes; failovers "
        "without a fault; the stop by an input that kills every master",
    )
    setup_timeout_s: float = Field(60, gt=0, description="until all are ready and protected")

    @model_validator(mode="after")
    def _consistent(self) -> TrialSpec:
        for index, fault in enumerate(self.faults):
            at_s = fault.at_s
            if at_s not in (None, "random") and not 0 <= float(at_s) < self.duration_s:
                raise ValueError(
                    f"faults.{index}.at_s is {at_s}, outside the window of "
                    f"{self.duration_s} s (duration_s)"
                )
            self._separate(index, fault)
        for at_s in self.ft.snapshot.at_s:
            if at_s >= self.duration_s:
                raise ValueError(
                    f"ft.snapshot.at_s has {at_s}, outside the window of {self.duration_s} s "
                    "(duration_s)"
                )
        if why := kinds.refusal(self):
            raise ValueError(why)
        if self.interfaces and self.ft.mode not in ("ftmb", "none"):
            raise ValueError(f"interfaces: ft.mode {self.ft.mode} has no loggers to open them")
        if self.metrics is not None:
            exporter.address(self.metrics)
            if not self.interfaces:
                raise ValueError("metrics: a trial has a record; they are for `ftmb up`")
        if self.interfaces and self.processes != "auto":
            raise ValueError("interfaces: one process opens them; take processes out")
        if self.interfaces and self.testbed != "local":
            raise ValueError(
                "interfaces: a middlebox at work stands on this machine; testbed local"
            )
        if self.testbed != "local" and "poison" in self.expect:
            raise ValueError(
                f"expect: on testbed {self.testbed} a process takes what it died of with it: no "
                "poison is recognised; use testbed local"
            )
        if self.faults and self.ft.mode != "ftmb":
            raise ValueError(
                f"faults: nothing survives a crash with ft.mode {self.ft.mode}; "
                "use ft.mode ftmb, or take the faults out"
            )
        if self.workers * self.log.pals * 8 >= 1 << 32:
            raise ValueError(
                f"log.pals: {self.workers} workers with {self.log.pals} PALs each are 4 GiB "
                "or more, too much to hand to a backup at a failover"
            )
        if self.links.lie and self.ft.mode != "ftmb":
            raise ValueError(
                f"links: with ft.mode {self.ft.mode} nothing sends a lost frame again; "
                "use ft.mode ftmb, or take the links out"
            )
        if isinstance(self.placement, Placement) and len(self.placement.workers) != self.workers:
            raise ValueError(
                f"placement.workers names {len(self.placement.workers)} CPUs "
                f"for {self.workers} workers"
            )
        return self

    def _separate(self, index: int, fault: FaultSpec) -> None:
        """A logger that is killed or stopped must not take another role with it."""
        if not isinstance(self.processes, Processes):
            return
        names = self.processes.model_dump()
        for role in fault.roles:
            others = [other for other, name in names.items() if name == names.get(role)]
            if len(others) > 1:
                others.remove(role)
                raise ValueError(
                    f"faults.{index}: {role} shares its process with {' and '.join(others)}; give "
                    "it one of its own in processes, or set processes to auto"
                )


def _set_key(tree: dict[str, Any], assignment: str) -> None:
    """Apply one `key.key=value` to `tree`. A number as a key is a place in a list."""
    key, equals, text = assignment.partition("=")
    if not equals or not key:
        raise SpecError(f"--set {assignment}: write it as key=value, e.g. traffic.rate_pps=100000")
    value = parse_yaml(text, f"--set {key}")
    parts = key.strip().split(".")
    here: Any = tree
    for depth, part in enumerate(parts):
        last = depth == len(parts) - 1
        if isinstance(here, list):
            if not part.isdigit() or int(part) >= len(here):
                raise SpecError(f"--set {key}: {part} is no place in a list of {len(here)}")
            slot: Any = int(part)
        elif isinstance(here, dict):
            slot = part
            if not last and here.get(part) is None:
                here[part] = {}
        else:
            raise SpecError(f"--set {key}: {'.'.join(parts[:depth])} has no keys of its own")
        if last:
            here[slot] = value
        else:
            here = here[slot]


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys allowed beside the one at `location`, for a suggestion."""
    model: Any = TrialSpec
    steps = {
        "ft": FtSpec,
        "traffic": TrafficSpec,
        "trex": TrexSpec,
        "log": LogSpec,
        "faults": FaultSpec,
        "repeat": RepeatSpec,
        "links": LinksSpec,
        "il": LinkSpec,
        "ol": LinkSpec,
        "state": LinkSpec,
        "snapshot": SnapshotSpec,
        "placement": Placement,
        "processes": Processes,
        "interfaces": Interfaces,
    }
    for part in location[:-1]:
        model = steps.get(str(part), model)
    return list(model.model_fields)


def _one_line(error: ValidationError) -> str:
    """The first complaint of pydantic in our words; how many more there are."""
    # Of `auto | Placement` both complain: the deeper one is about what the user wrote.
    complaints = error.errors()
    first = complaints[0]
    for complaint in complaints[1:]:
        same = complaint["loc"][:1] == first["loc"][:1] and first["loc"][:1] in (
            ("placement",),
            ("processes",),
        )
        if same and len(complaint["loc"]) > len(first["loc"]):
            first = complaint
            break
    names = [str(p) for p in first["loc"] if p not in ("Placement", "Processes", "literal['auto']")]
    where = ".".join(n for n in names if not n.startswith(("literal[", "constrained-")))
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(names[-1], _known_keys(first["loc"]), 1, 0.6)
        what = "unknown key" + (
            f" (did you mean {close[0]}?)" if close else "; `ftmb trial --defaults` lists the keys"
        )
    else:
        what = first["msg"].removeprefix("Value error, ")
        if first["type"] not in ("value_error", "missing"):
            what += f", not {first['input']!r}"
    line = f"{where}: {what}" if where else what
    more = len({complaint["loc"][:2] for complaint in complaints}) - 1
    return line + (f" (and {more} more)" if more > 0 else "")


def flat_line(error: ValidationError, keys: Iterable[str]) -> str:
    """The same for a spec whose keys are these, and which has no choice of models."""
    first, *others = error.errors()
    where = ".".join(map(str, first["loc"]))
    what = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(where, keys, 1, 0.6)
        what = "unknown key" + (f" (did you mean {close[0]}?)" if close else "")
    elif first["type"] not in ("value_error", "missing"):
        what += f", not {first['input']!r}"
    more = f" (and {len(others)} more)" if others else ""
    return f"{where}: {what}{more}" if where else f"{what}{more}"


def parse(tree: Any, where: str = "spec") -> TrialSpec:
    """A checked spec from parsed YAML. Raises SpecError with one line."""
    if tree is None:
        tree = {}
    if not isinstance(tree, dict):
        raise SpecError(f"{where}: a spec is a mapping of keys, not a {type(tree).__name__}")
    try:
        return TrialSpec.model_validate(tree)
    except ValidationError as error:
        raise SpecError(f"{where}: {_one_line(error)}") from None


def read_tree(path: Path, assignments: list[str] | None = None) -> Any:
    """The YAML of a spec with `--set key=value` assignments applied in order, not checked yet;
    {} for an empty file. Raises SpecError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SpecError(f"{path}: cannot read the spec: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: the spec is not text (UTF-8)") from None
    tree = parse_yaml(text, str(path))
    if tree is None:
        tree = {}
    if isinstance(tree, dict):
        for assignment in assignments or []:
            _set_key(tree, assignment)
    return tree


def load(path: Path, assignments: list[str] | None = None) -> TrialSpec:
    """Read SPEC.yaml, apply `--set key=value` assignments in order, check. Raises SpecError."""
    return parse(read_tree(path, assignments), str(path))


# Models behind a key that is a list or may be null: their keys are listed all the same.
LISTED: dict[str, type[BaseModel]] = {"faults": FaultSpec, "repeat": RepeatSpec}


def defaults() -> list[tuple[str, Any, str]]:
    """Every key with its default and what it means: (dotted key, default, description)."""
    rows: list[tuple[str, Any, str]] = []

    def walk(model: type[BaseModel], prefix: str) -> None:
        for name, field in model.model_fields.items():
            inner = field.annotation
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                walk(inner, f"{prefix}{name}.")
                continue
            default = field.get_default(call_default_factory=True, validated_data={})
            given = "(none)" if field.is_required() else default
            rows.append((f"{prefix}{name}", given, field.description or ""))
            if name in LISTED and not isinstance(default, float):  # a link repeats by a share
                walk(LISTED[name], f"{prefix}{name}{'[]' if name == 'faults' else ''}.")

    walk(TrialSpec, "")
    return rows
