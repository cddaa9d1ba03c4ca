"""Extracts text, title and pages from HTML, PDF and Markdown.

This is a program of its own: it reads documents from standard input and writes what is in them to standard
output. It imports nothing else of ours, so that it starts at once. PDFium and Lexbor are C and C++, and
documents come from anywhere: one that takes too much time or memory ends only this process.
"""

import json
import os
import re
import resource
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

SECONDS = 30  # of CPU time for one document
MEMORY = 1 << 30  # bytes
MOST_CHARACTERS = 1 << 25  # of a document's text
MOST_TITLE = 500

ASKED = struct.Struct("!8sQ")  # kind, bytes of the document that follows
ANSWER = struct.Struct("!QQ")  # bytes of JSON and of text that follow

# Characters that no text has: they mark what must survive while white space is collapsed.
PARAGRAPH, LINE, SPACE = "\ufdd0", "\ufdd1", "\ufdd2"
HEADINGS = {f"h{level}": "#" * level + " " for level in range(1, 7)}
BLOCKS = {
    *("address", "article", "aside", "blockquote", "body", "caption", "details", "div", "dl", "fieldset"),
    *("figcaption", "figure", "footer", "form", "header", "hr", "main", "ol", "p", "pre", "section"),
    *("summary", "table", "ul", *HEADINGS),
}
LINES = {"br", "dd", "dt", "li", "tr"}
CELLS = {"td", "th"}
# Elements that are not part of a page's content.
ASIDE = {
    *("button", "head", "iframe", "nav", "noscript", "object", "script", "select", "style", "svg"),
    *("template", "textarea"),
}
ASIDE_TOO = "[hidden], [role=navigation], body > footer"

# PDFium replaces a hyphen at a line's end with one of these, and puts the rest of the word after it.
NO_CHARACTER = re.compile("[\0-\x08\x0b\x0e-\x1f\ufffe\uffff]")
# The dots between a heading and its page in a table of contents; they have as many tokens as a sentence.
LEADER = re.compile(r" ?(?:[.·…_]\ ?){6,}")

Found = tuple[str, str | None, list[int] | None]  # text, title, where each page begins


class Fault(Exception):
    """Why a document has no text."""


def read_html(content: bytes) -> Found:
    """The text as a browser shows it, with headings as in Markdown; only <main>, if there is exactly one."""
    from selectolax.lexbor import LexborHTMLParser, SelectolaxError

    try:
        tree = LexborHTMLParser(content, encoding=True)
    except SelectolaxError:  # any bytes are HTML, so there was too little memory
        raise Fault("too_large") from None
    titles = (tree.css_first(name) for name in ("title", "h1"))
    title = next((text for node in titles if node and (text := node.text().strip())), None)
    mains = tree.css("main, [role=main]")
    root = mains[0] if len(mains) == 1 else tree.body
    if root is None:
        return "", title, None
    aside = {node.mem_id for node in tree.css(ASIDE_TOO)}
    return _spaced("".join(_texts(root, aside))), title, None


def _texts(root: Any, aside: set[int]) -> Iterator[str]:
    """Texts and markers below an element, without recursion, as a page may be nested to any depth."""
    node, preformatted = root, 0
    while True:
        tag = node.tag
        inside = None
        if node.is_text_node:
            text = node.text_content or ""
            yield text.replace("\n", LINE).replace(" ", SPACE) if preformatted else text
        elif tag not in ASIDE and node.mem_id not in aside:
            yield PARAGRAPH + HEADINGS.get(tag, "") if tag in BLOCKS else LINE if tag in LINES else ""
            inside = node.child
        if inside:
            preformatted += tag == "pre"
            node = inside
            continue
        while node.mem_id != root.mem_id:
            following = node.next
            if following:
                break
            node = node.parent
            tag = node.tag
            preformatted -= tag == "pre"
            yield PARAGRAPH if tag in BLOCKS else " " if tag in CELLS else ""
        else:
            return
        node = following


def _spaced(text: str) -> str:
    """Collapse white space as browsers do, and turn markers into line ends."""
    text = re.sub(r"[ \t\n\r\f]+", " ", text)
    text = re.sub(rf" ?{LINE} ?", "\n", text)
    text = re.sub(rf"[ \n]*{PARAGRAPH}[ \n{PARAGRAPH}]*", "\n\n", text)
    return re.sub(r"\n\n#+(?=\n\n|$)", "", text).replace(SPACE, " ").strip()


def read_pdf(content: bytes) -> Found:
    """The text of all pages, each on lines of its own; words that were hyphenated are whole again."""
    import pypdfium2
    from pypdfium2 import raw

    try:
        document = pypdfium2.PdfDocument(content)
    except pypdfium2.PdfiumError as error:
        locked = error.err_code in (raw.FPDF_ERR_PASSWORD, raw.FPDF_ERR_SECURITY)
        raise Fault("encrypted" if locked else "broken") from None
    texts, broken, images, characters = [], False, False, 0
    for number in range(len(document)):
        try:
            page = document[number]
            text = page.get_textpage().get_text_bounded()
            images = images or (not text and any(page.get_objects([raw.FPDF_PAGEOBJ_IMAGE])))
            page.close()
        except pypdfium2.PdfiumError:
            text, broken = "", True
        text = NO_CHARACTER.sub("", text.replace("\r\n", "\n"))
        texts.append(LEADER.sub(" … ", text))
        characters += len(text)
        if characters > MOST_CHARACTERS:
            raise Fault("too_large")
    text = "\n".join(texts)
    if not text.strip() and (broken or images):
        raise Fault("broken" if broken else "only_images")
    title = document.get_metadata_value("Title").strip()
    pages = [0, *accumulate(len(text) + 1 for text in texts)][: len(texts)]
    return text, title if title != "untitled" else None, pages


def read_markdown(content: bytes) -> Found:
    """Only the title: that of the front matter, else the first heading."""
    text = content.decode("utf-8", "replace").removeprefix("\ufeff")
    if front := re.match(r"---[ \t]*\r?\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", text, re.S):
        text = text[front.end() :]
        named = re.search(r"^title:[ \t]*(?:(?P<quote>[\"'])(.*)(?P=quote)|(.*?))[ \t\r]*$", front[1], re.M)
        if named and (title := (named[2] or named[3] or "").strip()):
            return "", title, None
    return "", next(_headings(text), None), None


def _headings(text: str) -> Iterator[str]:
    from markdown_it import MarkdownIt

    tokens = MarkdownIt("commonmark").parse(text)
    for opening, inline in pairwise(tokens):
        if opening.type == "heading_open":
            heading = "".join(" " if "break" in one.type else one.content for one in inline.children or ())
            if heading.strip():
                yield heading


READERS: dict[str, Callable[[bytes], Found]] = {
    "html": read_html,
    "pdf": read_pdf,
    "markdown": read_markdown,
}


def _answer(kind: str, content: bytes) -> tuple[dict[str, Any], bytes]:
    text, title, pages, fault = "", None, None, None
    try:
        text, title, pages = READERS[kind](content)
        if len(text) > MOST_CHARACTERS:
            raise Fault("too_large")
    except Fault as found:
        text, pages, fault = "", None, str(found)
    except MemoryError:
        text, pages, fault = "", None, "too_large"
    except Exception:  # a library may raise anything on a broken document
        text, pages, fault = "", None, "broken"
    title = " ".join((title or "").split())[:MOST_TITLE].encode("utf-8", "replace").decode() or None
    return {"title": title, "pages": pages, "fault": fault}, text.encode("utf-8", "replace")


def main() -> None:
    """Answer documents from standard input until it ends."""
    documents, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # if the machine runs out of memory, Linux kills this process, not the encoder
        Path("/proc/self/oom_score_adj").write_text("1000")
    while head := documents.read(ASKED.size):
        kind, length = ASKED.unpack(head)
        content = documents.read(length)
        spent = resource.getrusage(resource.RUSAGE_SELF)
        seconds = int(spent.ru_utime + spent.ru_stime) + 1 + SECONDS
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.RLIM_INFINITY))
        told, text = _answer(kind.rstrip(b"\0").decode(), content)
        record = json.dumps(told).encode()
        answers.write(ANSWER.pack(len(record), len(text)) + record + text)
        answers.flush()


if __name__ == "__main__":
    main()
