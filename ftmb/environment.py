"""What the trial ran on and with: collected per trial, since machines change under one's hands."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import ftmb
from ftmb.describe import Description, project_root
from ftmb.node import Plan, available_cpus
from ftmb.record import Cpu, Environment, Versions

PACKAGES = ("pydantic", "PyYAML", "rich", "scapy", "numpy", "pandas", "seaborn", "snakemake")


def read_text(path: str) -> str | None:
    """A small file of /proc or /sys, stripped; None if it cannot be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def cpu_field(name: str) -> str | None:
    """A field of the first CPU in /proc/cpuinfo."""
    for line in (read_text("/proc/cpuinfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return None


def thp() -> str:
    """The chosen transparent huge page policy: always, madvise or never; unknown elsewhere."""
    text = read_text("/sys/kernel/mm/transparent_hugepage/enabled") or ""
    chosen = [word.strip("[]") for word in text.split() if word.startswith("[")]
    return chosen[0] if chosen else "unknown"


def clocksource() -> str:
    """The kernel's clock source; tsc is the one that is read without a system call."""
    name = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    return read_text(name) or "unknown"


def governor(cpu: int = 0) -> str | None:
    """The frequency governor of a CPU; None where the machine does not show one."""
    return read_text(f"/sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor")


def memory_mb(field: str = "MemTotal") -> int:
    """A field of /proc/meminfo in megabytes."""
    for line in (read_text("/proc/meminfo") or "").splitlines():
        key, _, value = line.partition(":")
        if key == field:
            return int(value.split()[0]) // 1024
    return 0


def _hypervisor() -> str | None:
    if "hypervisor" not in (cpu_field("flags") or "").split():
        return None
    product = read_text("/sys/class/dmi/id/sys_vendor")
    return product or "yes"


def os_name() -> str:
    """The distribution, as it names itself."""
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "unknown")
    except OSError:
        return "unknown"


def environment(plan: Plan, scheduler: str | None, load_1min: float) -> Environment:
    """The machine as it is now, and how the trial was laid out on it."""
    cpus = available_cpus()
    return Environment(
        cpu=Cpu(
            model=cpu_field("model name") or platform.machine(),
            cores=os.cpu_count() or len(cpus),
            available=cpus,
            governor=governor(cpus[0]),
            hypervisor=_hypervisor(),
            microcode=cpu_field("microcode"),
        ),
        memory_mb=memory_mb(),
        kernel=platform.release(),
        kernel_command_line=read_text("/proc/cmdline") or "",
        os=os_name(),
        clocksource=clocksource(),
        thp=thp(),
        niceness=0,  # the processes tell, as of the scheduler
        load_1min=load_1min,
        placement=plan.placement.model_dump(),
        processes=plan.processes,
        idle=plan.idle,
        scheduler=scheduler,
    )


def _git(*words: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "--no-optional-locks", "-C", str(project_root()), *words],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None


def package_versions(names: tuple[str, ...] = PACKAGES) -> dict[str, str]:
    """Versions of the installed packages among `names`."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def versions(description: Description, program: Path) -> Versions:
    """Of everything that took part."""
    status = _git("status", "--porcelain")
    return Versions(
        ftmb=ftmb.__version__,
        node=str(description.version),
        node_git=description.git,
        node_sha256=hashlib.sha256(program.read_bytes()).hexdigest(),
        compiler=description.compiler,
        flags=description.flags,
        dpdk=description.dpdk,
        git=_git("rev-parse", "HEAD"),
        dirty=None if status is None else bool(status),
        python=platform.python_version(),
        packages=package_versions(),
    )
