"""The spec of `ftmb endpoints`: which middlebox, which programs at its ends, how often it dies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from ftmb import spec
from ftmb.endpoints.programs import missing
from ftmb.errors import MachineError, SpecError
from ftmb.model import Model
from ftmb.site_fleet import DEATHS_S, MOST_DEATHS

MOST_S = 3600
# With one kill at random in each stretch, no 60 s hold more kills than a site puts up with.
LEAST_S = DEATHS_S / (MOST_DEATHS - 1)
Rate = Annotated[float, Field(gt=0, le=5000)]


class Iperf3(Model):
    """Bulk TCP from inside to outside."""

    kind: Literal["iperf3"]
    connections: int = Field(1, ge=1, le=128, description="at a time")
    capacity: float = Field(
        0.25, gt=0, le=1, description="share of what the same connections get through without limit"
    )
    mbps: float | None = Field(
        None, gt=0, le=100_000, description="in all, in place of `capacity`: nothing is tried first"
    )


class Pages(Model):
    """Page loads: a new connection for each; what comes is compared."""

    kind: Literal["pages"]
    per_s: Rate = Field(50, description="begun a second, whatever became of those before")
    bytes: int = Field(20_000, ge=1, le=10_000_000, description="of a page")


class Download(Model):
    """One long HTTP download, read at a steady rate; what comes is compared."""

    kind: Literal["download"]
    mb_per_s: float = Field(1.0, gt=0, le=100)


class Dns(Model):
    """Questions over UDP, each from a port of its own."""

    kind: Literal["dns"]
    per_s: Rate = Field(50, description="asked a second")


class Ssh(Model):
    """An SSH session that says each line again."""

    kind: Literal["ssh"]
    per_s: Rate = Field(20, description="lines a second")


Workload = Annotated[Iperf3 | Pages | Download | Dns | Ssh, Field(discriminator="kind")]


class EndpointsSpec(Model):
    function: Literal["nat", "firewall"] = Field("nat", description="config/sites/FUNCTION.yaml")
    arm: Literal["ftmb", "cold", "control"] = Field(
        "ftmb",
        description="cold: no fault tolerance, and started anew at once; control: nobody dies",
    )
    workloads: list[Workload] = Field(min_length=1, max_length=8, description="all at a time")
    kills: int = Field(10, ge=1, le=1000, description="of the master; of nobody in the control")
    every_s: float = Field(7, ge=1, le=600, description="one kill in each, at a random instant")
    judge_s: float = Field(2, gt=0, le=60, description="what follows a kill so soon is put to it")
    warmup_s: float = Field(2, ge=0, le=600, description="before the first")
    seed: int = Field(1, ge=0, lt=2**63, description="of the instants")
    sample_ms: float = Field(20, ge=5, le=1000, description="how often connections are looked at")
    set: list[str] = Field(
        default_factory=list, description="keys of the site to change, as `ftmb up --set`"
    )

    @model_validator(mode="after")
    def _consistent(self) -> EndpointsSpec:
        if self.judge_s > self.every_s:
            raise ValueError(
                f"judge_s is {self.judge_s:g} and every_s {self.every_s:g}: the next kill comes "
                "before this one is judged"
            )
        if self.arm == "ftmb" and self.kills > MOST_DEATHS and self.every_s < LEAST_S:
            raise ValueError(
                f"every_s is {self.every_s:g}: `ftmb up` gives up when more than {MOST_DEATHS} of "
                f"its processes die in {DEATHS_S:g} s; {LEAST_S:g} or more, or fewer kills"
            )
        if self.duration_s > MOST_S:
            raise ValueError(f"kills times every_s is more than {MOST_S} s")
        kinds = [each.kind for each in self.workloads]
        if len(set(kinds)) < len(kinds):
            raise ValueError("workloads: each kind once at most")
        return self

    @property
    def duration_s(self) -> float:
        """From the first program's start to the last one's end, as planned."""
        return self.warmup_s + self.kills * self.every_s + self.judge_s


def require(wanted: EndpointsSpec) -> None:
    """Raises MachineError with the remedy if a program is missing."""
    if absent := missing([each.kind for each in wanted.workloads]):
        names = " and ".join(program for program, _ in absent)
        packages = " ".join(sorted({package for _, package in absent}))
        raise MachineError(f"workloads: no {names} here; `apt-get install {packages}`")


def load(path: Path, assignments: list[str]) -> EndpointsSpec:
    """Read the file, apply `--set`, check. Raises SpecError with one line."""
    tree = spec.read_tree(path, assignments)
    try:
        return EndpointsSpec.model_validate(tree)
    except ValidationError as error:
        raise SpecError(f"{path}: {spec.flat_line(error, EndpointsSpec.model_fields)}") from None
