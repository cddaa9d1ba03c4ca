"""The lines of a batch's input: read with bounded memory, and checked as OpenAI does."""

import codecs
import hashlib
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson

from app.bulk.batches.errors import BatchFault, fault
from app.bulk.errors import Stopped

LINE_BYTES = 4 << 20  # the longest line
# The most JSON values in a line: each takes about 100 bytes, and no other thread runs while they are parsed.
LINE_VALUES = 200_000
# How many lines are answered together: enough to keep an encoder busy, but few enough to fit into memory, to
# end soon after a batch is cancelled, and to be repeated after a restart.
GROUP_LINES = 64
GROUP_BYTES = 1 << 17  # a group with this many takes no more lines; they are about 30,000 tokens
GROUP_QUOTES = 1 << 12  # nor with this many quotation marks: a text has two, and its vector takes kilobytes
MOST_LINES = 50_000  # in a batch, OpenAI's limit
MOST_INPUTS = 50_000  # texts in all of its lines, OpenAI's limit for embeddings
MOST_BLANK = 100_000  # lines without a request
MOST_FAULTS = 100  # that a batch lists
BLANK = b" \t\r\n"


def read_line(file: BinaryIO, gone: Callable[[], bool]) -> bytes | None:
    """The next line with its end, b"" after the last; None for one over LINE_BYTES, which is skipped.

    Raises Stopped as soon as `gone()`.
    """
    if gone():
        raise Stopped
    try:
        line = file.readline(LINE_BYTES + 1)
        if len(line) <= LINE_BYTES or line.endswith(b"\n"):
            return line
        while (rest := file.readline(GROUP_BYTES)) and not rest.endswith(b"\n"):
            if gone():
                raise Stopped
    except OSError as error:
        raise BatchFault("input_file_damaged", f"the input file cannot be read: {error.strerror}") from error
    return None


def read_group(file: BinaryIO, gone: Callable[[], bool]) -> list[bytes]:
    """The next lines that are not blank, without their ends; [] at the end. Raises Stopped once `gone()`."""
    lines: list[bytes] = []
    size = quotes = 0
    while len(lines) < GROUP_LINES and size < GROUP_BYTES and quotes < GROUP_QUOTES:
        line = read_line(file, gone)
        if line is None or _is_complex(line):
            raise changed()
        if not line:
            break
        if line := _stripped(line):
            lines.append(line)
            size += len(line)
            quotes += line.count(b'"')
    return lines


def changed() -> BatchFault:
    """The input is not what it was when it was checked."""
    return BatchFault("input_file_damaged", "the input file changed while the batch was under way")


def check(file: BinaryIO, endpoint: str, gone: Callable[[], bool]) -> tuple[int, list[dict[str, Any]]]:
    """The number of requests, and what is wrong with them; raises Stopped as soon as `gone()`."""
    seen: set[bytes] = set()
    found: list[dict[str, Any]] = []
    number = requests = inputs = 0
    while len(found) < MOST_FAULTS:
        line = read_line(file, gone)
        number += 1
        if line is None:
            requests += 1
            found.append(fault("line_too_long", f"This line is longer than {LINE_BYTES} bytes.", line=number))
        elif not line:
            break
        elif line := _stripped(line):
            requests += 1
            try:
                inputs += _inputs(_request(line, endpoint, seen))
            except BatchFault as wrong:
                found.append(wrong.listed(number))
        for count, most, code, what in (
            (requests, MOST_LINES, "too_many_tasks", "requests"),
            (inputs, MOST_INPUTS, "too_many_inputs", "texts"),
            (number - requests, MOST_BLANK, "too_many_blank_lines", "blank lines"),
        ):
            if count > most:
                return requests, [fault(code, f"The input file has more than {most} {what}: split it.")]
    if not requests:
        found.append(fault("empty_file", "The input file has no requests."))
    return requests, found


def _stripped(line: bytes) -> bytes:
    """The line without blanks around it, and without the byte order mark that some editors write."""
    return line.removeprefix(codecs.BOM_UTF8).strip(BLANK)


def _is_complex(line: bytes) -> bool:
    """Whether a line may have more than LINE_VALUES JSON values; punctuation in strings counts too."""
    return sum(map(line.count, (b",", b":", b"[", b"{"))) > LINE_VALUES


def _request(line: bytes, endpoint: str, seen: set[bytes]) -> dict[str, Any]:
    """Parse a line; raises BatchFault if it is not a request. `seen` collects digests of the ids."""
    if _is_complex(line):
        raise BatchFault(
            "line_too_complex", f"This line has more than {LINE_VALUES} commas, colons and opening brackets."
        )
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        raise BatchFault("invalid_json_line", "This line is not parseable as valid JSON.") from None
    if not isinstance(request, dict):
        raise BatchFault("invalid_json_line", "This line is not a JSON object.")
    for name, kind, article in (("custom_id", str, "a string"), ("body", dict, "an object")):
        if name not in request:
            raise BatchFault("missing_required_parameter", f"Missing required parameter: '{name}'.", name)
        if not isinstance(request[name], kind):
            raise BatchFault("invalid_type", f"'{name}' must be {article}.", name)
    if request.get("method") != "POST":
        raise BatchFault("invalid_method", "'method' must be 'POST'.", "method")
    if request.get("url") != endpoint:
        raise BatchFault(
            "invalid_url", "The URL provided for this request does not match the batch endpoint.", "url"
        )
    # Digests, because ids may be long and many.
    digest = hashlib.blake2b(request["custom_id"].encode(), digest_size=16).digest()
    if digest in seen:
        raise BatchFault(
            "duplicate_custom_id",
            "The custom_id for this request is a duplicate of another request. "
            "The custom_id parameter must be unique for each request in a batch.",
            "custom_id",
        )
    seen.add(digest)
    return request


def _inputs(request: dict[str, Any]) -> int:
    """How many texts a request seems to have; it is not validated yet."""
    texts = request["body"].get("input")
    return len(texts) if isinstance(texts, list) else 1
