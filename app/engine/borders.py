"""Where a text may be cut into passages: at sections, paragraphs, sentences, lines and words.

Sentences end by the rules of Unicode (UAX 29, Sentence_Break); `regex` knows the properties of characters.
For cutting, some rules differ: a line end counts as a space; abbreviations, initials and ordinal numbers end
no sentence; and an opening quote begins the next sentence. If it is unclear whether a sentence ends, there
is no border, as another one is near. Thai has spaces where other scripts have full stops, so the borders of
its words serve as those of its sentences.
"""

import re
from enum import IntEnum
from functools import cache

import numpy as np
import regex
from numpy.typing import NDArray


class Level(IntEnum):
    """What begins at a border, from the smallest to the largest."""

    TOKEN = 0  # none of the others
    WORD = 1
    LINE = 2
    SENTENCE = 3
    PARAGRAPH = 4
    SECTION = 5


# Every character has one kind: the last of these that matches it, or "-". Patterns of sentences match kinds
# instead of characters, which is many times as fast as looking up properties at every character.
KINDS = {
    "l": r"\p{SB=Lower}",
    "u": r"\p{SB=Upper}",
    "o": r"\p{SB=OLetter}",
    "h": r"\p{Hiragana}",
    "d": r"\p{SB=Numeric}",
    "x": r"[\p{SB=Extend}\p{SB=Format}]",
    ",": r"\p{SB=SContinue}",
    "c": r"[\p{SB=Close}*_`]",  # closing quotes and brackets, and marks of Markdown
    "(": r"\p{Ps}",
    "i": r"\p{Pi}",  # quotes that open in some languages and close in others
    "k": r"[」』]",
    " ": r"\s",
    "n": r"[\u00A0\u202F]",
    "r": r"[\n\v\r\x85\u2028]",
    "p": r"[\f\u2029]",
    "!": r"\p{SB=STerm}",  # 。 । ؟ and others that occur only at the end of sentences
    "f": r"．",
    "?": r"[?!]",
    ".": r"[\p{SB=ATerm}--．]",
    "e": r"…",
}
SPACE = b" nrp"
CLOSING = rb"(?:n?[ck]|x|i(?=[ nrp,?!.e]|\Z)|\(d{1,3}c)*+"

# Ends of sentences with the spaces after them, in kinds. The pattern matches every mark that may end a
# sentence, and its empty group matches only if the mark does. It does not backtrack, so its time is linear.
ENDS = re.compile(
    # Not ends: "z. B.", "J. Smith", "am 3. Mai".
    rb"(?:(?<=[lud])(?<![luohdx].)|(?<=dd)(?<![luohdx]..))\.(?!\.)"
    # Marks that occur only at ends, in scripts that may continue without a space; 」 may be in a sentence.
    rb"|[!f][!f?.e]*+" + CLOSING + rb"[ nrp]*+(?:(?!,|(?<=f)d|(?<=k)h)()|)"
    # Marks that also occur within words and sentences: 3.14, ?a=1, "Stop!" she said, Wait ... what.
    rb"|[?.e][!f?.e]*+" + CLOSING + rb"(?:(?:[ nrp]++|(?<=\?)(?=[oh]))(?!,|[-c(ik nrp]{0,8}+l)()|)"
)

# Abbreviations that come before the word they belong to, and hardly ever end a sentence.
ABBREVIATION = re.compile(
    r"\b(?:Dr|Mr|Mrs|Ms|Prof|St|Mme|Mlle|Sra|Dra|Ing|Dipl|Hon|Rev|Gen|Col|Capt|Lt|Sgt|Sen|Rep|Gov|Pres|"
    r"Figs?|Nos?|Nr|Abb|Art|Abs|Kap|Bd|Vols?|Eds?|Eqs?|Secs?|Ch|pp|cf|vs|ca|approx|resp|incl|viz|"
    r"bzw|ggf|evtl|vgl|sog|inkl|zzgl|Hrsg|núm|págs?|figs?|vols?|ed|"
    r"Jan|Feb|Apr|Aug|Sept?|Oct|Okt|Nov|Dec|Dez|ул|им|см|рис|стр|проф|акад)\."
)
HEADING = re.compile(r"^ {0,3}(#{1,6}[ \t].*)", re.MULTILINE)
FENCE = re.compile(r"^ {0,3}(?:```|~~~)", re.MULTILINE)


@cache
def kinds() -> NDArray[np.uint8]:
    """The kind of each code point, as an ASCII character. (0x110000,)"""
    points = np.arange(0x110000, dtype="<u4").tobytes().decode("utf-32-le", "surrogatepass")
    kind = np.full(len(points), ord("-"), dtype=np.uint8)
    for name, pattern in KINDS.items():
        for run in regex.finditer(f"(?:{pattern})+", points, regex.VERSION1):
            kind[run.start() : run.end()] = ord(name)
    return kind


def borders(text: str) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """The characters at which a text may be cut, ascending (k,), and the highest level of each (k,).

    Each is the first character, other than a space, of a word, line, sentence, paragraph or section. In
    scripts without spaces only commas separate words: there are no borders within a clause. A section begins
    at a Markdown heading outside fenced code. The border after a heading is only that of a word, so that the
    heading stays with the text below it.
    """
    if not text:
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int8)
    points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    kind = kinds()[points]
    space = np.isin(kind, list(SPACE))
    starts = np.flatnonzero(space[:-1] & ~space[1:]) + 1
    if space[0]:
        starts = starts[1:]  # there is nothing before it to cut off
    stops = (np.flatnonzero(~space[:-1] & space[1:]) + 1)[: len(starts)]  # end of the text before each start

    line_ends = (kind == ord("r")) + 2 * (kind == ord("p")).astype(np.int64)
    line_ends[:-1] -= (points[:-1] == ord("\r")) & (points[1:] == ord("\n"))
    passed = np.cumsum(line_ends)
    between = passed[starts - 1] - passed[stops - 1]

    levels = np.zeros(len(text) + 1, dtype=np.int8)
    clauses = (kind[:-1] == ord(",")) & np.isin(kind[1:], list(b"oh"))  # 、 and ， have no space after them
    levels[1:-1][clauses] = Level.WORD
    levels[starts] = np.choose(np.minimum(between, 2), [Level.WORD, Level.LINE, Level.PARAGRAPH])
    ends = sentences(text, kind)
    levels[ends] = np.maximum(levels[ends], Level.SENTENCE)
    headings = [heading.span(1) for heading in HEADING.finditer(text)] if "#" in text else []
    if headings:
        fences = np.array([fence.start() for fence in FENCE.finditer(text)], dtype=np.int64)
        begin, end = np.array(headings, dtype=np.int64).T
        outside = np.searchsorted(fences, begin) % 2 == 0
        levels[begin[outside]] = Level.SECTION
        after = np.searchsorted(starts, end[outside])
        below = starts[after[after < len(starts)]]
        levels[below] = np.minimum(levels[below], Level.WORD)
    levels[[0, -1]] = Level.TOKEN
    characters = np.flatnonzero(levels)
    return characters, levels[characters]


def sentences(text: str, kind: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The characters after the end of each sentence and the spaces that follow it. (k,)"""
    kind = kind.copy()
    kind[[abbreviation.end() - 1 for abbreviation in ABBREVIATION.finditer(text)]] = ord("-")
    ends = [end.end() for end in ENDS.finditer(kind.tobytes()) if end.lastindex]
    return np.array(ends, dtype=np.int64)
