"""docs/TUTORIAL.md, followed literally in a copy of the tree: its commands are run, its code is
pasted, and what it says will be shown is shown."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, gone
from test_tidy import project_files

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # it builds, on any machine

BLOCK = re.compile(r"^```(sh|c|text)(?: ([^\n]+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)
BUILD = Path("results/build/release")
KEPT = {".o", ".a", ".h", ".ninja_log", ".ninja_deps"}


def run(tree: Path, *words: str) -> tuple[int, str]:
    """A command in the copy; its exit code and all that it says."""
    done = subprocess.run(
        words,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=600,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.fixture
def tree(node: Path, tmp_path: Path) -> Path:
    """A clone that was built: the sources as they are, and objects of this build, which a build in
    another place takes for its own (its commands name no absolute paths)."""
    copy = tmp_path / "clone"
    for path in project_files(ROOT):
        target = copy / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    git = ("git", "-c", "user.name=t", "-c", "user.email=t@localhost")
    for words in (
        (*git, "init", "-q"),
        (*git, "add", "-A"),
        (*git, "commit", "-qm", "a clone"),
        (".venv/bin/meson", "setup", str(BUILD), "native", "--buildtype=release",
         "-Db_ndebug=false"),
    ):  # fmt: skip
        code, output = run(copy, *words)
        assert code == 0, output
    for path in node.parent.rglob("*"):
        if path.suffix in KEPT or path.name in KEPT:
            target = copy / BUILD / path.relative_to(node.parent)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    return copy


def test_tutorial(tree: Path) -> None:
    text = (tree / "docs/TUTORIAL.md").read_text(encoding="utf-8")
    blocks = BLOCK.findall(text)
    assert {kind for kind, _, _ in blocks} == {"sh", "c", "text"}
    assert len(blocks) == text.count("\n```") / 2, "a block of a kind that is not followed"
    output = ""
    for kind, words, content in blocks:
        if kind == "c":
            path, _, continued = words.partition(" ")
            old = (tree / path).read_text(encoding="utf-8") if continued else ""
            (tree / path).write_text(old + content, encoding="utf-8")
        elif kind == "text":
            missing = [line for line in content.splitlines() if line not in output]
            assert not missing, output
        else:
            code, output = run(tree, "bash", "-ec", content)
            assert (code != 0) == (words == "fails"), output
    assert not gone(str(tree / BUILD / "ftmb-node"))
