"""What a trial spec says of traffic, and which generator makes it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from ftmb.model import Model

FILL_MOST_S = 3600


class TrexSpec(Model):
    """A TRex server that runs (`t-rex-64 -i`), with a port at each side of the middlebox."""

    server: str | None = Field(
        None, pattern=r"^[A-Za-z0-9.:_-]{1,253}$", description="name or address; needed for trex"
    )
    port: int = Field(4501, ge=1, le=65535, description="where it takes requests")
    async_port: int = Field(4500, ge=1, le=65535, description="where it publishes")
    ports: list[int] = Field(
        [0, 1], min_length=2, max_length=2, description="its ports towards inside and outside"
    )
    user: str = Field("ftmb", pattern=r"^\S{1,64}$", description="who its ports are acquired for")
    force: bool = Field(False, description="take ports that somebody else has acquired")
    latency_pps: int = Field(
        1000,
        ge=1,
        le=100_000,
        description="packets a second that are timed and numbered, in flows of their own; the "
        "others are only counted",
    )
    timeout_s: float = Field(5, ge=0.5, le=60, description="how long an answer is waited for")

    @model_validator(mode="after")
    def _two(self) -> TrexSpec:
        if self.ports[0] == self.ports[1] or min(self.ports) < 0:
            raise ValueError(f"ports are two different ports of the server, not {self.ports}")
        return self


class TrafficSpec(Model):
    generator: Literal["native", "scapy", "trex"] = Field(
        "native",
        description="native: the data plane's own; scapy: slow, to see that it works; trex: a TRex "
        "server",
    )
    profile: str = Field("udp64", description="a profile's name, or the path of a capture (pcap)")
    rate_pps: int | Literal["max"] = Field(
        200_000, description="packets a second, open loop; max: as fast as input is accepted"
    )
    flows: int = Field(10_000, ge=1, le=1 << 25, description="flows alive at a time")
    fill: bool = Field(
        False, description="first send one packet of each flow, so that all are known; then warm up"
    )
    fill_pps: int = Field(500_000, ge=1, le=10**9, description="packets a second of the fill")
    zipf: float = Field(0.0, ge=0, le=4, description="skew of flow popularity; 0 is uniform")
    new_flows_per_s: int = Field(0, ge=0, description="flows replaced by new ones, per second")
    reply_share: float = Field(0.0, ge=0, lt=1, description="share of packets that are answered")
    seed: int = Field(1, ge=0, lt=2**63, description="of the traffic and of random fault times")
    samples: bool = Field(False, description="also write every latency sample (large)")
    trex: TrexSpec = Field(default_factory=TrexSpec, description="for the generator trex")

    @model_validator(mode="after")
    def _rate(self) -> TrafficSpec:
        if self.rate_pps != "max" and not 0 < self.rate_pps <= 10**9:
            raise ValueError("rate_pps is a number from 1 to 1e9, or max")
        return self

    @model_validator(mode="after")
    def _fill(self) -> TrafficSpec:
        if self.fill_s > FILL_MOST_S:
            raise ValueError(
                f"fill: {self.flows} flows at {self.fill_pps} packets a second take "
                f"{self.fill_s:.0f} s, more than an hour; raise fill_pps or lower flows"
            )
        return self

    @property
    def fill_s(self) -> float:
        """How long the fill takes where nothing holds it up."""
        return self.flows / self.fill_pps if self.fill else 0.0

    @property
    def external(self) -> bool:
        """Whether a program outside of the data plane makes the traffic, at two interfaces."""
        return self.generator != "native"
