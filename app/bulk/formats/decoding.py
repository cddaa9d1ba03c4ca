"""Which characters the bytes of a file are: told by its mark, else found out."""

import codecs
import re
from typing import BinaryIO

import charset_normalizer

UTF8 = "utf-8"
# The mark of UTF-32 begins as that of UTF-16 does.
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
# What people's files are in besides. Of more, more would be taken for each other.
ONE_BYTE = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"]
MORE_BYTES = ["gb18030", "big5", "cp932", "euc_jp", "cp949"]
SAMPLE = 1 << 20  # bytes
JUDGED = 1 << 16  # of them, for encodings older than Unicode
PRINTABLE = 0.95  # of the characters of a text in UTF-16, at least
HIGH = re.compile(rb"[\x80-\xff]+")
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
WRONG = re.compile("[\udc00-\udcff]")
NOT_ASCII = re.compile("[^\x00-\x7f]")
# Texts without a Latin character or a space; they have signs or kana, which two letters of ASCII are not.
EAST_ASIAN = re.compile(
    "(?=.*[\u3000-\u30ff\uff00-\uffef])[\u3000-\u9fff\uac00-\ud7a3\uff00-\uffef\\s]+", re.S
)


def _kept(error: UnicodeError) -> tuple[str, int]:
    """Each byte that is no text as a lone surrogate, in every encoding."""
    assert isinstance(error, UnicodeDecodeError)
    wrong = error.object[error.start : error.end]
    return "".join(chr(0xDC00 + byte) for byte in wrong), error.end


codecs.register_error("kept", _kept)


def decode(content: bytes, encoding: str = UTF8) -> str:
    """The text; bytes that are none are kept as lone surrogates, see `lines.is_text`."""
    return content.decode(encoding, "kept").removeprefix("\ufeff")


def find_encoding(stream: BinaryIO, asked: str | None = None) -> str:
    """What a file that begins here is in: what is asked, what its mark says, what fits, else UTF-8.

    `asked` as `utf-16` or `utf-32` leaves the order of the bytes to be found out.
    """
    if asked not in (None, *ORDERS):
        return str(asked)
    found = stream.read(SAMPLE)
    marked = next((name for mark, name in MARKS.items() if found.startswith(mark)), None)
    if asked is None:
        # Nothing tells but what is more than ASCII.
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
    """A sentence for the log."""
    who = names[0] + (f" and {len(names) - 1} more are" if len(names) > 1 else " is")
    name = encoding.upper() if encoding.startswith("utf") else encoding
    sign = {"\t": "tabs"}.get(delimiter or "", delimiter)
    return f"{who} read as {name}" + (f", with {sign} between columns" if sign else "")


def _fitting(found: bytes) -> str:
    text = codecs.getincrementaldecoder(UTF8)("kept").decode(found)
    wrong = len(WRONG.findall(text))
    # Latin and Cyrillic letters in UTF-16 are ASCII to those who look at bytes; every second is a control.
    if (wrong or 5 * len(CONTROL.findall(found)) > len(found)) and (wide := _utf16(found)):
        return wide
    if not wrong or 2 * wrong <= len(NOT_ASCII.findall(text)):
        return UTF8
    lines = b"\n".join(line for line in found.split(b"\n") if not line.isascii())
    if len(lines) > JUDGED:  # without half a character at the end
        lines = lines[:JUDGED].rpartition(b"\n")[0] or lines[:JUDGED]
    runs = HIGH.findall(lines)
    # Letters with accents stand between others; characters of more bytes are such bytes in a row.
    alone = 2 * sum(len(run) == 1 for run in runs) > len(runs)
    first, then = (ONE_BYTE, MORE_BYTES) if alone else (MORE_BYTES + ONE_BYTE, [])
    return _older(lines, first) or (then and _older(lines, then)) or UTF8


def _utf16(found: bytes) -> str | None:
    """UTF-16 in the order of bytes that gives a text, if one does."""
    likely = []
    whole = len(found) % 2 == 0  # else cut off, or no UTF-16
    found = found[: len(found) // 2 * 2]
    for name, high in (("utf-16-le", found[1::2]), ("utf-16-be", found[::2])):
        try:
            text = codecs.getincrementaldecoder(name)().decode(found)
        except UnicodeDecodeError:
            continue
        zeros = high.count(0)  # every space, line end and Latin letter has one
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
        # Among those that fit as well as the best the most frequent.
        equal = match.chaos <= best.chaos and match.coherence >= best.coherence
        if equal and "cp1252" in match.could_be_from_charset:
            return "cp1252"
    return best.encoding
