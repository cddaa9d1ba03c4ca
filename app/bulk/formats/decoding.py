"""Detects a file's character encoding: from its byte order mark, else from its content."""

import codecs
import re
from typing import BinaryIO

import charset_normalizer

UTF8 = "utf-8"
# UTF-32 comes before UTF-16, because its little-endian mark begins with that of UTF-16.
MARKS = {
    codecs.BOM_UTF8: UTF8,
    codecs.BOM_UTF32_LE: "utf-32-le",
    codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}
ORDERS = {
    "utf-16": ("utf-16-le", "utf-16-be"),
    "utf-32": ("utf-32-le", "utf-32-be"),
}
# Other encodings that files often have. With a longer list, more of them would be mistaken for each other.
ONE_BYTE = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"]
MORE_BYTES = ["gb18030", "big5", "cp932", "euc_jp", "cp949"]
SAMPLE = 1 << 20  # bytes
JUDGED = 1 << 16  # how many of them are examined for encodings older than Unicode
PRINTABLE = 0.95  # the least share of printable characters in a text in UTF-16
HIGH = re.compile(rb"[\x80-\xff]+")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
WRONG = re.compile("[\udc00-\udcff]")
NOT_ASCII = re.compile("[^\x00-\x7f]")
# A text without a Latin letter or a space. It must have punctuation or kana, because two ASCII letters that
# are read as one UTF-16 character never give those.
EAST_ASIAN = re.compile(
    "(?=.*[\u3000-\u30ff\uff00-\uffef])[\u3000-\u9fff\uac00-\ud7a3\uff00-\uffef\\s]+", re.S
)


def _kept(error: UnicodeError) -> tuple[str, int]:
    """Keep each byte that cannot be decoded as a lone surrogate, in every encoding."""
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in wrong), error.end


codecs.register_error("kept", _kept)


def decode(content: bytes, encoding: str = UTF8) -> str:
    """The text; bytes that cannot be decoded are kept as lone surrogates, see `lines.is_text`."""
    return content.decode(encoding, "kept").removeprefix("\ufeff")


def find_encoding(stream: BinaryIO, asked: str | None = None) -> str:
    """The encoding of a file: `asked`, else what its byte order mark says, else what fits, else UTF-8.

    The stream must be at its beginning. If `asked` is `utf-16` or `utf-32`, the byte order is detected.
    """
    if asked not in (None, *ORDERS):
        return str(asked)
    found = stream.read(SAMPLE)
    marked = next((name for mark, name in MARKS.items() if found.startswith(mark)), None)
    if asked is None:
        # ASCII is the same in all of them, so read on until something else comes.
        while not marked and found.isascii() and not CONTROL.search(found):
            if not (following := stream.read(SAMPLE)):
                return UTF8
            found = following
        return marked or _fitting(found)
    if marked in ORDERS[asked]:
        return marked
    if asked == "utf-16":
        return _utf16(found) or "utf-16-le"
    return "utf-32-be" if found.startswith(b"\0") else "utf-32-le"


def read_as(names: list[str], encoding: str, delimiter: str | None = None) -> str:
    """A sentence for the log: which files are read with which encoding and delimiter."""
    who = names[0] + (f" and {len(names) - 1} more are" if len(names) > 1 else " is")
    name = encoding.upper() if encoding.startswith("utf") else encoding
    sign = {"\t": "tabs"}.get(delimiter or "", delimiter)
    return f"{who} read as {name}" + (f", with {sign} between columns" if sign else "")


def _fitting(found: bytes) -> str:
    text = codecs.getincrementaldecoder(UTF8)("kept").decode(found)
    wrong = len(WRONG.findall(text))
    # Latin and Cyrillic letters in UTF-16 have only ASCII bytes, but every second one is a control character.
    if (wrong or 5 * len(CONTROL.findall(found)) > len(found)) and (wide := _utf16(found)):
        return wide
    if not wrong or 2 * wrong <= len(NOT_ASCII.findall(text)):
        return UTF8
    lines = b"\n".join(line for line in found.split(b"\n") if not line.isascii())
    if len(lines) > JUDGED:  # cut at a line's end, not within a character
        lines = lines[:JUDGED].rpartition(b"\n")[0] or lines[:JUDGED]
    runs = HIGH.findall(lines)
    # Accented letters stand between ASCII letters; multi-byte characters are several high bytes in a row.
    alone = 2 * sum(len(run) == 1 for run in runs) > len(runs)
    first, then = (ONE_BYTE, MORE_BYTES) if alone else (MORE_BYTES + ONE_BYTE, [])
    return _older(lines, first) or (then and _older(lines, then)) or UTF8


def _utf16(found: bytes) -> str | None:
    """UTF-16 in the byte order that gives a text, if one does."""
    likely = []
    whole = len(found) % 2 == 0  # else it is cut off, or not UTF-16
    found = found[: len(found) // 2 * 2]
    for name, high in (("utf-16-le", found[1::2]), ("utf-16-be", found[::2])):
        try:
            text = codecs.getincrementaldecoder(name)().decode(found)
        except UnicodeDecodeError:
            continue
        zeros = high.count(0)  # every space, line end and Latin letter has a zero byte
        good = sum(char.isprintable() or char in "\t\n\r\f\u3000" for char in text)
        if good >= PRINTABLE * len(text) and (zeros or (whole and EAST_ASIAN.fullmatch(text))):
            likely.append((good, zeros, name))
    return max(likely)[-1] if likely else None


def _older(found: bytes, names: list[str]) -> str | None:
    matches = charset_normalizer.from_bytes(
        found, cp_isolation=names, steps=10, chunk_size=1024, enable_fallback=False
    )
    best = matches.best()
    if best is None:
        return None
    for match in matches:
        # Of those that fit as well as the best, prefer the most common.
        equal = match.chaos <= best.chaos and match.coherence >= best.coherence
        if equal and "cp1252" in match.could_be_from_charset:
            return "cp1252"
    return best.encoding
