"""`ftmb report`: from the records under a results directory to one HTML page.

Three steps, each a pure function of what the one before wrote: `analysis` writes tables, `figures`
draws them, `page` puts everything into one file that needs neither a script nor a network. Without
`--step` all three run. Nothing here starts a process or measures anything.
"""

from __future__ import annotations

import argparse
import base64
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from ftmb import report_layout, report_tables
from ftmb.analysis import claims, endpoints, records, stability
from ftmb.analysis.metrics import Part
from ftmb.analysis.records import Results, Trial

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "report"
STEPS = ("analysis", "figures", "page")
CLASSES = {claims.HOLDS: "good", claims.FAILS: "bad", claims.OPEN: "open"}


def main(argv: Sequence[str] | None = None) -> int:
    """Entry of `ftmb report`; 0 when the page was written, whatever its verdicts."""
    parser = argparse.ArgumentParser(prog="ftmb report", description="Write the report page.")
    parser.add_argument("--results", type=Path, default=Path("results"), metavar="DIR")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: DIR/report.html")
    parser.add_argument("--claims", type=Path, default=records.CLAIMS)
    parser.add_argument("--step", choices=STEPS, help="one step only")
    parser.add_argument("--only", action="append", metavar="FIGURE", help="figures to draw")
    args = parser.parse_args(argv)
    out = args.out or args.results / "report.html"
    try:
        results = records.load(args.results)
        results.claims = args.claims
        if args.step in (None, "analysis"):
            write_tables(results, args.results / "analysis", args.claims)
        if args.step in (None, "figures"):
            from ftmb import figures  # late: the tables need no plotting library

            unknown = set(args.only or []) - set(figures.plots())
            if unknown:
                names = ", ".join(figures.plots())
                raise records.RecordError(f"no figure {sorted(unknown)[0]!r}; there are: {names}")
            figures.write(results, args.results / "figures", args.only)
        if args.step in (None, "page"):
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(page(results, args.claims), encoding="utf-8")
            print(out)
    except (records.RecordError, claims.ClaimError, OSError) as error:
        print(f"ftmb: {error}", file=sys.stderr)
        return 1
    return 0


def write_tables(results: Results, out: Path, claims_file: Path) -> None:
    """Everything known about the trials as CSV, verdicts included."""
    out.mkdir(parents=True, exist_ok=True)
    results.frame.to_csv(out / "trials.csv", index=False)
    results.recoveries.to_csv(out / "recoveries.csv", index=False)
    results.checks.to_csv(out / "checks.csv", index=False)
    results.noise.to_csv(out / "noise.csv", index=False)
    verdicts = claims.judge_all(claims.load(claims_file), results)
    lines = ["id,verdict,part,value,low,high,unit,n,reason"]
    for verdict in verdicts:
        for part in verdict.parts or [Part("", float("nan"), "")]:
            cells = [verdict.claim.id, verdict.verdict, part.label, part.value, part.low, part.high,
                     part.unit, part.n, verdict.reason]  # fmt: skip
            lines.append(",".join(_quoted(cell) for cell in cells))
    (out / "claims.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _quoted(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in ',"\n') else text


def page(results: Results, claims_file: Path) -> str:
    """The page as text. Figures are read from DIR/figures, all else is computed from records."""
    verdicts = claims.judge_all(claims.load(claims_file), results)
    sections = yaml.safe_load((ASSETS / "sections.yaml").read_text(encoding="utf-8"))["sections"]
    known = {section["id"] for section in sections}
    astray = [v.claim.id for v in verdicts if v.claim.section not in known]
    if astray:
        raise claims.ClaimError(f"{claims_file}: claim {astray[0]}: no such section of the page")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["figure"] = quantity
    return environment.get_template("page.html.j2").render(
        style=Markup((ASSETS / "style.css").read_text(encoding="utf-8")),
        verdicts=verdicts,
        classes=CLASSES,
        tally=tally(verdicts),
        stability=stability.judge(results, claims_file),
        warnings=warnings(results),
        facts=facts(results),
        sections=[_section(results, section) for section in sections],
        purposes=results.purposes,
        trials=sorted(results.trials, key=lambda t: str(t.record.get("started"))),
        missing=results.missing,
        left_out=results.left_out,
        row=results.frame.set_index("trial").to_dict("index"),
        number=report_layout.number,
        fingerprint=records.fingerprint(results),
    )


def tally(verdicts: Sequence[claims.Verdict]) -> str:
    """The verdicts in one sentence."""
    count = Counter(verdict.verdict for verdict in verdicts)
    parts = [f"{count[claims.HOLDS]} of {len(verdicts)} claims hold"]
    if failed := count[claims.FAILS]:
        parts.append(f"{failed} {'does' if failed == 1 else 'do'} not hold")
    if left := count[claims.OPEN]:
        parts.append(f"{left} cannot be judged on this machine")
    return ", ".join(parts) + "."


def quantity(part: Part) -> str:
    """A measured value in words: value, interval, unit."""
    form = ",.0f" if part.value == int_or(part.value) else ",.2f" if part.value < 10 else ",.1f"
    text = f"{part.value:{form}}"
    if part.low is not None and part.high is not None:
        text += f" [{part.low:{form}}, {part.high:{form}}]"
    return f"{text} {part.unit}".strip()


def int_or(value: float) -> float:
    """The value rounded, or itself where it has no integer (infinite)."""
    return round(value) if abs(value) < 1e15 else value


def warnings(results: Results) -> list[str]:
    """What a reader must know before believing any figure; empty when all is as it should be."""
    found = []
    if any(trial.synthetic for trial in results.trials):
        found.append("Synthetic records, made up by a test: nothing on this page was measured.")
    made = records.builds(results)
    if len(made) > 1:
        differing = [k for k in made[0] if k != "records" and len({b[k] for b in made}) > 1]
        counts = " + ".join(build["records"] for build in made)
        same = "node_sha256" not in differing
        found.append(
            f"The records come from {len(made)} builds ({counts} records), which differ in "
            f"{', '.join(differing)}. "
            + ("The data plane program is the same." if same else "No claim is judged from them.")
        )
    if any(build["dirty"] == "True" for build in made):
        found.append("The source tree had uncommitted changes when these records were made.")
    made_by = Counter(trial.generator for trial in results.trials)
    for name in sorted(set(made_by) - {"native"}):
        found.append(
            f"The generator {name} measured {made_by[name]} of {len(results.trials)} records; what "
            "it does not measure is a dash, not a zero."
        )
    invalid = [trial for trial in results.trials if trial.problems]
    if invalid:
        found.append(
            f"{len(invalid)} of {len(results.trials)} records are not valid and are left out of "
            "what is timed; harm they did is counted. They are named at the end of the page."
        )
    if results.missing:
        found.append(f"{len(results.missing)} planned trials have no record.")
    for why in sorted(set(results.left_out.values())):
        count = list(results.left_out.values()).count(why)
        found.append(f"{count} planned trials were left out: {why}")
    return found


def facts(results: Results) -> list[tuple[str, str]]:
    """The session in a few words."""
    record = results.trials[0].record
    environment, versions = record.get("environment") or {}, record.get("versions") or {}
    cpu = environment.get("cpu") or {}
    started = sorted(str(t.record.get("started")) for t in results.trials)
    revision = str(versions.get("git") or "unknown")[:12]
    return [
        ("machine", f"{cpu.get('model', '?')}, {len(cpu.get('available') or [])} CPUs"),
        ("system", f"{environment.get('os', '?')}, Linux {environment.get('kernel', '?')}"),
        ("trials", f"{len(results.trials)}, {results.tier} tier"),
        ("measured", period(started[0], started[-1])),
        ("revision", revision + (" (with changes)" if versions.get("dirty") else "")),
        ("data plane", f"{versions.get('dpdk', '?')}, compiler {versions.get('compiler', '?')}"),
    ]


def period(first: str, last: str) -> str:
    """Two ISO times as one span, without repeating the day: `2026-01-01 10:00 to 10:09 UTC`."""
    begin, end = first[:16].replace("T", " "), last[:16].replace("T", " ")
    return f"{begin} to {end[11:] if end[:10] == begin[:10] else end} UTC"


def _section(results: Results, section: dict[str, Any]) -> dict[str, Any]:
    tables = [report_tables.TABLES[name](results) for name in section.get("tables", [])]
    drawn = [_figure(results, entry) for entry in section.get("figures", [])]
    return {**section, "tables": tables, "figures": drawn}


MADE_BY = {
    False: "ftmb trial results/specs/NAME.yaml --out results/trials/NAME",
    True: "make trials OF=endpoints",
}


def _figure(results: Results, entry: dict[str, str]) -> dict[str, Any]:
    from ftmb import figures

    name = entry["name"]
    plot = figures.plots()[name]
    path = results.root / "figures" / f"{name}.svg"
    if not path.is_file():
        raise records.RecordError(f"{path} is missing: run `ftmb report --step figures` first")
    table = path.with_suffix(".csv").read_bytes()
    svg = figures.embed(path.read_text(encoding="utf-8"), name, entry["title"])
    sources = results.of(*plot.experiments) if plot.experiments else results.trials
    return {
        **entry,
        "svg": Markup(svg),
        "csv": "data:text/csv;charset=utf-8;base64," + base64.b64encode(table).decode(),
        "rows": max(table.count(b"\n") - 1, 0),
        "sources": [source(trial) for trial in sorted(sources, key=lambda t: t.id)]
        + [endpoints.source(run) for run in endpoints.read(results) if plot.endpoints],
        "made_by": MADE_BY[plot.endpoints],
        "redraw": f"ftmb report --results {results.root.name} --step figures --only {name}",
    }


def source(trial: Trial) -> dict[str, str]:
    """Where a record lies, seen from the page that stands in the results directory."""
    return {"id": trial.id, "href": f"trials/{trial.id}/record.json"}


if __name__ == "__main__":
    sys.exit(main())
