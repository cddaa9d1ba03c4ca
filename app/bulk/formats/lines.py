"""Bytes of a file that are read a line at a time, from its beginning or from a place in it."""

import io
from collections.abc import Iterable, Iterator

from pyarrow import ArrowInvalid, fs

from app.bulk.errors import BulkError
from app.bulk.formats import File

BUFFER = 1 << 20
COMPRESSED = (".gz", ".bz2", ".zst", ".lz4")


def lines(files: fs.FileSystem, file: File, start: int = 0) -> Iterator[bytes]:
    """Lines with their ends, from byte `start`; a compressed file is unpacked, and counted, as it comes."""
    try:
        if file.path.endswith(COMPRESSED):
            with files.open_input_stream(file.path) as packed, io.BufferedReader(packed, BUFFER) as stream:
                left = start
                while left and (skipped := stream.read(min(left, BUFFER))):
                    left -= len(skipped)
                yield from stream
        else:
            with files.open_input_file(file.path) as plain, io.BufferedReader(plain, BUFFER) as stream:
                stream.seek(start)
                yield from stream
    except (OSError, ArrowInvalid) as error:
        raise BulkError(f"{file.path} cannot be read: {error}") from error


def bare(name: str) -> str:
    """Without the ending that tells how it is compressed."""
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return name


def placed(found: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Each line with the byte it starts at."""
    place = 0
    for line in found:
        yield place, line
        place += len(line)


def decode(line: bytes) -> str:
    """Text whose bytes that are no UTF-8 are kept as lone surrogates, see `is_text`."""
    return line.decode("utf-8", "surrogateescape").removeprefix("\ufeff")


def is_text(value: object) -> bool:
    """Whether this is a text that every reader can read."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def storable(value: str) -> str:
    """The text with a replacement character for what is no UTF-8."""
    return value if is_text(value) else value.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
