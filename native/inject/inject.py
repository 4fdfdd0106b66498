#!/usr/bin/env python3
"""Makes an FTMB function's object file out of ordinary multi-threaded C.

Compiles the sources with the compiler's own instrumentation for race detection, whose calls our
runtime serves (native/inject/runtime.c), refuses by name what a replay could not repeat, gives the
data of the object its addresses in the arena, and renames the calls that are served. See
docs/INJECT.md.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from placed import PlaceError, place

COMPILE = [
    *("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-c", "-U_FORTIFY_SOURCE"),
    *("-fsanitize=thread", "--param=tsan-instrument-func-entry-exit=0", "-Wno-tsan"),
    # Data, and nothing else, is named by 64-bit addresses, which can then be any.
    *("-fno-pie", "-mcmodel=medium", "-mlarge-data-threshold=0", "-fno-common"),
    # The compiler marks stores before it expands block copies: so they have to stay calls.
    *("-fno-builtin", "-fno-tree-loop-distribute-patterns", "-fno-tree-vectorize"),
    "-fno-stack-protector",
]

# The gathered data of a function; the runtime finds both by name. Never empty.
SCRIPT = """SECTIONS {{
    inject_data_{name} 0 : {{ QUAD(0) *(.ldata .ldata.* .data .data.*) }}
    inject_bss_{name} 0 : {{ . = . + 8; *(.lbss .lbss.* .bss .bss.* COMMON LARGE_COMMON) }}
}}
"""

SIZES = ("1", "2", "4", "8", "16")
ATOMICS = ("load", "store", "exchange", "fetch_add", "fetch_sub", "fetch_and", "fetch_or",
           "fetch_xor", "fetch_nand", "compare_exchange_strong", "compare_exchange_weak",
           "compare_exchange_val")  # fmt: skip

# What the runtime serves, each under a name of its own.
SERVED = {
    *("__tsan_init", "__tsan_write_range", "__tsan_read_range"),
    *("__tsan_atomic_thread_fence", "__tsan_atomic_signal_fence"),
    *(f"__tsan_{u}{kind}{n}" for u in ("", "unaligned_") for kind in ("read", "write")
      for n in SIZES),
    *(f"__tsan_atomic{bits}_{what}" for bits in (8, 16, 32, 64) for what in ATOMICS),
    *(f"pthread_mutex_{what}" for what in ("init", "destroy", "lock", "unlock")),
    *(f"pthread_rwlock_{what}" for what in ("init", "destroy", "rdlock", "wrlock", "unlock")),
    *("malloc", "calloc", "free", "memcpy", "memmove", "memset"),
    *("clock_gettime", "gettimeofday", "time", "rand", "random", "srand", "srandom"),
    *("abort", "__assert_fail"),
}  # fmt: skip

# They read what they are given, store nothing, and know nothing else.
PURE = {
    "abs", "labs", "llabs", "memchr", "memcmp", "strchr", "strcmp", "strlen", "strncmp", "strnlen",
    "strrchr", "strstr", "htonl", "htons", "ntohl", "ntohs",
}  # fmt: skip

# (which symbols, what is wrong with them, what to do instead)
REFUSED = (
    (r"pthread_\w+_(try|timed|clock)\w*lock|sem_(try|timed)wait",
     "whether it succeeds depends on timing", "wait for the lock (pthread_mutex_lock)"),
    (r"pthread_cond_\w+|pthread_barrier_\w+|sem_\w+|cnd_\w+",
     "a packet must not wait for another thread's",
     "keep what is waited for under a mutex and look at it with the next packet"),
    (r"pthread_(create|join|detach|exit|cancel|kill|once|at\w+|set\w*|tryjoin\w*)|thrd_\w+"
     r"|fork|vfork", "threads are FTMB's workers",
     "do the work in the function that takes a packet"),
    (r"pthread_self|pthread_(get|key)\w*|gettid|getpid|sched_\w+|thrd_current|tss_\w+",
     "it differs between a master and its backup", "use the index of the thread that is given"),
    (r"pthread_spin_\w+|mtx_\w+|pthread_\w+attr_\w+|pthread_mutex_\w+|pthread_rwlock_\w+",
     "this kind of lock is not served", "use a plain mutex or read-write lock"),
    (r"realloc|reallocarray|aligned_alloc|posix_memalign|memalign|strn?dup|mmap|munmap|s?brk",
     "memory is given out once, before the first packet", "use malloc or calloc at the start"),
    (r"getrandom|getentropy|arc4random\w*|[dlmejn]+rand48|rand_r|random_r",
     "this source of randomness is not served", "use rand()"),
    (r"nanosleep|clock_nanosleep|u?sleep|alarm|timer_\w+|setitimer|poll|select|epoll_\w+|pause",
     "a packet must not wait", "compare times when a packet comes"),
    (r"clock|times|timespec_get|ftime|getrusage|localtime\w*|gmtime\w*",
     "this clock is not served", "use clock_gettime"),
    (r"__atomic_\w+|__sync_\w+|__tsan_atomic128_\w+",
     "an atomic object of this size is not lock-free", "use one of 1, 2, 4 or 8 bytes"),
    (r"\w*printf\w*|\w*puts|\w*putc\w*|perror|f\w+|open\w*|close|p?read|p?write|send\w*|recv\w*"
     r"|socket|ioctl|stdout|stderr|stdin|syslog|std\w+",
     "a packet's effects are its output and the state", "count in the state, and read it later"),
    (r"__tls_get_addr", "thread-local data is not in the arena",
     "use an array with an element for each thread"),
)  # fmt: skip

INSTRUCTIONS = re.compile(r"\t(rdtscp?|rdrand|rdseed|rdpid|cpuid|syscall|lock)\b")


class RefusedError(Exception):
    """The function cannot be brought under FTMB as it is; a line for each reason."""


def run(*words: str | Path) -> str:
    command, english = [*map(str, words)], os.environ | {"LC_ALL": "C"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=english)
    if done.returncode:
        raise RefusedError(f"{words[0]}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def symbols(objects: list[Path], kind: str) -> set[str]:
    lines = run("nm", "--format=posix", kind, *objects).splitlines()
    return {line.split()[0] for line in lines if len(line.split()) > 1}


def refusal(symbol: str) -> str:
    for pattern, reason, remedy in REFUSED:
        if re.fullmatch(pattern, symbol):
            return f"'{symbol}' is refused: {reason}; {remedy}"
    return (
        f"'{symbol}' is refused: nothing says that it gives the same in a replay and stores "
        "nothing; do without it, or add it to PURE in native/inject/inject.py if that is so"
    )


def reasons(objects: list[Path]) -> Iterator[str]:
    """What a replay could not repeat in these objects: a line for each."""
    sections = run("objdump", "--section-headers", *objects)
    if re.search(r"\s\.t(data|bss)\b", sections):
        yield (
            "thread-local data is refused: it is not in the arena; use an array with an element "
            "for each thread"
        )
        return  # what else it calls is of no interest, and partly for this
    if re.search(r"\s\.(init_array(?!\.00099)|fini_array|ctors|dtors)", sections):
        yield (
            "a constructor is refused: state begins when the function is opened; call it from there"
        )
    calls = symbols(objects, "--undefined-only") - symbols(objects, "--defined-only")
    yield from map(refusal, sorted(calls - SERVED - PURE))
    code = run("objdump", "--disassemble", "--no-show-raw-insn", *objects)
    if found := INSTRUCTIONS.search(code):
        yield (
            f"the instruction '{found[1]}' is refused: it sees the machine, or goes round the "
            "compiler; use the C library or C11 atomics"
        )


def our_name(symbol: str) -> str:
    return "inject_" + re.sub(r"^(__tsan_|pthread_|__)", "", symbol)


def build(args: argparse.Namespace, directory: Path) -> None:
    objects = []
    includes = [f"-I{path}" for path in args.include]
    for number, source in enumerate(args.sources):
        objects.append(directory / f"{number}.o")
        run(args.cc, *COMPILE, *includes, source, "-o", objects[-1])
    names = ", ".join(Path(source).name for source in args.sources)
    if refused := [f"{names}: {reason}" for reason in reasons(objects)]:
        raise RefusedError("\n".join(refused))
    for path in objects:  # the constructor that would start the race detector
        run("objcopy", "-R", ".init_array.00099", "-R", ".rela.init_array.00099", path)
    script, merged = directory / "merge.ld", directory / "merged.o"
    script.write_text(SCRIPT.format(name=args.name), encoding="ascii")
    run("ld", "-r", "-T", script, *objects, "-o", merged)
    place(merged, f"inject_data_{args.name}", f"inject_bss_{args.name}", args.base)
    renames = [f"--redefine-sym={symbol}={our_name(symbol)}" for symbol in sorted(SERVED)]
    kept = [f"--keep-global-symbol={entry}" for entry in args.entry]
    run("objcopy", *renames, *kept, merged)
    shutil.copyfile(merged, args.out)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the function, a C identifier")
    parser.add_argument("--entry", action="append", required=True, help="a function that is called")
    parser.add_argument("--base", type=lambda text: int(text, 0), required=True,
                        help="where its data begins in the arena")  # fmt: skip
    parser.add_argument("--cc", default="gcc")
    parser.add_argument("--include", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("sources", nargs="+")
    args = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as directory:
            build(args, Path(directory))
    except (RefusedError, PlaceError) as error:
        for line in str(error).splitlines():
            print(f"inject: {line}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
