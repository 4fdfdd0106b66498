"""What the data plane can do: `ftmb-node --describe`, and NF parameters checked against it."""

from __future__ import annotations

import difflib
import ipaddress
import json
import os
import subprocess
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ftmb.errors import EngineError, MachineError, SpecError

NODE = Path("results/build/release/ftmb-node")


class _Described(BaseModel):
    # A newer data plane may describe more than this version reads.
    model_config = ConfigDict(extra="ignore")


class NfParam(_Described):
    name: str
    kind: Literal["uint", "ipv4", "flag"]
    default: int | str | bool
    min: int | str = 0
    max: int | str = 2**63 - 1
    help: str = ""


class NfDescription(_Described):
    name: str
    params: list[NfParam] = Field(default_factory=list)
    stages: int = Field(0, description="of a chain: how many functions it may have")


class EngineDescription(_Described):
    name: str
    missing: str | None = Field(None, description="why it cannot be used here")


class Description(_Described):
    version: str | int
    max_workers: int
    nfs: list[NfDescription]
    engines: list[EngineDescription] = Field(default_factory=list)
    compiler: str = ""
    flags: str = ""
    dpdk: str = ""
    git: str = ""


def project_root() -> Path:
    """The repository: the working directory if it is one, else where this package lies."""
    here = Path.cwd()
    return here if (here / "native" / "meson.build").exists() else Path(__file__).parents[1]


def node_path() -> Path:
    """The data plane's program: $FTMB_NODE, or the release build. Existing or not."""
    given = os.environ.get("FTMB_NODE")
    return Path(given).absolute() if given else project_root() / NODE


def describe(program: Path | None = None) -> Description:
    """Run `ftmb-node --describe`. Raises MachineError if it is not built or does not answer."""
    path = program or node_path()
    if not path.exists():
        shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
        raise MachineError(f"the data plane is not built ({shown} is missing): run `make build`")
    try:
        answer = subprocess.run(
            [str(path), "--describe"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MachineError(f"{path} --describe does not run: {error}") from None
    if answer.returncode != 0:
        lines = answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"]
        raise MachineError(f"{path} --describe failed: {lines[-1]}: run `make build` again")
    try:
        return Description.model_validate(json.loads(answer.stdout))
    except (json.JSONDecodeError, ValidationError):
        raise MachineError(
            f"{path} --describe gave an answer that this version does not understand: "
            "run `make build` again"
        ) from None


def _bad(where: str, nf: str, value: object, want: str) -> SpecError:
    return SpecError(f"{where}: {nf} wants {want}, not {value!r}")


def _check_value(key: str, nf: str, param: NfParam, value: Any) -> int | str:
    """One parameter as the data plane takes it: an integer, or an address as text."""
    if param.kind == "flag":
        if value in (0, 1):  # includes false and true
            return int(value)
        raise _bad(key, nf, value, "true or false")
    if param.kind == "ipv4":
        try:
            return str(ipaddress.IPv4Address(value))
        except (ipaddress.AddressValueError, ValueError):
            raise _bad(key, nf, value, "an IPv4 address") from None
    if isinstance(value, bool) or not isinstance(value, int):
        raise _bad(key, nf, value, "a whole number")
    if not int(param.min) <= value <= int(param.max):
        raise _bad(key, nf, value, f"a number from {param.min} to {param.max}")
    return value


def nf_config(
    description: Description, name: str, given: dict[str, Any], where: str = "nf"
) -> dict[str, Any]:
    """The function's full configuration: name and every parameter, of a chain those of its stages.

    Raises SpecError.
    """
    by_name = {nf.name: nf for nf in description.nfs}
    if name not in by_name:
        raise SpecError(
            f"{where}.name: no network function {name!r}; there are: {', '.join(by_name)}"
        )
    known = {param.name: param for param in by_name[name].params}
    stages = [f"stage{number + 1}" for number in range(by_name[name].stages)]
    for key in given:
        if key not in known and key not in stages:
            keys = [*known, *stages]
            close = difflib.get_close_matches(key, keys, 1, 0.6)
            hint = f"did you mean {close[0]}?" if close else f"it has: {', '.join(keys) or 'none'}"
            raise SpecError(f"{where}.{key}: {name} has no such parameter; {hint}")
    config: dict[str, Any] = {"name": name}
    for key, param in known.items():
        config[key] = _check_value(f"{where}.{key}", name, param, given.get(key, param.default))
    for key in stages:
        if key in given:
            config[key] = _stage(description, given[key], f"{where}.{key}")
    count = sum(key in given for key in stages)
    gap = [key for key in stages[:count] if key not in given]
    if stages and count == 0:
        raise SpecError(f"{where}.stage1: a chain needs its first function, as {{name: nat}}")
    if gap:
        raise SpecError(f"{where}.{gap[0]}: there is none, though a later stage is given")
    return config


def _stage(description: Description, given: Any, where: str) -> dict[str, Any]:
    """One function of a chain: written as a function that is alone."""
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise SpecError(
            f"{where}: a stage is a function, as {{name: nat, capacity: 1000}}, not {given!r}"
        )
    params = {key: value for key, value in given.items() if key != "name"}
    return nf_config(description, given["name"], params, where)


def check_engine(description: Description, engine: str) -> None:
    """Raises EngineError, with the reason, if state cannot be copied this way here."""
    for known in description.engines:
        if known.name == engine and known.missing:
            raise EngineError(f"ft.snapshot.engine: {engine} cannot be used here: {known.missing}")


def check_workers(description: Description, workers: int) -> None:
    """Raises SpecError if this build cannot run so many workers."""
    if workers > description.max_workers:
        raise SpecError(
            f"workers: {workers} is more than this build's maximum of {description.max_workers}; "
            "take fewer"
        )
