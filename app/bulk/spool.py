"""Copies standard input to a file, so that it can be examined first and read again."""

import hashlib
import logging
import os
import uuid
from pathlib import Path
from typing import BinaryIO

from app.bulk.errors import BulkError

log = logging.getLogger(__name__)

MARKS = {b"PAR1": "parquet", b"{": "jsonl"}  # how a format begins; anything else is lines
SKIPPED = b" \t\r\n\0\xef\xbb\xbf\xff\xfe"  # what may come first: blanks and byte order marks
CHUNK = 1 << 20


def spool(stdin: BinaryIO, folder: str, kind: str | None) -> tuple[Path, str]:
    """Copy it to a file in `folder` that is named after its content; return the file and its format.

    The format is `kind` if that is given; else the first bytes decide.
    """
    if "://" in folder:
        raise BulkError("standard input can only be embedded into a folder on this machine")
    unfinished = Path(folder) / f".stdin.{uuid.uuid4().hex}"
    digest = hashlib.sha256()
    first = b""
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as file:
            while chunk := stdin.read(CHUNK):
                first = first or chunk.lstrip(SKIPPED)
                digest.update(chunk)
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        whole = unfinished.with_name(f"_stdin-{digest.hexdigest()[:16]}")
        os.replace(unfinished, whole)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise BulkError(f"{folder} cannot be written: {error}") from error
    if kind is None:
        kind = next((told for mark, told in MARKS.items() if first.startswith(mark)), "lines")
        log.info("standard input is read as %s", kind)
    return whole, kind
