"""The dependency rules between the layers, in C and in Python.

Native: `core` is pure (no DPDK, threads, clock or I/O), `nf` sees only `core`, `match` and itself,
`plain` knows nothing of FTMB, `io` knows nothing of the layers above it. Python: `analysis`
and `report` reach nothing that starts a process.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

PURE_HEADERS = {
    "assert.h", "errno.h", "inttypes.h", "limits.h", "stdalign.h", "stdatomic.h", "stdbool.h",
    "stddef.h", "stdint.h", "stdlib.h", "string.h",
}  # fmt: skip

# Directory of native/: (directories it may include from, system headers it may; None = any).
C_RULES: dict[str, tuple[set[str], set[str] | None]] = {
    "core": ({"core"}, PURE_HEADERS),
    # One library behind three calls, whose answers follow from what they are given.
    "match": ({"core", "match"}, PURE_HEADERS | {"hs.h"}),
    "nf": ({"core", "match", "nf"}, PURE_HEADERS),
    # Types of what it serves; the calls are its own.
    "inject": ({"core", "nf", "inject", "plain"}, PURE_HEADERS | {"time.h", "sys/time.h"}),
    "plain": ({"plain"}, None),
    "check": ({"inject"}, None),
    "io": ({"core", "io"}, None),
    "traffic": ({"core", "io", "traffic", "roles"}, None),
    "roles": ({"core", "nf", "io", "traffic", "roles"}, None),
    "sim": ({"core", "match", "nf", "sim"}, None),
    "peers": ({"peers"}, None),
}

INCLUDE = re.compile(r'^\s*#\s*include\s*(?:<([^>]+)>|"([^"]+)")', re.MULTILINE)

# Functions of the C library that the pure layers may call: memory, strings, assertions.
PURE_SYMBOL = re.compile(
    r"(_*(mem|str)\w+|malloc|calloc|realloc|free|aligned_alloc|abort|qsort|bsearch"
    r"|__assert_fail|__stack_chk_fail|_GLOBAL_OFFSET_TABLE_"
    r"|match_(open|scan|name)"  # native/match
    r"|__(start|stop)_inject_\w+)$"  # sections of an injected function, named by the linker
)

# Objects of native/core, native/nf and native/inject (with what it was made of), whether Meson
# built them from there or from above.
PURE_OBJECT = re.compile(
    r"^(core|nf|inject)/(lib[^/]+\.p/)?[^/]+\.o$|^lib[^/]+\.p/(core|nf|inject)_[^/]+\.o$"
)

STARTS_PROCESSES = {"subprocess", "multiprocessing", "pty", "_posixsubprocess"}
STARTING_CALLS = re.compile(r"os\.(system|popen|fork\w*|exec\w+|spawn\w+|posix_spawn\w*)$")


def c_violations(native: Path) -> Iterator[str]:
    """Includes that break a rule of C_RULES, as `file: what`."""
    for layer, (allowed, headers) in C_RULES.items():
        for path in sorted((native / layer).rglob("*.[ch]")):
            name = path.relative_to(native)
            for system, own in INCLUDE.findall(path.read_text(encoding="utf-8")):
                if system:
                    if headers is not None and system not in headers:
                        yield f"{name}: <{system}> is not for {layer}"
                    continue
                beside, rooted = path.parent / own, native / own
                target = beside if beside.exists() else rooted
                if not target.exists():
                    if headers is not None:
                        yield f'{name}: "{own}" does not exist in native/'
                    continue
                where = target.resolve().relative_to(native.resolve()).parts[0]
                if where not in allowed:
                    yield f'{name}: {layer} must not include "{own}"'


def test_native_layers(root: Path) -> None:
    assert any((root / "native" / "core").glob("*.c")), "native/core is empty"
    assert list(c_violations(root / "native")) == []


def test_native_rule_catches(tmp_path: Path) -> None:
    for layer in ("core", "nf", "io", "roles"):
        (tmp_path / layer).mkdir()
    (tmp_path / "io" / "clock.h").write_text("#include <time.h>\n")
    (tmp_path / "core" / "pal.h").write_text("#include <stdint.h>\n")
    (tmp_path / "core" / "pal.c").write_text('#include "pal.h"\n#include <time.h>\n')
    (tmp_path / "nf" / "nat.c").write_text('#include "core/pal.h"\n#include "io/clock.h"\n')
    assert list(c_violations(tmp_path)) == [
        "core/pal.c: <time.h> is not for core",
        'nf/nat.c: nf must not include "io/clock.h"',
    ]


def undefined_symbols(objects: list[Path]) -> set[str]:
    """What these object files call and do not define between them."""

    def names(kind: str) -> set[str]:
        listing = subprocess.run(
            ["nm", "--format=posix", kind, *map(str, objects)],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        return {line.split()[0] for line in listing.splitlines() if len(line.split()) > 1}

    return names("--undefined-only") - names("--defined-only")


def test_pure_layers_call_nothing_else(root: Path, node: Path) -> None:
    """Headers can be read past (a prototype by hand); the linker's view cannot."""
    objects = [
        path
        for path in node.parent.rglob("*.o")
        if PURE_OBJECT.search(path.relative_to(node.parent).as_posix())
    ]
    assert objects, f"no objects of the pure layers under {node.parent.relative_to(root)}"
    impure = {name for name in undefined_symbols(objects) if not PURE_SYMBOL.match(name)}
    assert impure == set()


def module_path(root: Path, module: str) -> Path | None:
    """The file of a module of this package, or None for a module from elsewhere."""
    base = root.joinpath(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def imports_of(path: Path, module: str) -> set[str]:
    """Every module that this one may import, wherever the statement stands in it."""
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    found = set()
    for item in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(item, ast.Import):
            found |= {alias.name for alias in item.names}
        elif isinstance(item, ast.ImportFrom):
            base = package[: len(package) - item.level + 1] if item.level else []
            name = ".".join([*base, *([item.module] if item.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in item.names)}
    return found


def process_starters(root: Path, start: str) -> list[str]:
    """How `start` reaches something that starts processes: chains of modules, or nothing."""
    found, seen, todo = [], {start}, [(start, start)]
    while todo:
        module, chain = todo.pop()
        path = module_path(root, module)
        if path is None:
            continue
        text = path.read_text(encoding="utf-8")
        calls = [ast.unparse(x) for x in ast.walk(ast.parse(text)) if isinstance(x, ast.Attribute)]
        found += [f"{chain} > {call}" for call in calls if STARTING_CALLS.match(call)]
        parents = {module.rsplit(".", 1)[0]} if "." in module else set()
        for name in sorted(imports_of(path, module) | parents):
            if name.split(".")[0] in STARTS_PROCESSES or "ProcessPoolExecutor" in name:
                found.append(f"{chain} > {name}")
            elif name not in seen:
                seen.add(name)
                todo.append((name, f"{chain} > {name}"))
    return sorted(set(found))


def modules_under(root: Path, *names: str) -> list[str]:
    """The modules of the package whose first part after `ftmb` starts with one of `names`."""
    return sorted(
        ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for path in (root / "ftmb").rglob("*.py")
        if path.relative_to(root / "ftmb").parts[0].startswith(names)
    )


def test_analysis_and_report_start_nothing(root: Path) -> None:
    modules = modules_under(root, "analysis", "report", "figures")
    assert any("analysis" in name for name in modules)
    assert any("report" in name for name in modules)
    assert [chain for module in modules for chain in process_starters(root, module)] == []


@pytest.mark.parametrize(
    ("text", "chain"),
    [
        ("from . import trial\n", "ftmb.report > ftmb.trial > subprocess"),
        ("def f():\n    from ftmb.trial import run\n", "ftmb.report > ftmb.trial > subprocess"),
        ("import os\nos.system('true')\n", "ftmb.report > os.system"),
    ],
)
def test_python_rule_catches(tmp_path: Path, text: str, chain: str) -> None:
    package = tmp_path / "ftmb"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "trial.py").write_text("import subprocess\nrun = subprocess.run\n")
    (package / "report.py").write_text(text)
    assert process_starters(tmp_path, "ftmb.report") == [chain]
