"""`ftmb check-nf`: the plain programs are clean; a race, a cycle of locks and what the injection
refuses are told, each in a line."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from conftest import Ran, run_ftmb

from ftmb import check_nf
from ftmb.errors import MachineError

PLAIN = Path("native/plain")
BINDING = "native/inject/monitor_pthread.c"
SHORT = [
    "--set=capacity=200",
    *(f"--set={name}_ms=10" for name in ("udp", "tcp", "transitory", "icmp")),
]


def check(*words: str | Path) -> Ran:
    done = run_ftmb("check-nf", "--seconds=0.4", *words)
    if done.code == 3 and "`setarch -R` is refused" in done.err:
        pytest.skip(done.err.strip())
    return done


@pytest.mark.parametrize(
    "words",
    [
        [PLAIN / "monitor.c", BINDING, "--set=sample_every=20", "--set=flows=100"],
        [PLAIN / "nat.c", PLAIN / "nat_table.c", "native/inject/nat_pthread.c", *SHORT],
    ],
    ids=["monitor", "nat"],
)  # fmt: skip
def test_clean(words: list[str | Path]) -> None:
    done = check(*words)
    assert done.code == 0, done.out + done.err
    (line,) = done.out.splitlines()
    assert line.startswith("4 threads, ") and line.endswith("nothing found")
    assert int(line.split()[4]) > 1000  # were forwarded


def variant(root: Path, tmp_path: Path, *changes: tuple[str, str]) -> Path:
    """The monitor, changed."""
    text = (root / PLAIN / "monitor.c").read_text(encoding="utf-8")
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    path = tmp_path / "monitor.c"
    path.write_text(text, encoding="utf-8")
    return path


def line_of(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def test_a_race_is_told(root: Path, tmp_path: Path) -> None:
    """The totals are counted without their lock."""
    locked = "    pthread_mutex_lock(&totals_lock);\n    total_packets++;\n"
    source = variant(
        root, tmp_path,
        (locked, "    total_packets++;\n"),
        ("    total_bytes += length;\n    pthread_mutex_unlock(&totals_lock);\n",
         "    total_bytes += length;\n"),
    )  # fmt: skip
    done = check(source, BINDING, "--seconds=2")
    assert done.code == 1
    place = f"{source}:{line_of(source, 'total_packets++')} (monitor_frame)"
    races = [line for line in done.out.splitlines() if line.startswith("data race: ")]
    assert any(place in line for line in races), done.out
    assert all("monitor.c:" in line for line in races)


def test_a_crash_is_told(root: Path, tmp_path: Path) -> None:
    """The sanitizer gives it the exit code of a race."""
    stored = "    flow->packets++;\n"
    source = variant(root, tmp_path, (stored, f"    flow = NULL;\n{stored}"))
    done = check(source, BINDING)
    assert done.code == 2, done.out + done.err
    (line,) = done.err.splitlines()
    assert line.startswith("ftmb: the program did not run to its end: ThreadSanitizer: SEGV")


def test_an_injection_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess[str]([], 1, "", "")
    monkeypatch.setattr(check_nf, "_run", lambda *_: failed)
    assert check_nf._refused([PLAIN / "monitor.c"], [], Path()) == ["the injection failed"]


def test_an_address_that_is_not_fixed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where addresses are as random as can be, and a sandbox refuses to turn that off."""
    refused = subprocess.CompletedProcess[str]([], 1, "", "setarch: failed")
    monkeypatch.setattr(check_nf, "_run", lambda *_: refused)
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "read_text", lambda _: "32\n")
    with pytest.raises(MachineError, match="`setarch -R` is refused"):
        check_nf._raced(Path("check"), 1, 4, [])


def test_a_cycle_of_locks_is_told(root: Path, tmp_path: Path) -> None:
    """Once, before there are threads, the locks are taken the other way round."""
    again = "\n".join(
        f"    pthread_mutex_{what}(&{lock}_lock);"
        for what, lock in (("lock", "totals"), ("lock", "samples"),
                           ("unlock", "samples"), ("unlock", "totals"))
    )  # fmt: skip
    init = "    pthread_mutex_init(&samples_lock, NULL);\n"
    source = variant(root, tmp_path, (init, f"{init}{again}\n"))
    done = check(source, BINDING, "--set=sample_every=20")
    assert done.code == 1
    assert f"the order of locks has a cycle: {source}:" in done.out


def test_refusals_are_told(root: Path, tmp_path: Path) -> None:
    source = variant(
        root, tmp_path,
        ("    struct timespec now;\n",
         "    struct timespec now;\n    sched_yield();\n"
         "    if (pthread_mutex_trylock(&samples_lock) == 0)\n"
         "        pthread_mutex_unlock(&samples_lock);\n"),
        ("#include <pthread.h>\n", "#include <pthread.h>\n#include <sched.h>\n"),
    )  # fmt: skip
    done = check(source, BINDING)
    assert done.code == 1
    refused = [line for line in done.out.splitlines() if line.startswith("refused: monitor.c: ")]
    assert [line.split("'")[1] for line in refused] == ["pthread_mutex_trylock", "sched_yield"]
    assert done.out.splitlines()[-1].endswith("2 found")


def test_the_binding_is_missing() -> None:
    done = check(PLAIN / "monitor.c")
    assert done.code == 2
    assert done.err.startswith("ftmb: 0 of the sources define a `struct nf`")


def test_does_not_compile(tmp_path: Path) -> None:
    source = tmp_path / "wrong.c"
    source.write_text("int f(void) { return missing; }\n", encoding="ascii")
    done = check(source, BINDING)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert "'missing' undeclared" in line
