"""The lines of a batch's input: read within bounds of memory, and checked as OpenAI does."""

import hashlib
from collections.abc import Callable
from typing import Any, BinaryIO

import orjson

from app.bulk.batches.errors import BatchFault, fault
from app.bulk.errors import Stopped

LINE_BYTES = 32 << 20  # of one line at most
# Lines that are answered together: enough to keep an encoder busy, few enough to fit into memory and to be
# repeated after a restart.
GROUP_LINES = 64
GROUP_BYTES = 1 << 20  # after this many no line is added
GROUP_QUOTES = 1 << 12  # nor after so many quotation marks: a text has two, and its vector takes kilobytes
MOST_LINES = 50_000  # of a batch, OpenAI's limit
MOST_FAULTS = 100  # that are listed
BLANK = b" \t\r\n"


def read_line(file: BinaryIO) -> bytes | None:
    """The next line with its end, b"" after the last; None for one over LINE_BYTES, which is skipped."""
    try:
        line = file.readline(LINE_BYTES + 1)
        if len(line) <= LINE_BYTES or line.endswith(b"\n"):
            return line
        while (rest := file.readline(GROUP_BYTES)) and not rest.endswith(b"\n"):
            pass
    except OSError as error:
        raise BatchFault("input_file_damaged", f"the input file cannot be read: {error.strerror}") from error
    return None


def read_group(file: BinaryIO) -> list[bytes]:
    """The next lines that are not blank, without their ends; none after the last."""
    lines: list[bytes] = []
    size = quotes = 0
    while len(lines) < GROUP_LINES and size < GROUP_BYTES and quotes < GROUP_QUOTES:
        line = read_line(file)
        if line is None:
            raise changed()
        if not line:
            break
        if line := line.strip(BLANK):
            lines.append(line)
            size += len(line)
            quotes += line.count(b'"')
    return lines


def changed() -> BatchFault:
    """The input is not what it was when it was checked."""
    return BatchFault("input_file_damaged", "the input file changed while the batch was under way")


def check(file: BinaryIO, endpoint: str, stopped: Callable[[], bool]) -> tuple[int, list[dict[str, Any]]]:
    """The number of requests, and what is wrong with them; raises Stopped as soon as `stopped()`."""
    seen: set[bytes] = set()
    found: list[dict[str, Any]] = []
    number = requests = 0
    while len(found) < MOST_FAULTS:
        line = read_line(file)
        number += 1
        if stopped():
            raise Stopped
        if line is None:
            requests += 1
            found.append(fault("line_too_long", f"This line is longer than {LINE_BYTES} bytes.", line=number))
        elif not line:
            break
        elif line := line.strip(BLANK):
            requests += 1
            if wrong := _wrong(line, endpoint, seen):
                found.append(fault(*wrong, line=number))
        if requests > MOST_LINES:
            return requests, [
                fault("too_many_tasks", f"The input file has more than {MOST_LINES} requests: split it.")
            ]
    if not requests:
        found.append(fault("empty_file", "The input file has no requests."))
    return requests, found


def _wrong(line: bytes, endpoint: str, seen: set[bytes]) -> tuple[str, str, str | None] | None:
    """Code, message and field of what is wrong with a line; `seen` collects digests of the ids."""
    try:
        request = orjson.loads(line)
    except orjson.JSONDecodeError:
        return "invalid_json_line", "This line is not parseable as valid JSON.", None
    if not isinstance(request, dict):
        return "invalid_json_line", "This line is not a JSON object.", None
    for name, kind, article in (("custom_id", str, "a string"), ("body", dict, "an object")):
        if name not in request:
            return "missing_required_parameter", f"Missing required parameter: '{name}'.", name
        if not isinstance(request[name], kind):
            return "invalid_type", f"'{name}' must be {article}.", name
    if request.get("method") != "POST":
        return "invalid_method", "'method' must be 'POST'.", "method"
    if request.get("url") != endpoint:
        return "invalid_url", "The URL provided for this request does not match the batch endpoint.", "url"
    # Digests, because ids may be long and many.
    digest = hashlib.blake2b(request["custom_id"].encode(), digest_size=16).digest()
    if digest in seen:
        return (
            "duplicate_custom_id",
            "The custom_id for this request is a duplicate of another request. "
            "The custom_id parameter must be unique for each request in a batch.",
            "custom_id",
        )
    seen.add(digest)
    return None
