"""How far it is: a bar on a terminal, a line every half minute elsewhere."""

import logging
import sys
import threading
import time
from types import TracebackType
from typing import NoReturn

from tqdm import tqdm

from app.engine.embeddings import BatchStats

log = logging.getLogger(__name__)

LINE_SECONDS = 30


class Progress:
    """Rows and tokens of this run. Told of them from any thread."""

    def __init__(
        self, total: int, before: int = 0, line_seconds: float = LINE_SECONDS, passages: bool = False
    ) -> None:
        """Of `total` rows `before` were there already; with `passages` what is computed is parts of rows."""
        self.tokens = 0
        self.padded = 0
        self.rows = 0
        self._before, self._total = before, total - before
        self._start = self._told = 0.0
        self._line_seconds = line_seconds
        self._passages = passages
        self._lock = threading.Lock()
        self._bar: tqdm[NoReturn] | None = None

    def __enter__(self) -> "Progress":
        """From here on: what the encoder did to warm up is no progress."""
        self.tokens = self.padded = self.rows = 0
        self._start = self._told = time.monotonic()
        if sys.stderr.isatty():
            total = self._before + self._total
            self._bar = tqdm(total=total, initial=self._before, unit=" texts", smoothing=0.05)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def seconds(self) -> float:
        return max(1e-9, time.monotonic() - self._start)

    @property
    def padding(self) -> float:
        """Share of what was computed."""
        return 1 - self.tokens / max(1, self.padded)

    def watch(self, batch: BatchStats) -> None:
        """What the encoder tells of every batch."""
        with self._lock:
            self.padded += batch.padded
        self.add(0 if self._passages else batch.texts, batch.tokens)

    def add(self, rows: int, tokens: int) -> None:
        """So many more rows are done, of so many tokens."""
        with self._lock:
            self.rows += rows
            self.tokens += tokens
            if self._bar is not None:
                self._bar.set_postfix_str(f"{self.tokens / self.seconds:.0f} tokens/s", refresh=False)
                self._bar.update(rows)
            elif self._start and time.monotonic() - self._told > self._line_seconds:
                self._told = time.monotonic()
                log.info("%s", self)

    def __str__(self) -> str:
        left = max(0, self._total - self.rows) * self.seconds / max(1, self.rows)
        return (
            f"{self.rows} of {counted(self._total, 'row')}, {self.rows / self.seconds:.1f} texts/s, "
            f"{self.tokens / self.seconds:.0f} tokens/s, {duration(left)} left"
        )


def counted(number: int, noun: str) -> str:
    """The number with its noun: 1 part, 2 parts."""
    return f"{number} {noun}" + ("s" if number != 1 else "")


def duration(seconds: float) -> str:
    """As a clock shows it: 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
