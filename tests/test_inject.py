"""The build refuses, by name, what an injected function must not do, and says what to do instead.

Each case is a small program, given to the tool that makes functions (native/inject/inject.py).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEADERS = "\n".join(
    f"#include <{name}>"
    for name in ("assert.h", "pthread.h", "semaphore.h", "stdatomic.h", "stdint.h", "stdio.h",
                 "stdlib.h", "string.h", "sys/time.h", "time.h", "unistd.h")
)  # fmt: skip


def inject(root: Path, directory: Path, *sources: str) -> subprocess.CompletedProcess[str]:
    paths = []
    for number, source in enumerate(sources):
        paths.append(directory / f"program{number}.c")
        paths[-1].write_text(f"#define _GNU_SOURCE\n{HEADERS}\n{source}\n", encoding="utf-8")
    out = directory / "program.o"
    command = [sys.executable, root / "native" / "inject" / "inject.py", "--name=program",
               "--entry=f", "--base=0x200000001000", f"--out={out}", *paths]  # fmt: skip
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert out.exists() == (done.returncode == 0)
    return done


@pytest.mark.parametrize(
    ("source", "names", "remedy"),
    [
        ("pthread_mutex_t m; int f(void) { return pthread_mutex_trylock(&m); }",
         "pthread_mutex_trylock", "pthread_mutex_lock"),
        ("pthread_rwlock_t m; int f(void) { return pthread_rwlock_tryrdlock(&m); }",
         "pthread_rwlock_tryrdlock", "timing"),
        ("pthread_mutex_t m; struct timespec t;"
         "int f(void) { return pthread_mutex_timedlock(&m, &t); }", "pthread_mutex_timedlock",
         "timing"),
        ("pthread_cond_t c; pthread_mutex_t m; int f(void) { return pthread_cond_wait(&c, &m); }",
         "pthread_cond_wait", "next packet"),
        ("pthread_cond_t c; int f(void) { return pthread_cond_signal(&c); }",
         "pthread_cond_signal", "next packet"),
        ("sem_t s; int f(void) { return sem_wait(&s); }", "sem_wait", "next packet"),
        ("void *g(void *x) { return x; } pthread_t t;"
         "int f(void) { return pthread_create(&t, 0, g, 0); }", "pthread_create", "workers"),
        ("pthread_t f(void) { return pthread_self(); }", "pthread_self", "index of the thread"),
        ("pthread_spinlock_t m; int f(void) { return pthread_spin_lock(&m); }",
         "pthread_spin_lock", "mutex"),
        ("pthread_mutexattr_t a; int f(void) { return pthread_mutexattr_settype(&a, 1); }",
         "pthread_mutexattr_settype", "plain mutex"),
        ("int f(void) { return printf(\"x%d\", 1); }", "printf", "count in the state"),
        ("char b[8]; long f(void) { return read(0, b, 8); }", "read", "state"),
        ("int f(void) { return usleep(1); }", "usleep", "compare times"),
        ("long f(void) { return clock(); }", "clock", "clock_gettime"),
        ("unsigned s; int f(void) { return rand_r(&s); }", "rand_r", "rand()"),
        ("void *f(void *p) { return realloc(p, 8); }", "realloc", "at the start"),
        ("char *f(char *a, char *b) { return strcpy(a, b); }", "strcpy", "PURE"),
        ("int f(void) { return getpid(); }", "getpid", "master"),
        ("struct big { char c[40]; }; _Atomic struct big a; struct big f(void) { return a; }",
         "__atomic_load", "1, 2, 4 or 8 bytes"),
        ("_Thread_local int n; int f(void) { return ++n; }", "thread-local", "each thread"),
        ("int n; __attribute__((constructor)) void g(void) { n = 1; } int f(void) { return n; }",
         "constructor", "opened"),
        ("unsigned long long f(void) { return __builtin_ia32_rdtsc(); }", "rdtsc", "C library"),
        ("int n; void f(void) { __asm__(\"lock incl %0\" : \"+m\"(n)); }", "lock", "C11 atomics"),
        ("_Alignas(4096) char page[4096]; char *f(void) { return page; }", "4096", "at most 128"),
        ("__attribute__((section(\".mine\"))) int n = 1; int *f(void) { return &n; }", ".mine",
         "arena"),
    ],
    ids=lambda value: value if value.isidentifier() else None,
)  # fmt: skip
def test_refused_by_name(root: Path, tmp_path: Path, source: str, names: str, remedy: str) -> None:
    done = inject(root, tmp_path, source)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("inject: ") and names in line and remedy in line, line


def test_a_program_of_two_files(root: Path, tmp_path: Path) -> None:
    """What one defines and the other one calls is nobody else's."""
    done = inject(
        root, tmp_path,
        "int g(int); int shared = 3; static pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;"
        "int f(void) { pthread_mutex_lock(&m); int x = g(shared++); pthread_mutex_unlock(&m);"
        " return x; }",
        "extern int shared; int g(int x) { return x + shared; }",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    listing = subprocess.run(["nm", tmp_path / "program.o"], capture_output=True, text=True,
                             check=True).stdout  # fmt: skip
    entries = {line.split()[-1] for line in listing.splitlines() if " T " in line}
    assert entries == {"f"}
    called = {line.split()[-1] for line in listing.splitlines() if " U " in line}
    assert {"inject_mutex_lock", "inject_mutex_unlock", "inject_write4"} <= called
    assert all(name.startswith("inject_") for name in called)


def test_all_data_is_named_in_the_arena(root: Path, tmp_path: Path) -> None:
    """No reference to the function's data is left to the linker."""
    done = inject(
        root, tmp_path,
        "static int a = 1, b; int c; int *p = &a; static int *q[2] = {&b, &c};"
        "int f(void) { static int s; return a++ + b++ + c++ + *p + *q[s++ & 1]; }",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    left = subprocess.run(["readelf", "--relocs", "--wide", tmp_path / "program.o"],
                          capture_output=True, text=True, check=True).stdout  # fmt: skip
    assert "R_X86_64_NONE" in left
    assert [line for line in left.splitlines() if "inject_data" in line.split()[-3:]] == []
    code = subprocess.run(["objdump", "-d", tmp_path / "program.o"], capture_output=True,
                          text=True, check=True).stdout  # fmt: skip
    assert code.count("0x20000000") >= 5


def test_a_compiler_error_is_told(root: Path, tmp_path: Path) -> None:
    done = inject(root, tmp_path, "int f(void) { return missing; }")
    assert done.returncode == 1
    assert "'missing' undeclared" in done.stderr
