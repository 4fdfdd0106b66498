"""The README's promises: every command in it is run, or dry-run where it takes long; the table of
claims is the one in config/claims.yaml."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
ROW = re.compile(r"^\| *`([^`]+)` *\|.*\| *`([^`]+)` *\|[^|]*\|\s*$", re.MULTILINE)
COMMAND = re.compile(r"(make|snakemake|ftmb|\.venv/bin/\w+)( |$)")


def commands_of(text: str) -> list[str]:
    """The commands of a document: all lines of its `sh` blocks, and those in its code spans."""
    lines = [
        line.split("  #")[0].strip()
        for block in BLOCK.findall(text)
        for line in block.replace("\\\n", " ").splitlines()
    ]
    spans = [
        span for span in re.findall(r"`([^`\n]+)`", BLOCK.sub("", text)) if COMMAND.match(span)
    ]
    # A name alone is not a command, and "..." or SPEC make a form.
    form = re.compile(r"\b(SPEC|DIR|NAME|ID)\b|\.\.\.|^\S*ftmb( trial)?$|^\S*snakemake$|^make$")
    whole = [span for span in spans if not form.search(span)]
    found = {" ".join(line.split()) for line in [*lines, *whole] if not line.startswith("#")}
    return sorted(found - {""})


def rehearsal(command: str, out: Path) -> list[str]:
    """What shows that `command` works, in seconds: itself, or a dry run where it takes longer."""
    words = shlex.split(command)
    if "=" in words[0]:  # an assignment before the command: env does it
        words = ["env", *words]
    program = words[0].rsplit("/", 1)[-1]
    if program == "make" and "reproduce" in words:
        tier = [w.split("=")[1] for w in words if w.startswith("TIER=")]
        return ["snakemake", "--cores", "all", "--dry-run", *(f"--config=tier={t}" for t in tier)]
    if program == "make" and "trials" in words:
        (names,) = [w.removeprefix("OF=") for w in words if w.startswith("OF=")]
        return ["env", "DRY=1", "envs/trials.sh", "quick", *names.split()]
    if program in {"make", "env"}:
        return [*words, "--dry-run"]
    if program == "snakemake":
        if (
            "--report" in words
        ):  # needs all results; that the workflow is sound is what can be shown
            del words[words.index("--report") :]
        return [*words, "--dry-run"]
    if program == "ftmb" and words[1:2] == ["trial"] and "--out" in words:
        words[words.index("--out") + 1] = str(out)
        return ["ftmb", *words[1:]]
    if program == "ftmb" and words[1:2] == ["report"]:
        return ["ftmb", "report", "--help"]
    if program == "ftmb":
        return ["ftmb", *words[1:]]
    if program == "git" and words[1] in {"clone", "status"}:
        return ["git", "--version"]
    raise AssertionError(f"the README has a command that no rehearsal knows: {command}")


@pytest.mark.parametrize("command", commands_of(README))
def test_command(command: str, node: Path, tmp_path: Path) -> None:
    venv = ROOT / ".venv" / "bin"
    done = subprocess.run(
        rehearsal(command, tmp_path / "out"),
        cwd=ROOT,
        env={**os.environ, "PATH": f"{venv}{os.pathsep}{os.environ['PATH']}", "MAKEFLAGS": ""},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_the_two_commands_are_there() -> None:
    assert {"make reproduce", "make test"} <= set(commands_of(README))


def test_rehearsal_refuses_what_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="no rehearsal"):
        rehearsal("rm -r results", tmp_path)


def claims() -> list[dict[str, Any]]:
    """The claims of config/claims.yaml."""
    content = yaml.safe_load((ROOT / "config" / "claims.yaml").read_text(encoding="utf-8"))
    return list(content["claims"] if isinstance(content, dict) else content)


def test_every_claim_is_in_the_table() -> None:
    """The same claims, in the same order: typed twice, compared here."""
    table = ROW.findall(README)
    assert [row[0] for row in table] == [claim["id"] for claim in claims()]
    assert all(command.startswith("make ") for _, command in table)


def test_no_measured_number_is_promised() -> None:
    """Results belong in the report, where a command makes them; the README states none."""
    text = BLOCK.sub("", README)
    figures = re.findall(
        r"\d[\d.,]* ?(?:Mpps|kpps|pps|million packets per second|µs|us\b|Gbit/s)", text, re.I
    )
    stated = [figure for figure in figures if figure not in str(claims())]
    assert stated == []
