"""The report: one self-contained page from records, with its data and its warnings."""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
import synthetic
import synthetic_endpoints
import yaml

from ftmb import experiments, figures, report, report_tables
from ftmb.analysis import reliability

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Outline(HTMLParser):
    """Collects tags, ids and addresses, and checks that tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        self._attributes(attrs)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._attributes(attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def _attributes(self, attrs: list[tuple[str, str | None]]) -> None:
        for key, value in attrs:
            if key == "id" and value:
                self.ids.append(value)
            if key in ("href", "src", "xlink:href") and value:
                self.addresses.append(value)


@pytest.fixture(scope="module")
def results(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results directory of synthetic records of every experiment."""
    config = experiments.load(root / "config" / "experiments.yaml")
    config["experiments"]["crash"]["trials"] = 8
    path = tmp_path_factory.mktemp("results")
    synthetic.write(path, experiments.plan(config, "quick"), config)
    synthetic.write_reliability(path)
    synthetic_endpoints.write_all(path)
    assert report.main(["--results", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def page(results: Path) -> str:
    """The page made from them."""
    return (results / "report.html").read_text(encoding="utf-8")


def outline(text: str) -> Outline:
    parser = Outline()
    parser.feed(text)
    parser.close()
    return parser


def test_page_is_well_formed_and_links_lead_somewhere(page: str, results: Path) -> None:
    found = outline(page)
    assert found.open == []
    assert len(found.ids) == len(set(found.ids))
    for address in found.addresses:
        if address.startswith("#"):
            assert address[1:] in found.ids, address
        elif not address.startswith("data:"):
            assert (results / address).is_file(), address


def test_page_needs_no_script_and_no_network(page: str) -> None:
    found = outline(page)
    assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
    body = re.sub(r'xmlns(:xlink)?="[^"]*"', "", page)
    assert "http://" not in body
    assert "https://" not in body
    assert "@import" not in page


def test_claims_with_verdicts_come_first(page: str, root: Path) -> None:
    claimed = yaml.safe_load((root / "config" / "claims.yaml").read_text())["claims"]
    rows = [page.index(f'id="claim-{claim["id"]}"') for claim in claimed]
    assert rows == sorted(rows)
    assert max(rows) < page.index("<figure")
    words = re.findall(r'<span class="chip \w+">([^<]+)</span>', page)
    assert len(words) == len(claimed)
    assert set(words) <= {"holds", "does not hold", "cannot be judged"}


def test_light_dark_and_print(page: str) -> None:
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    for colour in figures.COLOURS.values():
        inside = "".join(re.findall(r"<svg.*?</svg>", page, re.DOTALL))
        assert colour not in inside, "a colour that cannot follow the scheme"


def test_css_knows_the_colours_of_the_figures(root: Path) -> None:
    css = (root / "report" / "style.css").read_text()
    light, dark = css.split("@media (prefers-color-scheme: dark)", 1)
    for name in figures.COLOURS:
        assert f"--{name}:" in light, name
        assert f"--{name}:" in dark, name


def test_every_figure_has_its_data_records_and_command(page: str, results: Path) -> None:
    for name in figures.plots():
        part = page[page.index(f'id="figure-{name}"') :]
        part = part[: part.index("</figure>")]
        data = re.search(rf'download="{name}.csv" href="data:text/csv[^,]*,([^"]+)"', part)
        assert data, name
        assert base64.b64decode(data[1]) == (results / "figures" / f"{name}.csv").read_bytes()
        assert f"--only {name}" in part
        assert re.search(r'href="(trials|endpoints)/', part)
        assert "<svg" in part


def test_figures_stay_small(results: Path) -> None:
    for path in (results / "figures").glob("*.svg"):
        assert path.stat().st_size <= figures.MAX_BYTES, path.name


def test_synthetic_records_are_called_so(page: str) -> None:
    assert "nothing on this page was measured" in page


def test_the_same_records_make_the_same_page(results: Path, page: str) -> None:
    assert report.main(["--results", str(results)]) == 0
    assert (results / "report.html").read_text(encoding="utf-8") == page


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Callable[..., str]:
    """Makes a page of a few records after altering them."""

    def make(alter: Callable[[Path, list[str]], None], *wanted: str) -> str:
        config = experiments.load(root / "config" / "experiments.yaml")
        config["experiments"]["crash"]["trials"] = 4
        trials = [t for t in experiments.plan(config, "quick") if t.experiment in wanted]
        synthetic.write(tmp_path, trials, config)
        alter(tmp_path / "trials", [t.id for t in trials])
        assert report.main(["--results", str(tmp_path)]) == 0
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return make


def edit(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_mixed_builds_are_announced(copy: Any) -> None:
    def alter(trials: Path, names: list[str]) -> None:
        edit(trials / names[0] / "record.json", lambda r: r["versions"].update(node_sha256="ff"))

    text = copy(alter, "throughput", "crash")
    assert "The records come from 2 builds" in text
    assert "No claim is judged from them" in text
    assert '<span class="chip good">' not in text


def test_mixed_revisions_of_one_program_are_announced(copy: Any) -> None:
    def alter(trials: Path, names: list[str]) -> None:
        edit(trials / names[0] / "record.json", lambda r: r["versions"].update(git="1111111"))

    text = copy(alter, "throughput", "crash")
    assert "differ in git" in text
    assert "The data plane program is the same" in text
    assert '<span class="chip good">' in text


def test_invalid_records_are_named_and_text_is_escaped(copy: Any) -> None:
    def alter(trials: Path, names: list[str]) -> None:
        for name in names:
            edit(trials / name / "record.json", lambda r: r.update(valid="1 < 2 & <b>late</b>"))

    text = copy(alter, "throughput")
    assert "records are not valid and are left out" in text
    assert "is not valid: 1 &lt; 2 &amp; &lt;b&gt;late&lt;/b&gt;" in text
    assert "no valid record for this figure" in text
    assert '<span class="chip good">' not in text


def test_a_page_from_one_experiment_is_still_a_page(copy: Any) -> None:
    text = copy(lambda trials, names: None, "crash")
    assert "No valid record for this table" in text
    commands = ("sim", "model", "trials OF=chaos", "trials OF=faults", "fuzz")
    for missing in (f"make {command}" for command in commands):
        assert f"not made: {missing}" in text, "absence is no success"
    assert outline(text).open == []


def section(text: str, name: str) -> str:
    part = text[text.index(f'<section id="{name}">') :]
    return part[: part.index("</section>")]


def test_reliability_has_a_row_for_each_kind_of_fault(page: str) -> None:
    part = section(page, "reliability")
    for words in reliability.ROWS.values():
        assert f"<td>{words}</td>" in part
    assert "not made" not in part
    assert "5,000" in part and "7 to 5,006" in part
    assert "make sim SEEDS=5000 SEED_BASE=7" in part
    assert "P01" in part and "M01" in part and "123,456" in part
    assert "cut inside packet" in part
    assert re.search(r"<td>delta</td><td class=\"n\">1,000,000</td>", part)


def test_a_violation_is_printed_with_its_seed(copy: Any) -> None:
    def alter(trials: Path, names: list[str]) -> None:
        synthetic.write_reliability(trials.parent)
        edit(trials.parent / "reliability" / "sim.json",
             lambda r: r.update(violations=[{"seed": 4711, "what": "I2: lost"}]))  # fmt: skip
        edit(trials.parent / "reliability" / "plants.json",
             lambda r: r["plants"][0].update(found_by="none"))  # fmt: skip

    text = copy(alter, "chaos")
    part = section(text, "reliability")
    assert "violation, seed 4711" in part and "I2: lost" in part
    assert re.search(r"<td>nothing</td>", part)
    for claim in ("simulator", "planted-bugs"):
        row = text[text.index(f'id="claim-{claim}"') :]
        assert "does not hold" in row[: row.index("</tr>")]


def test_an_incident_that_went_wrong_counts_against_its_row(copy: Any) -> None:
    def alter(trials: Path, names: list[str]) -> None:
        def spoil(record: dict[str, Any]) -> None:
            record["faults"][0].update(guaranteed=False, missing=["no failover"])

        edit(trials / "faults-kill-backup-00" / "record.json", spoil)

    text = copy(alter, "faults")
    row = re.search(r"<tr><td>backup killed</td>.*?</tr>", section(text, "reliability"), re.DOTALL)
    assert row and "5 of 6" in row[0]
    claim = text[text.index('id="claim-faults"') :]
    assert "does not hold" in claim[: claim.index("</tr>")]


def test_a_file_that_is_no_result_is_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for text in ("{", '{"version": 1, "kind": "model"}'):
        shutil.copytree(results / "trials", tmp_path / "trials", dirs_exist_ok=True)
        (tmp_path / "reliability").mkdir(exist_ok=True)
        (tmp_path / "reliability" / "sim.json").write_text(text)
        assert report.main(["--results", str(tmp_path), "--step", "analysis"]) == 1
        assert "sim.json" in capsys.readouterr().err


def test_wrong_arguments_are_one_line(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main(["--results", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("ftmb: no records under")
    wrong = ["--results", str(results), "--step", "figures", "--only", "wishes"]
    assert report.main(wrong) == 1
    assert "no figure 'wishes'" in capsys.readouterr().err


def test_sections_name_figures_tables_and_no_numbers(root: Path) -> None:
    text = (root / "report" / "sections.yaml").read_text()
    sections = yaml.safe_load(text)["sections"]
    shown = [entry["name"] for s in sections for entry in s.get("figures", [])]
    assert sorted(shown) == sorted(figures.plots())
    tables = [name for s in sections for name in s.get("tables", [])]
    assert sorted(tables) == sorted(report_tables.TABLES)


@pytest.mark.parametrize(
    ("value", "expected"), [(None, "n too small"), (12_345.0, "12.3"), (1_234_567.0, "1,235")]
)
def test_latencies_in_words(value: float | None, expected: str) -> None:
    assert report_tables.microseconds(value) == expected
