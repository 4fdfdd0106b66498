"""`ftmb check-nf`: is a program in ordinary C fit to be injected (docs/INJECT.md)?

Asks the injection what it refuses, and runs the program as it was written, under the thread
sanitizer, in several threads (native/check/drive.c).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from ftmb.errors import MachineError, SpecError

ROOT = Path(__file__).resolve().parent.parent
NATIVE = ROOT / "native"
COMPILE = [
    "gcc", "-std=gnu11", "-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=thread", "-Wno-tsan",
    "-DINJECT_NOTHING", f"-I{NATIVE}",
]  # fmt: skip
RACES = 66  # the sanitizer's exit code, of a race and of a program that it saw crash
BROKEN = 3  # the driver's: a check of the program's own failed

REPORT = re.compile(r"^WARNING: ThreadSanitizer: (.+?) \(pid=\d+\)\n(.*?)^SUMMARY", re.M | re.S)
DEATH = re.compile(r"^.*(?:ERROR|FATAL): (.+)$", re.M)
STACK = re.compile(
    r"^  (?:Previous )?((?:atomic )?(?:read|write)) of size.*\n((?:    #.*\n)+)", re.M | re.I
)
FRAME = re.compile(r"^    #\d+ (\S+) (\S+?):(\d+)", re.M)


def _run(
    *words: str | Path, env: dict[str, str] | None = None, limit_s: float | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [*map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            timeout=limit_s,
            env=os.environ | {"LC_ALL": "C"} | (env or {}),
        )
    except FileNotFoundError:
        raise MachineError(f"{words[0]} is missing: run `make setup`") from None
    except subprocess.TimeoutExpired:
        raise SpecError("the program did not end: do its threads wait for each other?") from None


def _built(*words: str | Path) -> None:
    done = _run(*words)
    if done.returncode:
        lines = [
            line for line in done.stderr.splitlines() if "error:" in line or "undefined" in line
        ]
        raise SpecError((lines or done.stderr.splitlines() or ["the compiler failed"])[0])


def _symbols(path: Path, kind: str) -> dict[str, str]:
    """Names in an object, with the letters that `nm` gives them."""
    lines = _run("nm", "--format=posix", kind, path).stdout.splitlines()
    return {line.split()[0]: line.split()[1] for line in lines if len(line.split()) > 1}


def _binding(objects: dict[Path, Path]) -> tuple[Path, str]:
    """The source with the program's `struct nf`, and that one's name."""
    found = [
        (source, name)
        for source, path in objects.items()
        for name, letter in _symbols(path, "--defined-only").items()
        if name.startswith("nf_") and letter in "DRB"
    ]
    if len(found) != 1:
        raise SpecError(
            f"{len(found)} of the sources define a `struct nf`: give the program's files, and the "
            "one that says how it is called (docs/INJECT.md)"
        )
    return found[0]


def _refused(plain: list[Path], entries: list[str], directory: Path) -> list[str]:
    """What the injection says against these sources."""
    includes = {f"--include={path}" for path in (NATIVE, *(source.parent for source in plain))}
    done = _run(
        sys.executable, NATIVE / "inject" / "inject.py", "--name=checked", "--base=0x200000001000",
        f"--out={directory / 'injected.o'}", *sorted(includes),
        *(f"--entry={entry}" for entry in entries), *plain,
    )  # fmt: skip
    if done.returncode == 0:
        return []
    said = [line.removeprefix("inject: ") for line in done.stderr.splitlines()]
    return said or ["the injection failed"]


def _place(frames: str, sources: dict[str, Path]) -> str:
    """The first place of a stack that lies in one of the sources."""
    for function, path, line in FRAME.findall(frames):
        if path in sources:
            return f"{sources[path]}:{line} ({function})"
    found = FRAME.search(frames)
    return f"{found[2]}:{found[3]} ({found[1]})" if found else "somewhere"


def findings(output: str, sources: list[Path]) -> list[str]:
    """A line for each report of the sanitizer."""
    known = {str(source.resolve()): source for source in sources}
    lines = []
    for kind, body in REPORT.findall(output):
        accesses = [
            (what.lower(), _place(frames, known)) for what, frames in STACK.findall(body)[:2]
        ]
        if kind == "data race" and len(accesses) == 2:
            (what, where), (other, there) = accesses
            lines.append(f"data race: {where} {what}s what {there} {other}s")
        elif kind.startswith("lock-order-inversion"):
            lines.append(f"the order of locks has a cycle: {_place(body, known)}")
        else:
            lines.append(f"{kind}: {_place(body, known)}")
    return list(dict.fromkeys(lines))


def _raced(program: Path, seconds: float, threads: int, words: list[str]) -> tuple[int, str, str]:
    """Exit code; what the run printed, and what the sanitizer and the driver said against it."""
    command: list[str | Path] = [program, str(seconds), str(threads), "1", *words]
    bits = Path("/proc/sys/vm/mmap_rnd_bits")
    if bits.exists() and int(bits.read_text()) > 28:  # else it finds its memory taken
        fixed = ["setarch", "-R"]
        if _run(*fixed, "true").returncode:
            raise MachineError(
                "the thread sanitizer needs addresses that are not random, and `setarch -R` is "
                "refused here: run `sysctl vm.mmap_rnd_bits=28` as root"
            )
        command = [*fixed, *command]
    done = _run(*command, env={"TSAN_OPTIONS": f"exitcode={RACES}"}, limit_s=seconds + 60)
    if done.returncode not in (0, RACES, BROKEN):
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise SpecError(f"the program did not run to its end: {last}")
    return done.returncode, done.stdout.strip(), done.stderr


def main(sources: list[Path], words: list[str], threads: int, seconds: float) -> int:
    for source in sources:
        if not source.is_file():
            raise SpecError(f"{source} does not exist")
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        objects = {source: directory / f"{i}.o" for i, source in enumerate(sources)}
        for source, path in objects.items():
            _built(*COMPILE, f"-I{source.parent}", "-c", source.resolve(), "-o", path)
        binding, nf = _binding(objects)
        plain = [source for source in sources if source != binding]
        called = _symbols(objects[binding], "--undefined-only")
        defined = {
            entry for source in plain for entry in _symbols(objects[source], "--defined-only")
        }
        refused = _refused(plain, sorted(defined & set(called)), directory)
        program = directory / "check"
        _built(
            *COMPILE, NATIVE / "check" / "drive.c", *objects.values(), "-o", program, "-pthread",
            f"-Wl,--defsym=checked_nf={nf}",
        )  # fmt: skip
        code, ran, said = _raced(program, seconds, threads, words)
    told = findings(said, sources)
    told += [line for line in said.splitlines() if line.startswith("check ")]
    found = [f"refused: {line}" for line in refused] + told
    for line in found:
        print(line)
    if not ran or (code and not told):
        death = DEATH.search(said)
        cause = death[1] if death else f"exit code {code}"
        raise SpecError(f"the program did not run to its end: {cause}")
    print(f"{threads} threads, {ran}: {len(found) or 'nothing'} found")
    return 1 if found else 0
