"""Documents as sources of `flask embed`: text, Markdown, HTML and PDF files."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk.formats.documents import reader as reading
from app.bulk.formats.documents.reader import PROGRAM, Reader
from tests.documents import bomb, lines, pdf

TWO_COLUMNS = lines("The left column is", "read to its end,") + lines("then the right one.", left=320)


@pytest.fixture(scope="module")
def reader():
    with Reader() as reader:
        yield reader


def read(folder: Path) -> pa.Table:
    return pa.concat_tables(pq.read_table(part) for part in sorted(folder.glob("part-*.parquet")))


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (TWO_COLUMNS, "The left column is\nread to its end,\nthen the right one."),
        (lines("机器学习是人工智能", "的一个分支。"), "机器学习是人工智能\n的一个分支。"),
        (lines("A com-", "bination of words"), "A combination of words"),
        (lines("1 Beginning " + ". " * 40 + "7"), "1 Beginning … 7"),
    ],
)
def test_the_text_of_a_pdf_is_what_one_reads(reader, page, text):
    assert reader.read("pdf", pdf([page])).text == text


def test_a_pdf_has_a_title_and_pages(reader):
    pages = [lines("First page."), b"", lines("第三页"), lines("Last.")]
    found = reader.read("pdf", pdf(pages, title="Über Frösche"))
    assert found.title == "Über Frösche"
    assert found.text == "First page.\n\n第三页\nLast."
    assert found.pages == [0, 12, 13, 17]
    assert reader.read("pdf", pdf(pages)).title is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (pdf([lines("hidden")], locked=True), "encrypted"),
        (pdf([lines("half")])[:300], "broken"),
        (b"no PDF at all", "broken"),
        (b"", "broken"),
        (pdf([b"600 0 0 800 0 0 cm /I Do"] * 2), "only_images"),
    ],
)
def test_why_a_pdf_has_no_text_is_told_and_the_next_one_is_read(reader, content, fault):
    found = reader.read("pdf", content)
    assert (found.fault, found.text, found.pages) == (fault, "", None)
    assert reader.read("pdf", pdf([lines("good")])).text == "good"


def test_a_pdf_of_empty_pages_is_empty(reader):
    found = reader.read("pdf", pdf([b"", b""]))
    assert (found.text.strip(), found.fault) == ("", None)


PAGE = """<!doctype html><html><head><title> On\n frogs </title><style>p {}</style></head><body>
<nav>Home | About</nav>
<h1>Frogs</h1><p>A <b>frog</b> is
an <a href="x">am&shy;phi</a>bian.<br>It croaks.</p>
<ul><li>green</li><li>wet</li></ul>
<table><tr><td>legs</td><td>4</td></tr><tr><td>tails</td><td>0</td></tr></table>
<pre>def croak():
    return "quak"</pre>
<p hidden>secret</p><script>alert("no")</script><noscript>no</noscript><h2></h2>
<div>最后<i>一</i>段</div><footer>Imprint</footer></body></html>"""
TEXT = (
    "# Frogs\n\nA frog is an am\u00adphibian.\nIt croaks.\n\ngreen\nwet\n\nlegs 4\ntails 0\n\n"
    'def croak():\n    return "quak"\n\n最后一段'
)


def test_the_text_of_a_page_is_what_a_browser_shows(reader):
    found = reader.read("html", PAGE.encode())
    assert (found.title, found.text, found.pages) == ("On frogs", TEXT, None)


@pytest.mark.parametrize(
    ("content", "title", "text"),
    [
        ('<meta charset="gb2312"><title>青蛙</title><p>两栖动物'.encode("gb2312"), "青蛙", "两栖动物"),
        ("\ufeff<h1>Frösche</h1>".encode("utf-16-le"), "Frösche", "# Frösche"),
        (
            b"<header>Site</header><main><h2>Only</h2>this</main><aside>Advert</aside>",
            None,
            "## Only\n\nthis",
        ),
        (b"no tag at all", None, "no tag at all"),
        (b"<b>" * 20_000 + b"deep", None, "deep"),
        (b"", None, ""),
    ],
)
def test_pages_as_they_are_found(reader, content, title, text):
    found = reader.read("html", content)
    assert (found.title, found.text, found.fault) == (title, text, None)


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("---\ntags: [a]\ntitle: 'On frogs'\n---\n# Other", "On frogs"),
        ("---\ntitle: \n---\n# Of the heading", "Of the heading"),
        ("---\ntitle: ''\n---\n# Of the heading", "Of the heading"),
        ("---\ntags: [a]\n---\n\nOn *green*\n`frogs`\n===\ntext", "On green frogs"),
        ("```\n# code\n```\n\n## Frogs\n", "Frogs"),
        ("text alone", None),
    ],
)
def test_the_title_of_markdown(reader, text, title):
    assert reader.read("markdown", text.encode()).title == title


@pytest.mark.parametrize(
    ("limit", "less", "kind", "content", "good"),
    [
        ("SECONDS = 30", "SECONDS = 0", "html", b"<div>" * 300_000, b"good"),
        ("SECONDS = 30", "SECONDS = 0", "pdf", bomb(), pdf([lines("good")])),
        ("MEMORY = 1 << 30", "MEMORY = 1 << 28", "html", b"<p>x" * 2_000_000, b"good"),
    ],
)
def test_a_document_that_takes_too_much_ends_alone(monkeypatch, tmp_path, limit, less, kind, content, good):
    """Runs the program itself, with one second or a quarter of the memory."""
    quick = tmp_path / "quick.py"
    assert limit in PROGRAM.read_text()
    quick.write_text(PROGRAM.read_text().replace(limit, less))
    monkeypatch.setattr(reading, "PROGRAM", quick)
    with Reader() as reader:
        assert reader.read(kind, content).fault == "too_large"
        assert reader.read(kind, good).text == "good"


def test_the_program_ends_with_the_one_that_asks():
    done = subprocess.run([sys.executable, "-P", str(PROGRAM)], input=b"", capture_output=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, b"")


def books(folder: Path) -> Path:
    (folder / "books" / "zh").mkdir(parents=True)
    for name, content in {
        "a.txt": b"Plain text.",
        "b.md": "# Märchen\n\nEs war **einmal**.".encode(),
        "c.html": PAGE.encode(),
        "d.pdf": pdf([lines("First page."), lines("Second page.")], title="Two pages"),
        "e.pdf": pdf([lines("hidden")], locked=True),
        "f.pdf": b"broken",
        "g.pdf": pdf([b"600 0 0 800 0 0 cm /I Do"]),
        "i.html": b"<title>Nothing</title>",
        "zh/j.htm": "<p>两栖动物".encode(),
    }.items():
        (folder / "books" / name).write_bytes(content)
    return folder / "books"


def test_a_folder_of_documents(run, tmp_path, reference):
    done = run(books(tmp_path), "--out", tmp_path / "out", "--part-rows", 4)
    assert done.exit_code == 3, done.output
    assert "9 rows" in done.output
    for words in ("1 encrypted", "1 broken", "1 only images", "1 empty"):
        assert words in done.output
    table = read(tmp_path / "out")
    assert table.schema.names == ["path", "title", "text", "dense"]
    rows = {row["path"]: row for row in table.to_pylist()}
    assert list(rows) == sorted(rows)
    titles = {path: row["title"] for path, row in rows.items() if row["title"]}
    assert titles == {"b.md": "Märchen", "c.html": "On frogs", "d.pdf": "Two pages", "i.html": "Nothing"}
    assert rows["b.md"]["text"] == "# Märchen\n\nEs war **einmal**."
    assert rows["d.pdf"]["text"] == "First page.\nSecond page."
    for name in ("e.pdf", "f.pdf", "g.pdf"):
        assert (rows[name]["text"], rows[name]["dense"]) == (None, None)
    expected = reference.encode([rows["c.html"]["text"], "两栖动物"]).dense
    assert rows["c.html"]["dense"] == pytest.approx(expected[0].tolist(), abs=1e-6)
    assert rows["zh/j.htm"]["dense"] == pytest.approx(expected[1].tolist(), abs=1e-6)


def test_text_and_markdown_alone_are_what_they_were(run, tmp_path):
    folder = books(tmp_path)
    done = run(folder / "[ab].*", "--out", tmp_path / "text")
    assert done.exit_code == 0, done.output
    found = read(tmp_path / "text")
    assert found.schema.names == ["path", "text", "dense"]
    done = run(folder / "[abcd].*", "--out", tmp_path / "documents")
    assert done.exit_code == 0, done.output
    both = read(tmp_path / "documents").slice(0, 2)
    assert both.column("text") == found.column("text")
    np.testing.assert_allclose(*(table.column("dense").to_pylist() for table in (both, found)), atol=1e-6)
    done = run(folder / "[ab].*", "--format", "documents", "--out", tmp_path / "asked")
    assert read(tmp_path / "asked").column("title").to_pylist() == [None, "Märchen"]


def test_a_document_that_cannot_be_read_may_stop_it(run, tmp_path):
    done = run(books(tmp_path), "--out", tmp_path / "out", "--on-error", "fail")
    assert done.exit_code == 1
    assert "e.pdf is encrypted" in done.output
