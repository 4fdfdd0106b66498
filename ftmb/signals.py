"""SIGINT and SIGTERM as an exception, held back where half a step would leave a child behind."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ftmb.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Gate:
    held = 0
    pending: int | None = None


def _handler(number: int, _frame: FrameType | None) -> None:
    if _Gate.held:
        _Gate.pending = number
        return
    raise Stopped(number)


@contextmanager
def stoppable() -> Iterator[None]:
    """Inside, the three signals raise Stopped on the main thread."""
    before = {number: signal.signal(number, _handler) for number in SIGNALS}
    _Gate.pending = None
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@contextmanager
def held() -> Iterator[None]:
    """Inside, a signal waits; at the end it is raised. For steps that must be done as a whole."""
    _Gate.held += 1
    try:
        yield
    finally:
        _Gate.held -= 1
    if not _Gate.held and _Gate.pending is not None:
        number, _Gate.pending = _Gate.pending, None
        raise Stopped(number)
