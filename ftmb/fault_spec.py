"""What a trial spec says of faults and of links that lie."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftmb.model import Model

Role = Literal[
    "master", "backup", "il", "ol",
    "il-master", "il-backup", "ol-master", "ol-backup", "ctl-master", "ctl-backup",
    "state-backup",
]  # fmt: skip
PROCESSES = ("master", "backup", "il", "ol")
# A stopped or cut-off master is missed after `detect_ms`, a backup after this many of them.
BACKUP_SILENCE = 5


class RepeatSpec(Model):
    every_s: list[float] = Field(
        min_length=2,
        max_length=2,
        description="shortest and longest distance, drawn anew each time: from when all is "
        "protected again, or, with `when: any` or `after`, from the last time",
    )
    count: int | None = Field(
        None, ge=1, description="how often in all; null: until the window ends"
    )

    @model_validator(mode="after")
    def _order(self) -> RepeatSpec:
        if not 0 <= self.every_s[0] <= self.every_s[1]:
            raise ValueError(f"every_s is [shortest, longest], not {self.every_s}")
        return self


class FaultSpec(Model):
    do: Literal["kill", "stop", "cut", "switchover"] = Field(
        "kill",
        description="kill: SIGKILL; stop: SIGSTOP, later SIGCONT; cut: a link, later mended; "
        "switchover: no fault, a planned change of master",
    )
    role: Role | list[Role] = Field(
        "master",
        description="who it happens to: master, backup, il, ol; for cut a link: il-, ol- or ctl- "
        "with master or backup, or state-backup; a list is drawn from in turns",
    )
    at_s: float | Literal["random"] | None = Field(
        None, description="seconds into the window; random: in its middle 80 %, by traffic.seed"
    )
    after: str | None = Field(
        None,
        min_length=1,
        description="instead of at_s: as soon as this event is seen in the window, e.g. "
        "replay_start, protected, receiving; with repeat: once until all is protected again",
    )
    delay_ms: float = Field(0, ge=0, description="so much later than that event")
    for_s: float | None = Field(
        0.5, gt=0, description="how long stop and cut last; null: until the drain is over"
    )
    repeat: RepeatSpec | None = Field(None, description="again and again; null: once")
    when: Literal["auto", "protected", "any"] = Field(
        "auto",
        description="protected: it waits until everything is protected and restarted; auto: so "
        "where it repeats by time, else at its time whatever the state is",
    )
    protect_again: bool = Field(True, description="start a fresh process for a lost replica")

    @property
    def roles(self) -> list[Role]:
        """Those that it may happen to."""
        return list(self.role) if isinstance(self.role, list) else [self.role]

    @property
    def waits(self) -> bool:
        """True if it happens only to a system that is protected."""
        by_time = self.repeat is not None and self.after is None
        return self.when == "protected" or (self.when == "auto" and by_time)

    @model_validator(mode="after")
    def _consistent(self) -> FaultSpec:
        if not self.roles:
            raise ValueError("role is an empty list: name at least one")
        for role in self.roles:
            if (self.do == "cut") == (role in PROCESSES):
                fits = "a link, e.g. il-master" if self.do == "cut" else ", ".join(PROCESSES)
                raise ValueError(f"do: {self.do} needs as its role {fits}, not {role}")
            if self.do == "switchover" and role != "master":
                raise ValueError(f"do: switchover replaces the master, not {role}")
        if self.after is not None and self.at_s is not None:
            raise ValueError("at_s and after exclude each other: take one of them out")
        if self.after is None and self.at_s is None and self.repeat is None:
            raise ValueError("at_s is missing: give at_s, after or repeat")
        if self.delay_ms and self.after is None:
            raise ValueError("delay_ms goes with after: give the event, or put the time into at_s")
        return self


class LinkSpec(Model):
    drop: float = Field(0.0, ge=0, le=0.5, description="share of frames that are lost")
    repeat: float = Field(0.0, ge=0, le=0.5, description="share that come twice")
    reorder: float = Field(0.0, ge=0, le=0.5, description="share that overtake others")
    delay: float = Field(0.0, ge=0, le=0.5, description="share that come late")
    delay_us: int = Field(500, ge=1, le=1_000_000, description="how late, microseconds")
    garble: float = Field(0.0, ge=0, le=0.5, description="share that come with a damaged copy")

    @property
    def lies(self) -> bool:
        """True if anything happens to its frames."""
        return any((self.drop, self.repeat, self.reorder, self.delay, self.garble))


class LinksSpec(Model):
    il: LinkSpec = Field(default_factory=LinkSpec, description="input logger and replicas")
    ol: LinkSpec = Field(default_factory=LinkSpec, description="replicas and output logger")
    state: LinkSpec = Field(default_factory=LinkSpec, description="snapshots between replicas")

    @property
    def lie(self) -> bool:
        """True if one of them does."""
        return self.il.lies or self.ol.lies or self.state.lies
