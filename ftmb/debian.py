"""Programs of other people, and the Debian packages they come in."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable


def which(program: str) -> str | None:
    """The path of a program; users often do not have the directories of servers in theirs."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")


def path(program: str) -> str:
    """The same for a command line; by its name if it is nowhere."""
    return which(program) or program


def versions(packages: Iterable[str]) -> dict[str, str]:
    """The versions of those that are installed; none where there is no Debian."""
    words = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", *sorted(packages)]
    try:
        told = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = (line.partition(" ")[::2] for line in told.splitlines())
    return {package: version for package, version in found if version}
