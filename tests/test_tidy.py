"""House rules, cheaper to enforce than to remember: sizes, comments, no traces of a machine."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

FILE_LINES = {".c": 500, ".h": 500, ".py": 400, ".smk": 120, ".sh": 150}
FUNCTION_LINES = 70
LINE_COLUMNS = 100

# Written in pieces so that this file does not break its own rules.
LEFT_OVER = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b")
MACHINE_PATH = re.compile(
    r"(?<![\w.}\])-])/(wo" + r"rk|ho" + r"me|ro" + r"ot|op" + r"t|mn" + r"t|Us" + r"ers)/\w"
    r"|\.\./sha" + r"red|\.lib" + r"rary/"
)  # fmt: skip
REGISTRY = re.compile(
    r"py" + r"pi\.org|python" + r"hosted\.|deb" + r"\.debian\.|security" + r"\.debian\."
    r"|npm" + r"js\.|crates" + r"\.io|ana" + r"conda\.org|proxy" + r"\.golang"
)  # fmt: skip
BINARY = {".pcap", ".png", ".gz"}
ANY_BYTES = "native/fuzz/corpus/"


def project_files(root: Path) -> list[Path]:
    """Every file that is, or would be, committed."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return sorted(path for name in listing.split("\0") if name and (path := root / name).is_file())


def long_c_functions(text: str) -> Iterator[tuple[str, int]]:
    """(signature, lines) of each function over the limit; relies on .clang-format's braces."""
    lines = text.splitlines()
    start: int | None = None
    for number, line in enumerate(lines):
        if line == "{" and start is None:
            start = number
            while start > 0 and lines[start - 1] and lines[start - 1][-1] not in ";}/\\":
                start -= 1
        elif line.startswith("}") and start is not None:
            if number - start + 1 > FUNCTION_LINES:
                brace = lines.index("{", start)
                yield " ".join(lines[start:brace]), number - start + 1
            start = None


def long_python_functions(text: str) -> Iterator[tuple[str, int]]:
    """(name, lines) of each function over the limit, decorators not counted."""
    for item in ast.walk(ast.parse(text)):
        if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (item.end_lineno or item.lineno) - item.lineno + 1
            if lines > FUNCTION_LINES:
                yield item.name, lines


def complaints(name: str, text: str) -> Iterator[str]:
    """Everything that is wrong with one file, one line each."""
    suffix = Path(name).suffix
    lines = text.splitlines()
    if len(lines) > FILE_LINES.get(suffix, len(lines)):
        yield f"{name}: {len(lines)} lines, at most {FILE_LINES[suffix]}"
    for number, line in enumerate(lines, 1):
        where = f"{name}:{number}"
        if suffix in FILE_LINES and len(line) > LINE_COLUMNS:
            yield f"{where}: {len(line)} columns, at most {LINE_COLUMNS}"
        if line != line.rstrip() and suffix != ".md":
            yield f"{where}: white space at the end"
        for rule, what in (
            (LEFT_OVER, "a left-over marker"),
            (MACHINE_PATH, "a path of one machine"),
            (REGISTRY, "the host of a package registry"),
        ):
            if match := rule.search(line):
                yield f"{where}: {what}: {match.group()}"
    if text and not text.endswith("\n"):
        yield f"{name}: no newline at the end"
    if suffix in {".c", ".h"}:
        if not text.startswith("/*"):
            yield f"{name}: a C file begins with a comment that says what it is for"
        for what, count in long_c_functions(text):
            yield f"{name}: {count} lines in `{what}`, at most {FUNCTION_LINES}"
    if suffix == ".py":
        if text.strip() and ast.get_docstring(ast.parse(text)) is None:
            yield f"{name}: a module begins with a docstring that says what it is for"
        for what, count in long_python_functions(text):
            yield f"{name}: {count} lines in `{what}`, at most {FUNCTION_LINES}"


def test_every_file_is_tidy(root: Path) -> None:
    found = []
    for path in project_files(root):
        name = path.relative_to(root).as_posix()
        # The licence is not ours to format.
        if path.suffix in BINARY or name == "LICENSE" or name.startswith(ANY_BYTES):
            continue
        text = path.read_text(encoding="utf-8")
        found += list(complaints(name, text))
    assert not found, "\n" + "\n".join(found)


MANY = "    x();\n" * FUNCTION_LINES


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.c", "int x;\n", "begins with a comment"),
        ("a.c", f"/* a */\nint\nf(void)\n{{\n{MANY}}}\n", "74 lines in `int f(void)`"),
        ("a.c", "/* a */\n" + "int x;\n" * 500, "501 lines"),
        ("a.py", '"""a."""\n' + "x = 1\n" * 400, "401 lines"),
        ("a.py", '"""a."""\n\n\ndef f():\n' + "    x()\n" * 70, "71 lines in `f`"),
        ("a.py", "x = 1\n", "begins with a docstring"),
        ("a.py", '"""a."""\nx = "' + "y" * 100 + '"\n', "columns"),
        ("a.md", "see " + "TO" + "DO\n", "left-over"),
        ("a.md", "in /" + "home/me\n", "path of one machine"),
        ("a.md", "from py" + "pi.org\n", "registry"),
        ("a.md", "no newline", "no newline"),
    ],
    ids=[
        "header",
        "c-function",
        "c-file",
        "py-file",
        "py-function",
        "docstring",
        "columns",
        "marker",
        "path",
        "registry",
        "newline",
    ],
)
def test_tidy_catches(name: str, text: str, expected: str) -> None:
    assert any(expected in complaint for complaint in complaints(name, text))


def test_tidy_lets_good_files_pass() -> None:
    good = "/* What it is. */\nint f(int x)\n{\n    return x;\n}\n"
    assert list(complaints("a.c", good)) == []
    assert list(complaints("a.py", '"""What it is."""\n\nx = "a/work/b"\n')) == []


LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(#[^)\s]*)?\)")


def test_links_between_documents_lead_somewhere(root: Path) -> None:
    broken = []
    for path in project_files(root):
        if path.suffix != ".md":
            continue
        for target, _ in LINK.findall(path.read_text(encoding="utf-8")):
            if not target.startswith(("http:", "https:")) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(root)}: {target}")
    assert broken == []


def test_scripts_can_be_run(root: Path) -> None:
    scripts = [p for p in project_files(root) if p.read_bytes()[:2] == b"#!"]
    assert scripts
    assert [str(p) for p in scripts if not p.stat().st_mode & 0o100] == []


def test_lock_names_every_requirement_with_hashes(root: Path) -> None:
    lock = (root / "envs" / "requirements.txt").read_text(encoding="utf-8")
    entries = re.findall(
        r"^([a-z0-9._-]+)==[^\n]*((?:\n    --hash=sha256:[0-9a-f]{64}[^\n]*)*)", lock, re.M
    )
    locked = {name for name, hashes in entries if hashes}
    assert len(locked) == len({name for name, _ in entries}), "an entry has no hash"
    wanted = re.findall(
        r"^([a-z0-9._-]+)", (root / "envs" / "requirements.in").read_text(encoding="utf-8"), re.M
    )
    assert set(wanted) <= locked


def test_conda_files_agree_with_the_lock(root: Path) -> None:
    lock = (root / "envs" / "requirements.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9._-]+==[^ ;]+)", lock, re.M))
    files = sorted((root / "envs").glob("*.yaml"))
    assert files
    for path in files:
        pins = re.findall(r"^  - ([a-z0-9._-]+)=([^=\s]+)$", path.read_text(encoding="utf-8"), re.M)
        wanted = {f"{name}=={version}" for name, version in pins if name != "python"}
        assert wanted and wanted <= locked, f"{path.name}: {sorted(wanted - locked)}"


def test_debian_packages_have_reasons(root: Path) -> None:
    lines = (root / "envs" / "debian.txt").read_text(encoding="utf-8").splitlines()
    entries = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    assert entries
    assert [entry[0] for entry in entries if len(entry) < 2] == []
