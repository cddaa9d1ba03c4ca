"""A real, free parallel corpus: Debian's manual pages in five languages, as Parquet.

    python -m tests.manpages pages.parquet

A row is a page: `page` (its name and section, the same in every language), `language`, `text`.
"""

import gzip
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

PACKAGES = ("manpages", "manpages-dev", "manpages-zh", "manpages-de", "manpages-es", "manpages-fr")
LANGUAGES = {"en": ".", "zh": "zh_CN", "de": "de", "es": "es", "fr": "fr"}
CHARACTERS = 1000  # of a page: its name, what it is for and the start of its description
ESCAPES = [
    (r"\\\".*", ""),
    (r"\\f(\[\w*\]|\(..|.)", ""),
    (r"\\s[-+]?\d", ""),
    (r"\\\*?\((..)", " "),
    (r"\\\[(\w+)\]", " "),
    (r"\\[&|^:/,%c!]", ""),
    (r"\\(.)", r"\1"),
    (r"\"", ""),
    (r"\s+", " "),
]


def plain(page: str) -> str:
    """Roughly what a reader of a troff page sees: words without macros, from NAME on."""
    lines: list[str] = []
    named = False
    for line in page.splitlines():
        if line.startswith((".SH", ".Sh")):
            if named and len(" ".join(lines)) > CHARACTERS:
                break
            named = True
            continue
        if re.match(r"['.]\s*(\\\"|TH|Dd|Dt|Os|so|de|ds|nr|if|ie|el|ft|ad|hy|tr)", line):
            continue
        if named:
            lines.append(re.sub(r"^[.']\s*[A-Za-z]{0,3}\b", "", line))
    text = " ".join(lines)
    for pattern, by in ESCAPES:
        text = re.sub(pattern, by, text)
    return text.strip()[:CHARACTERS]


def pages(folder: Path) -> Iterator[dict[str, str]]:
    for language, place in LANGUAGES.items():
        for file in sorted((folder / "usr/share/man" / place).glob("man[1-8]/*.gz")):
            text = plain(gzip.decompress(file.read_bytes()).decode("utf-8", "replace"))
            if len(text) > 200:
                yield {"page": file.name.removesuffix(".gz"), "language": language, "text": text}


def fetch(folder: Path) -> None:
    """Download and unpack packages of the Debian release that this machine uses; nothing is installed."""
    subprocess.run(["apt-get", "download", "--quiet=2", *PACKAGES], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)


def main(target: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        fetch(folder)
        found = list(pages(folder))
    languages: dict[str, set[str]] = {}
    for page in found:
        languages.setdefault(page["page"], set()).add(page["language"])
    kept = [page for page in found if len(languages[page["page"]]) > 1]
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(".unfinished")
    pq.write_table(pa.Table.from_pylist(kept), unfinished)
    unfinished.rename(target)
    print(f"{target}: {len(kept)} pages, {len({page['page'] for page in kept})} of them different")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
