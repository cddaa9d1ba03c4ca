"""Parses documents in a process of its own, so that none can crash, hang or fill the one that embeds."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from app.bulk.formats.documents.taking_apart import ANSWER, ASKED

PROGRAM = Path(__file__).with_name("taking_apart.py")


@dataclass(frozen=True)
class Document:
    """What is in a file, or why it could not be read."""

    text: str = ""
    title: str | None = None
    pages: list[int] | None = None  # the character at which each page begins; None: no pages
    fault: str | None = None  # encrypted, broken, only_images or too_large


class Reader:
    """One process for all documents of a part; if a document ends it, the next one gets a new process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Reader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def read(self, kind: str, content: bytes) -> Document:
        """Parse a document; `kind` is one of taking_apart.READERS."""
        process = self._process = self._process or _start()
        assert process.stdin
        assert process.stdout
        try:
            process.stdin.write(ASKED.pack(kind.encode(), len(content)))
            process.stdin.write(content)
            process.stdin.flush()
            told, length = ANSWER.unpack(_exactly(process, ANSWER.size))
            found = json.loads(_exactly(process, told))
            text = _exactly(process, length).decode()
            return Document(text, found["title"], found["pages"], found["fault"])
        except (BrokenPipeError, EOFError):
            process.wait()
            # These mean that it ran out of time or memory; anything else means that the document is broken.
            limits = (-signal.SIGXCPU, -signal.SIGABRT, -signal.SIGKILL)
            fault = "too_large" if process.returncode in limits else "broken"
            self._end()
            return Document(fault=fault)

    def _end(self) -> None:
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None


def _start() -> subprocess.Popen[bytes]:
    # -P: files next to the program must not shadow the standard library. A new session: Ctrl-C is only for
    # the process that embeds.
    return subprocess.Popen(
        [sys.executable, "-P", str(PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _exactly(process: subprocess.Popen[bytes], length: int) -> bytes:
    assert process.stdout
    content = process.stdout.read(length)
    if len(content) < length:
        raise EOFError
    return content
