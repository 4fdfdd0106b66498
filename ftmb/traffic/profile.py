"""Traffic profiles: which packets a trial is driven with.

A profile is a file `config/traffic/NAME.yaml`, a path of a file like it, or the path of a capture
(pcap, pcapng). `prepare()` turns it into what the data plane's generator reads.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from ftmb.errors import SpecError

PROFILES = Path(__file__).resolve().parents[2] / "config" / "traffic"
CAPTURE_SUFFIXES = (".pcap", ".pcapng", ".cap")
INSIDE = "10.0.0.0/8"

# Ethernet with its check sequence, IPv4, the protocol's header, and the generator's trailer.
SMALLEST = {"udp": 64, "tcp": 74, "icmp": 64}
LARGEST = 1518


class Model(BaseModel):
    """Unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Packets(Model):
    """Packets of one kind: how often they come among the others, per cycle."""

    protocol: Literal["udp", "tcp", "icmp"]
    size: int = Field(le=LARGEST, description="bytes of the frame, with its 4 bytes of check")
    count: int = Field(1, ge=1, le=256)

    @model_validator(mode="after")
    def _room(self) -> Packets:
        if self.size < SMALLEST[self.protocol]:
            raise ValueError(
                f"a {self.protocol} packet has at least {SMALLEST[self.protocol]} bytes "
                f"(headers and 16 bytes of trailer), not {self.size}"
            )
        return self


class Base(Model):
    """What both kinds have."""

    description: str = ""
    inside: str = Field(INSIDE, description="network of the inside hosts")

    @field_validator("inside")
    @classmethod
    def _network(cls, value: str) -> str:
        return str(ipaddress.IPv4Network(value))


class Synthetic(Base):
    """Packets made from templates, with flows of the generator."""

    kind: Literal["synthetic"]
    packets: list[Packets] = Field(min_length=1, max_length=64)


class Capture(Base):
    """Captured packets, replayed in order, over and over, at the rate of the trial."""

    kind: Literal["capture"]
    file: str = Field(description="path, relative to the profile's file")


class Profile(Model):
    """A profile's file: one of the two kinds."""

    profile: Annotated[Synthetic | Capture, Field(discriminator="kind")]


def names() -> list[str]:
    """The profiles that come with the project."""
    return sorted(path.stem for path in PROFILES.glob("*.yaml"))


def _path(name: str) -> Path:
    """The file behind a name or path."""
    if "/" in name or name.endswith((".yaml", ".yml", *CAPTURE_SUFFIXES)):
        path = Path(name).expanduser()
        if not path.is_file():
            raise SpecError(f"traffic.profile: no such file: {name}")
        return path
    path = PROFILES / f"{name}.yaml"
    if not path.is_file():
        raise SpecError(
            f"traffic.profile: unknown profile {name!r}: one of {', '.join(names())}, "
            "or the path of a .yaml or .pcap file"
        )
    return path


def _one_line(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:] if part not in ("synthetic", "capture"))
    return f"{where}: {first['msg']}" if where else str(first["msg"])


def load(name: str) -> tuple[Synthetic | Capture, Path]:
    """Read a profile; also returns its file. Raises SpecError with one line."""
    path = _path(name)
    if path.suffix in CAPTURE_SUFFIXES:
        return Capture(kind="capture", file=path.name), path
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Profile.model_validate({"profile": tree}).profile, path
    except ValidationError as error:
        raise SpecError(f"{path}: {_one_line(error)}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def prepare(profile_name: str, out_dir: Path, seed: int) -> dict[str, Any]:
    """Make what the generator reads of a profile.

    Writes `template.pcap` into `out_dir` for a synthetic profile; the same seed gives the same
    bytes. Returns the keys `template`, `capture` (paths, one of them "") and `inside` (network of
    the inside hosts) of the node spec. Raises SpecError if the profile is unknown or wrong.
    """
    profile, path = load(profile_name)
    if isinstance(profile, Capture):
        capture = (path.parent / profile.file).resolve()
        if not capture.is_file():
            raise SpecError(f"{path}: no such capture: {profile.file}")
        return {"template": "", "capture": str(capture), "inside": profile.inside}
    from ftmb.traffic import template  # scapy takes a second to load

    target = Path(out_dir).resolve() / "template.pcap"
    template.write(profile, target, seed)
    return {"template": str(target), "capture": "", "inside": profile.inside}
