"""Progress on stderr: a live line on a terminal, a line per stage elsewhere if asked for."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn


class TrialProgress:
    """Stages of a trial. Use it as a context manager; quiet where stderr is no terminal."""

    def __init__(self, verbose: bool = False) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal
        self._verbose = verbose
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task = self._bar.add_task("starting", total=None)
        self._window_ns: tuple[int, int] | None = None

    def __enter__(self) -> TrialProgress:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def stage(self, text: str) -> None:
        """A new stage begins."""
        self._window_ns = None
        self._bar.update(self._task, description=text, total=None)
        if self._verbose and not self._live:
            print(f"ftmb: {text}", file=sys.stderr, flush=True)

    def filling(self, done: int, flows: int) -> None:
        """So many flows of the fill came through by now."""
        self._bar.update(self._task, total=flows, completed=done)

    def window(self, length_s: float) -> None:
        """The measured window begins; the bar follows its clock."""
        self.stage("measuring")
        start = time.monotonic_ns()
        self._window_ns = (start, max(1, round(length_s * 1e9)))
        self._bar.update(self._task, total=1.0, completed=0.0)

    def faults(self, count: int) -> None:
        """So many faults were injected by now."""
        self._bar.update(self._task, description=f"measuring, faults so far: {count}")

    def tick(self) -> None:
        """Redraw the bar of the window, if there is one."""
        if self._window_ns and self._live:
            start, length = self._window_ns
            done = min(1.0, (time.monotonic_ns() - start) / length)
            self._bar.update(self._task, completed=done)

    def note(self, text: str) -> None:
        """Something worth a line of its own, on a terminal or when verbose."""
        if self._live:
            self._console.print(f"ftmb: {text}", highlight=False, markup=False)
        elif self._verbose:
            print(f"ftmb: {text}", file=sys.stderr, flush=True)
