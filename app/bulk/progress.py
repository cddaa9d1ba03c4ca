"""Shows the progress: a bar on a terminal, or else a log line every half minute."""

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
    """Rows and tokens of this run; any thread may report them."""

    def __init__(
        self, total: int, before: int = 0, line_seconds: float = LINE_SECONDS, passages: bool = False
    ) -> None:
        """`before` of `total` rows were done already; with `passages` the encoder sees parts of rows."""
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
        """Start counting here, because the encoder's warm-up is not progress."""
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
        """The share of the computed tokens that is padding."""
        return 1 - self.tokens / max(1, self.padded)

    def watch(self, batch: BatchStats) -> None:
        """What the encoder calls after every batch."""
        with self._lock:
            self.padded += batch.padded
        self.add(0 if self._passages else batch.texts, batch.tokens)

    def add(self, rows: int, tokens: int) -> None:
        """Report that more rows are done, and how many tokens they have."""
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
    """Seconds as hours, minutes and seconds: 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
