"""`ftmb new-nf NAME`: a network function that works, to be changed into another.

Made are its code, a C test and an example of a trial, from the templates beside this file; entered
are its name in the registry, in the build, and in the tests that run every function: that of
marks and that of replays."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import jinja2

from ftmb.describe import project_root
from ftmb.errors import MachineError, SpecError

TEMPLATES = Path(__file__).parent / "templates"
MADE = {
    "nf.c.j2": "native/nf/{}.c",
    "test_nf.c.j2": "native/tests/test_nf_{}.c",
    "example.yaml.j2": "config/examples/{}.yaml",
}
NAME = re.compile(r"[a-z][a-z0-9_]{0,23}")
KEYWORDS = re.compile(
    r"auto|bool|break|case|char|const|continue|default|do|double|else|enum|extern|false|float|for|"
    r"goto|if|inline|int|long|register|restrict|return|short|signed|sizeof|static|struct|switch|"
    r"true|typedef|union|unsigned|void|volatile|while|"
    r"linux|unix"  # macros in the GNU dialect of C
)


def _between(text: str, begin: str, end: str, change: Callable[[str], str]) -> str | None:
    """`text` with what stands between two marks changed; None: it has no such marks."""
    head, found, rest = text.partition(begin)
    inside, closed, tail = rest.partition(end)
    return head + begin + change(inside) + end + tail if found and closed else None


def _sorted_in(line: str) -> Callable[[str], str]:
    return lambda inside: "".join(sorted([*inside.splitlines(keepends=True), line]))


def _registry(text: str, name: str) -> str | None:
    declared = text.replace(";\n\n", f";\nextern const struct nf nf_{name};\n\n", 1)
    entered = declared.replace("    &nf_mortal,\n", f"    &nf_{name},\n    &nf_mortal,\n", 1)
    return entered if text != declared != entered else None


def _before(anchor: str, line: str) -> Callable[[str, str], str | None]:
    def change(text: str, name: str) -> str | None:
        head, found, tail = text.partition(anchor)
        return head + line.format(name) + found + tail if found else None

    return change


CHANGED: dict[str, Callable[[str, str], str | None]] = {
    "native/nf/registry.c": _registry,
    "native/nf/meson.build": lambda text, name: _between(
        text, "nf_sources = files(\n", ")\n", _sorted_in(f"  '{name}.c',\n")
    ),
    "native/tests/meson.build": lambda text, name: _between(
        text, "nf_tests = {\n", "}\n", _sorted_in(f"  '{name}': true,\n")
    ),
    "native/tests/test_nf_marks.c": _before(
        '        test_marks(nf_find("mortal"), NULL',
        '        test_marks(nf_find("{}"), NULL, test_random(&seed));\n',
    ),
    "native/tests/test_nf_replay.c": _before(
        "#ifndef FTMB_TSAN /* its arena lies where the thread sanitizer allows no mapping */\n"
        "        const struct harness_setting plain",
        '        test_function(nf_find("{}"), NULL, seed, locked);\n',
    ),
}


def _check_name(root: Path, name: str) -> None:
    if not NAME.fullmatch(name):
        raise SpecError(
            f"`{name}` is no name for a network function: write up to 24 small letters, digits and "
            "underscores, a letter first, since it becomes a name in C and of files"
        )
    headers = [root / "native/nf/nf.h", *(root / "native/core").glob("*.h")]
    read = [*headers, TEMPLATES / "nf.c.j2"]  # it has structs of its own
    struct = re.compile(rf"\b(struct|enum) {name}\b")
    poison = (root / "native/nf/nf_poison.h").read_text("utf-8")
    if (
        KEYWORDS.fullmatch(name)
        or re.search(rf"^#pragma GCC poison.* {name}\b", poison, re.MULTILINE)
        or any(struct.search(path.read_text("utf-8")) for path in read)
    ):
        raise SpecError(f"`{name}` means something in C or in FTMB: choose another name")
    taken = [path.format(name) for path in MADE.values() if (root / path.format(name)).exists()]
    if re.search(rf'"{name}"|\bnf_{name}\b', (root / "native/nf/registry.c").read_text("utf-8")):
        taken.append("an entry in native/nf/registry.c")
    if (root / f"native/nf/{name}.h").exists():
        taken.append(f"native/nf/{name}.h")
    if taken:
        raise SpecError(
            f"`{name}` is there already ({taken[0]}): choose another name, or remove it"
        )


def _check_place(root: Path) -> None:
    """What is changed can be told from what was being worked on: `git diff` shows, git undoes."""
    for path in CHANGED:
        if not (root / path).is_file():
            raise MachineError(f"{path} is not there: run this in a clone of the repository")
    done = subprocess.run(
        ["git", "status", "--porcelain", "--", *CHANGED],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise MachineError(
            f"git does not know this place ({done.stderr.strip().splitlines()[-1]}): what is "
            "changed could not be undone; run this in a clone, or `git init` and commit first"
        )
    if done.stdout:
        dirty = done.stdout.splitlines()[0][3:]
        raise MachineError(
            f"{dirty} has changes that are not committed: commit them, or `git stash`, so that "
            "`git diff` shows what is added"
        )


def make(root: Path, name: str) -> list[str]:
    """Make and enter the function; the paths of what was made and changed. Nothing is written
    unless all of it can be."""
    _check_place(root)
    _check_name(root, name)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=False,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    texts = {
        path.format(name): environment.get_template(template).render(name=name)
        for template, path in MADE.items()
    }
    for path, change in CHANGED.items():
        changed = change((root / path).read_text(encoding="utf-8"), name)
        if changed is None:
            raise MachineError(
                f"{path} does not look as expected: enter the function by hand, as another one is"
            )
        texts[path] = changed
    for path, text in texts.items():
        (root / path).write_text(text, encoding="utf-8")
    return list(texts)


def main(name: str) -> int:
    """The command: what was done, and what to do next."""
    root = project_root()
    paths = make(root, name)
    for path in paths:
        print(f"{'changed' if path in CHANGED else 'made':<8} {path}")
    print(f"""next:
  .venv/bin/ninja -C results/build/release ftmb-node tests/test_nf_{name}
  results/build/release/tests/test_nf_{name}
  .venv/bin/ftmb trial config/examples/{name}.yaml --strict --out results/try/{name}""")
    return 0
