"""Reads the bytes of a file line by line, from its beginning or from a place in it."""

import io
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, cast

from pyarrow import ArrowInvalid, fs

from app.bulk.errors import BulkError
from app.bulk.formats import File
from app.bulk.formats.decoding import UTF8

BUFFER = 1 << 20
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")


@contextmanager
def opened(files: fs.FileSystem, file: File, start: int = 0) -> Iterator[BinaryIO]:
    """Open a file at byte `start`; a compressed file is decompressed, and `start` counts those bytes."""
    try:
        if file.path.endswith(COMPRESSED):
            with files.open_input_stream(file.path) as packed, io.BufferedReader(packed, BUFFER) as stream:
                left = start
                while left and (skipped := stream.read(min(left, BUFFER))):
                    left -= len(skipped)
                yield cast(BinaryIO, stream)
        else:
            with files.open_input_file(file.path) as plain, io.BufferedReader(plain, BUFFER) as stream:
                stream.seek(start)
                yield cast(BinaryIO, stream)
    except (OSError, ArrowInvalid) as error:
        raise BulkError(f"{file.path} cannot be read: {error}") from error


def lines(files: fs.FileSystem, file: File, start: int = 0) -> Iterator[bytes]:
    """The lines with their ends, from byte `start` on; a line must begin there."""
    end = "\n".encode(file.encoding or UTF8)
    with opened(files, file, start) as stream:
        yield from stream if len(end) == 1 else _wide(stream, end)


def _wide(stream: BinaryIO, end: bytes) -> Iterator[bytes]:
    """Lines in UTF-16 or UTF-32, where the byte of a line feed may be part of any character."""
    line = bytearray()
    while piece := stream.readline():
        line += piece
        line += stream.read(-len(line) % len(end))  # to the end of the character
        if line.endswith(end):
            yield bytes(line)
            line.clear()
    if line:
        yield bytes(line)


def bare(name: str) -> str:
    """The name without the suffix of its compression."""
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name


def placed(found: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each line with the byte it starts at."""
    place = 0
    for line in found:
        yield place, line
        place += len(line)


def is_text(value: object) -> bool:
    """Whether this is a string that can be encoded as UTF-8, so that every reader can read it."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(value: str) -> str:
    """The text with replacement characters for what cannot be encoded as UTF-8."""
    return value if is_text(value) else value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
