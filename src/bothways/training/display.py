"""Live progress: a bar in a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from bothways.training.schedule import Amount

EVERY = 5.0  # seconds between plain lines
_WIDE = 100  # in a narrower terminal a bar has no room beside the share of the machine's products


class Display:
    """Shows how far a run is, from `begin` on. A context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn())
        self._live = Progress(*columns, console=console) if console.is_terminal else None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None) -> None:
        if self._live:
            self._live.stop()

    def begin(self, total: Amount, done: Amount) -> None:
        """Start at `done` of `total` units of the budget."""
        self._total, self._start = total, done
        self._begin = self._shown = time.monotonic()
        if self._live:
            self._task = self._live.add_task("", total=total)
            self._live.update(self._task, completed=done)
            self._live.start()

    def update(self, done: Amount, step: int, tokens: int, loss: float, speed: float | None, share: float | None) -> None:
        """After a step: `done` of the budget's units, and the latest figures."""
        now = time.monotonic()
        if self._live:
            self._live.update(self._task, completed=done, description=self._text(done, step, tokens, loss, speed, share, now))
        elif now - self._shown >= EVERY or done >= self._total:
            self._shown = now
            self.say(f"{min(done / self._total, 1):4.0%}  {self._text(done, step, tokens, loss, speed, share, now)}")

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def _text(
        self, done: Amount, step: int, tokens: int, loss: float, speed: float | None, share: float | None, now: float
    ) -> str:
        parts = [f"step {step:,}", f"{tokens:,} tokens", f"loss {loss:.4f}"]
        if speed:
            parts.append(f"{speed:,.0f} tokens/s")
        if share and not (self._live and self.console.width < _WIDE):
            parts.append(f"{share:.0%} of GEMM")
        if done > self._start:
            left = (now - self._begin) * max(self._total - done, 0) / (done - self._start)
            parts.append(f"{_clock(left)} left")
        return "  ".join(parts)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
