"""The experiments: `config/experiments.yaml` becomes a list of trials, each with its spec.

This module only plans. It starts nothing and needs nothing but a YAML parser, so that the workflow
can import it while it builds its graph. The order in which trials run is a seeded shuffle over all
experiments: drift of the machine then spreads over configurations instead of favouring one.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

TIERS = ("quick", "full")
EXPERIMENT_KEYS = {
    "purpose", "spec", "product", "cycle", "trials", "variants", "axes", "together",
    "repetitions", "duration_s",
}  # fmt: skip
VARIANT_KEYS = {"spec", "repetitions", "duration_s"}
CHOICE_KEYS = {"spec", "only"}
TOP_KEYS = {"version", "order_seed", "overhead_s", "tiers", "spec", "experiments"}
SHARE = "share:"
RATE_SOURCE = "throughput"
RATE_STEP_PPS = 10_000


class PlanError(ValueError):
    """The experiments file is wrong; the message names the key."""


@dataclass(frozen=True)
class Trial:
    """One planned trial: its name, its place in the order, and the spec it will run."""

    id: str
    experiment: str
    repetition: int
    spec: dict[str, Any]
    position: int = 0
    overhead_s: float = 0.0
    labels: dict[str, str] = field(default_factory=dict)  # by axis, the name that was chosen
    block: str = ""  # trials of the same one run one after the other

    @property
    def rate_share(self) -> float | None:
        """Share of the function's measured maximum to offer, or None where the rate is given."""
        rate = self.spec["traffic"].get("rate_pps")
        return float(rate[len(SHARE) :]) if isinstance(rate, str) and rate[:6] == SHARE else None

    @property
    def expected_s(self) -> float:
        """About how long the trial takes, start-up included (seconds)."""
        keys = ("warmup_s", "duration_s")
        traffic = self.spec["traffic"]
        fill_s = traffic.get("flows", 10_000) / traffic.get("fill_pps", 500_000)
        run_s = sum(float(self.spec.get(key, 0)) for key in keys)
        return run_s + self.overhead_s + (fill_s if traffic.get("fill") else 0.0)


def load(path: Path) -> dict[str, Any]:
    """Read the experiments file. Raises PlanError with the offending key."""
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise PlanError(f"{path}: {error}") from error
    if not isinstance(text, dict) or text.get("version") != 1:
        raise PlanError(f"{path}: expected `version: 1` at the top")
    _only(text, TOP_KEYS, str(path))
    for name, entry in text["experiments"].items():
        _only(entry, EXPERIMENT_KEYS, f"{path}: experiments.{name}")
        if ("cycle" in entry) != ("trials" in entry):
            raise PlanError(f"{path}: experiments.{name}: `cycle` and `trials` go together")
        for variant, its in entry.get("variants", {}).items():
            _only(its, VARIANT_KEYS, f"{path}: experiments.{name}.variants.{variant}")
        _check_axes(f"{path}: experiments.{name}", entry)
    return text


def _check_axes(where: str, entry: dict[str, Any]) -> None:
    axes = entry.get("axes", {})
    if axes and (others := sorted({"product", "cycle", "variants"} & set(entry))):
        raise PlanError(f"{where}: `axes` and `{others[0]}` exclude each other")
    for axis, choices in axes.items():
        for name, choice in choices.items():
            _only(choice, CHOICE_KEYS, f"{where}.axes.{axis}.{name}")
            if choice.get("only", TIERS[0]) not in TIERS:
                raise PlanError(f"{where}.axes.{axis}.{name}: only is one of {', '.join(TIERS)}")
    if "together" in entry and entry["together"] not in axes:
        raise PlanError(f"{where}: together names no axis: {entry['together']!r}")


def plan(config: dict[str, Any], tier: str) -> list[Trial]:
    """All trials of a tier, in the order in which they are to run."""
    if tier not in TIERS:
        raise PlanError(f"tier is {tier!r}; known tiers: {', '.join(TIERS)}")
    shared = merge(config.get("spec", {}), config.get("tiers", {}).get(tier, {}))
    trials = [
        trial
        for name, entry in config["experiments"].items()
        for trial in _expand(name, entry, shared, tier, config.get("overhead_s", 2.0))
    ]
    doubled = [name for name, count in Counter(t.id for t in trials).items() if count > 1]
    if doubled:
        raise PlanError(f"two trials share the name {doubled[0]}")
    rng = random.Random(config.get("order_seed", 1))
    places: dict[str, float] = {}  # of a block: what is compared pair by pair runs side by side
    keys = {}
    for trial in trials:
        block = trial.block or trial.id
        place = places.setdefault(block, _when(trial) + rng.random() * _span(trial))
        keys[trial.id] = (place, rng.random())
    shuffled = sorted(trials, key=lambda trial: keys[trial.id])
    return [replace(trial, position=place) for place, trial in enumerate(shuffled)]


def _when(trial: Trial) -> float:
    """Trials at a share of the maximum wait for the second half of the session."""
    return 0.5 if trial.rate_share is not None else 0.0


def _span(trial: Trial) -> float:
    """What measures that maximum is done in the first half; all others may run at any time."""
    return 0.5 if trial.rate_share is not None or trial.experiment == RATE_SOURCE else 1.0


def _expand(
    name: str,
    entry: dict[str, Any],
    shared: dict[str, Any],
    tier: str,
    overhead_s: float,
    experiment: str | None = None,
) -> Iterator[Trial]:
    """The trials of one entry. name: how their names begin."""
    experiment = experiment or name
    base = merge(shared, entry.get("spec", {}))
    if "duration_s" in entry:
        base["duration_s"] = _of_tier(entry["duration_s"], tier)
    for variant, its in entry.get("variants", {}).items():
        own = {key: value for key, value in entry.items() if key != "variants"}
        own |= its | {"spec": merge(entry.get("spec", {}), its.get("spec", {}))}
        yield from _expand(f"{name}-{variant}", own, shared, tier, overhead_s, name)
    if "variants" in entry:
        return
    if "cycle" in entry:
        # Every dimension advances at its own pace, so that any run of trials covers all
        # combinations: index 0, 1, 2, ... counts through them like the digits of a number.
        axes = entry["cycle"]
        combinations = list(itertools.product(*reversed(list(axes.values()))))
        for index in range(_of_tier(entry["trials"], tier)):
            digits = reversed(combinations[index % len(combinations)])
            chosen = dict(zip(axes, digits, strict=True))
            yield _trial(experiment, name, base, chosen, index, overhead_s)
        return
    if "axes" in entry:
        yield from _along_axes(name, entry, base, tier, overhead_s)
        return
    axes = entry.get("product", {})
    for values in itertools.product(*axes.values()):
        for repetition in range(_of_tier(entry.get("repetitions", 1), tier)):
            chosen = dict(zip(axes, values, strict=True))
            yield _trial(experiment, name, base, chosen, repetition, overhead_s)


def _along_axes(
    name: str, entry: dict[str, Any], base: dict[str, Any], tier: str, overhead_s: float
) -> Iterator[Trial]:
    """Every combination of named choices that the tier has; a choice is a part of a spec."""
    offered = [
        [choice for choice, its in choices.items() if its.get("only", tier) == tier]
        for choices in entry["axes"].values()
    ]
    for names in itertools.product(*offered):
        labels = dict(zip(entry["axes"], names, strict=True))
        spec = base
        for axis, choice in labels.items():
            spec = merge(spec, entry["axes"][axis][choice].get("spec", {}))
        for repetition in range(_of_tier(entry.get("repetitions", 1), tier)):
            made = _trial(name, "-".join([name, *names]), spec, {}, repetition, overhead_s)
            apart = [choice for axis, choice in labels.items() if axis != entry.get("together")]
            block = "-".join([name, *apart, str(repetition)]) if "together" in entry else ""
            yield replace(made, labels=labels, block=block)


def _trial(
    experiment: str,
    name: str,
    base: dict[str, Any],
    chosen: dict[str, Any],
    repetition: int,
    overhead: float,
) -> Trial:
    spec = copy.deepcopy(base)
    for key, value in chosen.items():
        _set(spec, key, value)
    traffic = spec.setdefault("traffic", {})
    # A repetition is another draw of traffic and of fault times, not the same one again.
    traffic["seed"] = int(traffic.get("seed", 1)) + repetition
    parts = [name, *(_slug(key, value) for key, value in chosen.items())]
    return Trial(
        id="-".join([*parts, f"{repetition:02d}"]),
        experiment=experiment,
        repetition=repetition,
        spec=spec,
        overhead_s=overhead,
    )


def resolve(trial: Trial, rates: dict[str, Any] | None) -> dict[str, Any]:
    """The spec to run: `share:0.5` replaced by that share of the function's measured maximum."""
    share = trial.rate_share
    if share is None:
        return trial.spec
    name = trial.spec["nf"]["name"]
    if rates is None or name not in rates:
        raise PlanError(f"{trial.id}: no measured maximum for {name}; run the throughput trials")
    spec = copy.deepcopy(trial.spec)
    steps = round(share * float(rates[name]["maximum_pps"]) / RATE_STEP_PPS)
    spec["traffic"]["rate_pps"] = max(steps, 1) * RATE_STEP_PPS
    return spec


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """A deep copy of `base` in which `over` wins, mapping by mapping."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def manifest(trials: Sequence[Trial], config: dict[str, Any], tier: str) -> dict[str, Any]:
    """What the report needs to know of the plan: which record belongs to which experiment."""
    return {
        "version": 1,
        "tier": tier,
        "purposes": {name: e.get("purpose", "") for name, e in config["experiments"].items()},
        "trials": [
            {
                "id": t.id,
                "experiment": t.experiment,
                "repetition": t.repetition,
                "position": t.position,
                "rate_share": t.rate_share,
                "labels": t.labels,
            }
            for t in trials
        ],
    }


def _set(spec: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    for key in path:
        spec = spec.setdefault(key, {})
    spec[last] = value


def _slug(key: str, value: Any) -> str:
    text = str(value).replace(SHARE, "load").replace(".", "").replace("_", "")
    unit = {"period_ms": "ms", "rate_pps": "pps" if isinstance(value, int) else ""}
    return text + unit.get(key.rsplit(".", 1)[-1], "")


def _of_tier(value: Any, tier: str) -> Any:
    return value[tier] if isinstance(value, dict) else value


def _only(entry: dict[str, Any], known: set[str], where: str) -> None:
    unknown = sorted(set(entry) - known)
    if unknown:
        raise PlanError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")


def write_specs(trials: Sequence[Trial], out: Path) -> None:
    """One YAML spec per trial into `out`; into `out/share` where the rate is not known yet.

    A file whose content is right already is left alone, so that its trial is not run again.
    """
    (out / "share").mkdir(parents=True, exist_ok=True)
    for trial in trials:
        text = yaml.safe_dump(trial.spec, sort_keys=False)
        path = (out / "share" if trial.rate_share is not None else out) / f"{trial.id}.yaml"
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            fresh = path.with_suffix(".new")
            fresh.write_text(text, encoding="utf-8")
            fresh.replace(path)


def _resolve_file(spec: Path, rates: Path, out: Path) -> None:
    tree = yaml.safe_load(spec.read_text(encoding="utf-8"))
    trial = Trial(spec.stem, "", 0, tree)
    known = json.loads(rates.read_text(encoding="utf-8"))
    out.write_text(yaml.safe_dump(resolve(trial, known), sort_keys=False), encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """The plan from the command line: `list` for people, `plan` and `resolve` for the workflow."""
    parser = argparse.ArgumentParser(prog="python -m ftmb.experiments", description=main.__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, text in (
        ("list", "print every trial in its order with the seconds it takes"),
        ("plan", "write the list of trials for the report"),
    ):
        words = verbs.add_parser(verb, help=text)
        words.add_argument("--config", type=Path, default=Path("config/experiments.yaml"))
        words.add_argument("--tier", choices=TIERS, default="quick")
        if verb == "plan":
            words.add_argument("--out", type=Path, required=True)
    words = verbs.add_parser("resolve", help="replace a share of the maximum in a spec by its rate")
    words.add_argument("spec", type=Path)
    words.add_argument("--rates", type=Path, required=True)
    words.add_argument("--out", type=Path, required=True)
    args = parser.parse_args(argv)
    try:
        if args.verb == "resolve":
            _resolve_file(args.spec, args.rates, args.out)
            return 0
        config = load(args.config)
        trials = plan(config, args.tier)
        if args.verb == "plan":
            text = json.dumps(manifest(trials, config, args.tier), indent=1)
            args.out.write_text(text + "\n", encoding="utf-8")
            return 0
        for trial in trials:
            print(f"{trial.position:4d}  {trial.expected_s:6.1f} s  {trial.id}")
        print(f"{len(trials)} trials, about {sum(t.expected_s for t in trials):.0f} s")
    except (PlanError, OSError, json.JSONDecodeError) as error:
        print(f"ftmb: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
