"""`ftmb new-nf`: names and places that are refused, and that what it makes is tidy. That it builds,
and survives its crash, is seen where the tutorial is followed (test_tutorial.py)."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import ROOT, one_line
from test_layers import c_violations
from test_tidy import complaints

from ftmb import cli, new_nf

LONGEST = "abcdefghijklmnopqrstuvwx"


def git(tree: Path, *words: str) -> None:
    identity = ("-c", "user.name=t", "-c", "user.email=t@localhost")
    subprocess.run(["git", *identity, *words], cwd=tree, check=True, capture_output=True)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The sources, committed, and the working directory."""
    tree = tmp_path / "clone"
    shutil.copytree(ROOT / "native", tree / "native")
    (tree / "config/examples").mkdir(parents=True)
    shutil.copy2(ROOT / ".clang-format", tree)
    git(tree, "init", "-q")
    git(tree, "add", "-A")
    git(tree, "commit", "-qm", "sources")
    monkeypatch.chdir(tree)
    return tree


def changes(tree: Path) -> list[str]:
    words = ["git", "status", "--porcelain", "--untracked-files=all"]
    done = subprocess.run(words, cwd=tree, check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.parametrize("name", ["a", LONGEST])
def test_made_is_tidy(tree: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new-nf", name]) == 0
    shown = capsys.readouterr().out
    paths = [line[3:] for line in changes(tree)]
    assert len(paths) == len(new_nf.MADE) + len(new_nf.CHANGED)
    assert all(path in shown for path in paths)
    found = [c for path in paths for c in complaints(path, (tree / path).read_text("utf-8"))]
    assert found == []
    assert list(c_violations(tree / "native")) == []
    c_files = [path for path in paths if path.endswith(".c")]
    assert len(c_files) == 5
    subprocess.run(["clang-format", "--dry-run", "-Werror", *c_files], cwd=tree, check=True)


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("9lives", "is no name"),
        ("port-knock", "is no name"),
        ("Seats", "is no name"),
        ("../seats", "is no name"),
        (LONGEST + "y", "is no name"),
        ("while", "means something in C"),
        ("time", "means something in C"),
        ("linux", "means something in C"),
        ("unix", "means something in C"),
        ("arena", "means something in C or in FTMB"),
        ("counts", "means something in C or in FTMB"),
        ("nat", "is there already (native/nf/nat.c)"),
        ("packet", "is there already (native/nf/packet.h)"),
        ("replay", "means something in C or in FTMB"),
        ("containers", "is there already (native/tests/test_nf_containers.c)"),
        ("registry", "is there already (native/nf/registry.c)"),
        ("find", "is there already (an entry in native/nf/registry.c)"),
    ],
)
def test_names_refused(
    tree: Path, name: str, cause: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new-nf", name]) == 2
    error = one_line(capsys.readouterr().err)
    assert cause in error
    assert "choose another name" in error or "write up to 24" in error
    assert changes(tree) == []


def refused(tree: Path, capsys: pytest.CaptureFixture[str]) -> str:
    before = changes(tree) if (tree / ".git").exists() else None
    assert cli.main(["new-nf", "seats"]) == 3
    assert before is None or changes(tree) == before
    assert not (tree / "native/nf/seats.c").exists()
    return one_line(capsys.readouterr().err)


def test_dirty_place(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with (tree / "native/nf/registry.c").open("a") as file:
        file.write("/* mine */\n")
    error = refused(tree, capsys)
    assert "native/nf/registry.c has changes that are not committed" in error
    assert "git stash" in error
    git(tree, "commit", "-qam", "mine")
    assert cli.main(["new-nf", "seats"]) == 0


def test_place_without_git(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(tree / ".git")
    assert "git does not know this place" in refused(tree, capsys)


@pytest.mark.parametrize("path", new_nf.CHANGED)
def test_other_trees(tree: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A file in which there is no place to enter the function, or that is not there."""
    (tree / path).write_text("nothing\n", encoding="utf-8")
    git(tree, "commit", "-qam", "another tree")
    assert f"{path} does not look as expected" in refused(tree, capsys)
    (tree / path).unlink()
    assert f"{path} is not there" in refused(tree, capsys)
