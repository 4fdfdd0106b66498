"""The spec of a comparison: which arms, how large the table, what traffic, how many crashes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from ftmb.errors import SpecError
from ftmb.model import Model
from ftmb.spec import flat_line, read_tree

Arm = Literal["nosync", "stock", "safe", "keepalived", "ftmb"]
ARMS: tuple[Arm, ...] = ("nosync", "stock", "safe", "keepalived", "ftmb")
SYNCED: tuple[Arm, ...] = ("stock", "safe", "keepalived")
# Ports of an outside address that both NATs have; at half of them a free one is found at once.
PORTS = 40_001
MOST_FLOWS = 4_000_000


class PeersSpec(Model):
    arms: list[Arm] = Field(
        list(ARMS), min_length=1,
        description="nosync: kernel NAT, cold; stock: conntrackd, take over, then commit; safe: "
        "commit, then take over; keepalived: its detection, then stock; ftmb: ours",
    )  # fmt: skip
    crashes: int = Field(1, ge=1, le=1000, description="of each arm; the arms take turns")
    seed: int = Field(1, ge=0, lt=2**31, description="of the instants; crash i is at the same one "
                      "in every arm")  # fmt: skip
    table: int = Field(5_000, ge=100, le=300_000, description="mappings before the crash")
    new_per_s: int = Field(
        1_000, ge=0, le=50_000, description="new flows a second, one packet each"
    )
    known_per_s: int = Field(1_000, ge=0, le=50_000, description="packets of flows with a mapping")
    probe_per_s: int = Field(1_000, ge=10, le=10_000, description="packets of one flow, each way")
    tcp: int = Field(32, ge=0, le=1_000, description="TCP connections, a message each 50 ms")
    addresses: int = Field(0, ge=0, le=200, description="outside addresses; 0: so many that at "
                           "most half of their ports are used")  # fmt: skip
    fill_per_s: int = Field(10_000, ge=100, le=200_000, description="flows a second of the "
                            "fill; conntrackd sleeps on an overrun")  # fmt: skip
    sweep_per_s: int = Field(20_000, ge=100, le=200_000, description="flows looked at a second, "
                             "after the crash")  # fmt: skip
    sweep_most: int = Field(20_000, ge=1, description="at most so many of the fill are looked at, "
                            "evenly; of the new flows all")  # fmt: skip
    relay_ms: float = Field(0, ge=0, le=1_000, description="delay in the path of conntrackd's "
                            "messages; 0: a bridge")  # fmt: skip
    crash_s: tuple[float, float] = Field(
        (1.0, 2.0), description="the crash is at random between, seconds after the traffic began"
    )
    after_s: float = Field(2.0, ge=0.5, le=60, description="traffic once the takeover is over")
    advert_s: float = Field(0.1, ge=0.01, le=10, description="keepalived's advert_int")
    real_time: bool = Field(False, description="let conntrackd be SCHED_RR 99, which it asks for")
    snapshot_ms: float = Field(20, ge=1, le=10_000, description="ftmb: period of its snapshots")

    @model_validator(mode="before")
    @classmethod
    def _pair(cls, tree: Any) -> Any:
        """YAML has lists only."""
        if isinstance(tree, dict) and isinstance(tree.get("crash_s"), list):
            return {**tree, "crash_s": tuple(tree["crash_s"])}
        return tree

    @model_validator(mode="after")
    def _consistent(self) -> PeersSpec:
        low, high = self.crash_s
        if not 0.5 <= low <= high <= 600:
            raise ValueError(f"crash_s: 0.5 <= first <= second <= 600, not {low:g}, {high:g}")
        if len(set(self.arms)) < len(self.arms):
            raise ValueError("arms: one is named twice")
        if self.relay_ms and not set(self.arms) & set(SYNCED):
            raise ValueError(f"relay_ms: none of {', '.join(self.arms)} sends by way of the relay")
        most = self.outside * PORTS
        if self.flows > min(most * 0.9, MOST_FLOWS):
            raise ValueError(
                f"addresses: {self.flows} flows do not fit {self.outside} addresses of {PORTS} "
                "ports; raise addresses or lower new_per_s"
            )
        return self

    @property
    def flows(self) -> int:
        """Flows of one crash, at most: fill, new ones, TCP."""
        takeover_s = 2 + 40e-6 * self.table  # conntrackd's commit goes entry by entry
        seconds = self.crash_s[1] + self.after_s + takeover_s
        return self.table + self.tcp + math.ceil(self.new_per_s * seconds)

    @property
    def outside(self) -> int:
        """Outside addresses."""
        return self.addresses or math.ceil(2 * self.flows / PORTS)

    @property
    def stride(self) -> int:
        """Every so-manieth flow of the fill is looked at after the crash."""
        return math.ceil(self.table / self.sweep_most)


def load(path: Path, assignments: list[str] | None = None) -> PeersSpec:
    """Read SPEC.yaml, apply `--set key=value` in order, check. Raises SpecError, one line."""
    tree = read_tree(path, assignments)
    if not isinstance(tree, dict):
        raise SpecError(f"{path}: a spec is a mapping of keys, not a {type(tree).__name__}")
    try:
        return PeersSpec.model_validate(tree)
    except ValidationError as error:
        raise SpecError(f"{path}: {flat_line(error, PeersSpec.model_fields)}") from None
