"""What a trial spec says of snapshots: how state is copied, and when."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftmb.model import Model

Engine = Literal["cow", "stop-copy", "fork", "page", "none"]
Schedule = Literal["period", "log", "demand", "adaptive"]
# The key that each schedule goes by; those of the other schedules would mean nothing.
KEY = {"period": "period_ms", "log": "log_mb", "demand": "at_s", "adaptive": "replay_target_ms"}


class SnapshotSpec(Model):
    engine: Engine = Field(
        "cow",
        description="how state is copied; cow: lines on their first write, nobody is stopped; "
        "stop-copy, fork, page: workers are stopped for a copy, a fork, the dirty pages; none: one "
        "full base at the start, no more",
    )
    schedule: Schedule = Field(
        "period",
        description="when: every period_ms; log: when the input log since the last one exceeds "
        "log_mb; demand: at at_s; adaptive: so that replay would take replay_target_ms at most",
    )
    period_ms: float = Field(
        20, ge=1, le=3_600_000, description="time from one snapshot to the next"
    )
    log_mb: int = Field(
        4, ge=1, le=16384, description="schedule log: megabytes of input log between two"
    )
    replay_target_ms: float = Field(
        5, ge=0.1, le=3_600_000, description="schedule adaptive: the longest replay to be expected"
    )
    at_s: list[float] = Field(
        default_factory=list, description="schedule demand: seconds into the window, ascending"
    )
    undo_mb: int = Field(
        16, ge=1, le=16384, description="cow: bound of a worker's undo log; beyond it the snapshot "
        "is abandoned and the last one kept"
    )  # fmt: skip
    full_mb_per_s: int = Field(
        400, ge=1, le=1_000_000, description="bandwidth limit of a full snapshot beside traffic"
    )

    def _given(self, key: str) -> bool:
        default = type(self).model_fields[key].get_default(call_default_factory=True)
        return bool(getattr(self, key) != default)

    @model_validator(mode="after")
    def _consistent(self) -> SnapshotSpec:
        for schedule, key in KEY.items():
            if schedule != self.schedule and self._given(key):
                raise ValueError(
                    f"{key} means nothing with schedule {self.schedule}: take it out, or set "
                    f"schedule to {schedule}"
                )
        if self.engine == "none" and self.schedule != "period":
            raise ValueError(
                f"schedule {self.schedule} means nothing with engine none, which takes no snapshot "
                "after the first: take schedule out, or choose another engine"
            )
        if self.engine != "cow" and self._given("undo_mb"):
            raise ValueError(
                f"undo_mb is of engine cow, not of {self.engine}: take it out, or set engine to cow"
            )
        if self.schedule == "demand" and not self.at_s:
            raise ValueError(
                "schedule demand has no times: give at_s, or set engine to none for no snapshots"
            )
        if any(at < 0 for at in self.at_s) or self.at_s != sorted(set(self.at_s)):
            raise ValueError(f"at_s is a list of ascending times from 0 on, not {self.at_s}")
        return self
