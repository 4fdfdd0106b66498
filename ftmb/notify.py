"""What systemd is told of a service of `Type=notify`, and that it is still alive."""

from __future__ import annotations

import os
import socket
import time


class Notifier:
    """Silent where no service manager listens ($NOTIFY_SOCKET)."""

    def __init__(self) -> None:
        address = os.environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        text = os.environ.get("WATCHDOG_USEC", "")
        mine = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        # Twice as often as it wants to hear.
        self._every_s = int(text) / 2e6 if text.isdigit() and mine else float("inf")
        self._told_s = 0.0

    def say(self, *lines: str) -> None:
        """READY=1, STATUS=..., STOPPING=1. A manager that cannot be reached is not waited for."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
                to.setblocking(False)
                to.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass

    def alive(self) -> None:
        """From the main loop, as often as it goes round."""
        now = time.monotonic()
        if now - self._told_s >= self._every_s:
            self._told_s = now
            self.say("WATCHDOG=1")
