"""Files on the Search view: every type that is read, and what is said of what cannot be."""

import gzip
import json
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from playwright.sync_api import expect

from tests.browser.conftest import settle

pytestmark = pytest.mark.browser

TEXTS = ["Das Brot ist fertig.", "Morgen regnet es.", "Die Maschine lernt."]
GERMAN = "Über die Brücke führen fünf Wege.\nMöchten Sie Käse?"
CHINESE = "明天的天气怎么样？\n怎么做面包？"


def drop(page, name, content):
    """Let a file fall on the view, beside everything that takes one."""
    data = page.evaluate_handle(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name));
          return transfer;
        }""",
        [name, list(content if isinstance(content, bytes) else content.encode())],
    )
    page.dispatch_event("#hits", "dragover", {"dataTransfer": data})
    expect(page.locator("#find-drop")).to_have_class("drop dropping")
    page.dispatch_event("#hits", "drop", {"dataTransfer": data})


def ask(page, question):
    page.locator("#find-query").fill(question)
    page.locator("#find-query").press("Enter")
    expect(page.locator("#hits li").first).to_be_visible()
    settle(page)


def about(page):
    return page.locator("#hits li").first.locator(".about")


TABLES = {
    "a.csv": "id,text,kind\n1,Das Brot ist fertig.,x\n2,Morgen regnet es.,y\n3,,no\n4,Die Maschine lernt.,z",
    "a.tsv": "text\tid\n" + "".join(f"{text}\t{number}\n" for number, text in enumerate(TEXTS)),
    "bom.csv": "\ufefftext;id\n" + "".join(f"{text};{number}\n" for number, text in enumerate(TEXTS)),
    "a.jsonl": "\n\n".join(json.dumps({"id": n, "text": text}) for n, text in enumerate(TEXTS)),
    "strings.ndjson": "\n".join(json.dumps(text) for text in TEXTS),
    "a.json": json.dumps([{"body": text, "tags": ["a"]} for text in TEXTS], indent=1),
    "a.txt": "\n\n".join(TEXTS),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_file_is_parsed_and_searched(open_page, name):
    page = open_page("search")
    drop(page, name, TABLES[name])
    expect(page.locator("#find-about")).to_have_text(f"{name}: 3 passages")
    settle(page)
    ask(page, "Will it rain tomorrow?")
    expect(page.locator("#hits .passage").first).to_have_text("Morgen regnet es.")
    place = {"a.jsonl": "line 3", "strings.ndjson": "line 2", "a.txt": "line 3"}.get(name, "row 2")
    expect(about(page)).to_contain_text(place)
    if name == "a.csv":
        expect(about(page)).to_have_text("row 2id: 2kind: y")
        expect(page.locator("#find-column option:checked")).to_have_text("text")
        page.locator("#find-column").select_option(label="kind")
        expect(page.locator("#find-about")).to_have_text("a.csv: 4 passages")
        expect(page.locator("#hits li")).to_have_count(0)


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "brotli", "lz4", "none"])
def test_parquet_is_read_whatever_compresses_it(open_page, tmp_path, codec):
    page = open_page("search")
    fetched = []
    page.on("request", lambda request: fetched.append(request.url))
    columns = {
        "id": [1, 2, None, 4],
        "tags": [["a long list of words that is no text"], [], None, ["b"]],
        "what": [TEXTS[0], None, TEXTS[1], TEXTS[2]],
        "nested": [{"x": "also no text at all, whatever is in it"}, None, {"x": "z"}, {"x": "y"}],
        "when": pa.array([0, 1, None, 3], pa.timestamp("us")),
        "blob": [b"\xff\xfe" * 40, None, b"a", b"b"],
    }
    file = tmp_path / "table.parquet"
    pq.write_table(pa.table(columns), file, compression=codec)
    assert not any("hyparquet" in url for url in fetched)
    page.locator("#find-file").set_input_files(file)
    expect(page.locator("#find-about")).to_have_text("table.parquet: 3 passages")
    assert sum("hyparquet" in url for url in fetched) == 1
    expect(page.locator("#find-column option")).to_have_text(["what"])
    settle(page)
    ask(page, "Will it rain tomorrow?")
    expect(page.locator("#hits .passage").first).to_have_text("Morgen regnet es.")
    expect(about(page)).to_have_text(re.compile(r'^row 3nested: \{"x":"z"\}blob: a$'))


def test_of_many_rows_the_first_are_read(open_page, tmp_path):
    page = open_page("search")
    file = tmp_path / "many.parquet"
    pq.write_table(pa.table({"text": [f"number {number}" for number in range(5000)]}), file)
    page.locator("#find-file").set_input_files(file)
    expect(page.locator("#find-about")).to_have_text("many.parquet: 2000 passages")
    expect(page.locator("#find-notes")).to_contain_text("Only the first 2000 of 5000 passages are read.")
    page.locator("#find-cancel").click()
    drop(page, "many.txt", "\n".join(f"line {number}" for number in range(2001)))
    expect(page.locator("#find-notes")).to_contain_text("Only the first 2000 of 2001 passages are read.")
    page.locator("#find-cancel").click()


WRONG = {
    "sheet.xlsx": (b"PK\x03\x04", "sheet.xlsx is of a type that this page does not read. Save it as .txt,"),
    "empty.csv": (b"", "empty.csv is empty."),
    "head.csv": (b"text,id\n", "head.csv has no text to search."),
    "quote.csv": (
        b'text,id\nfine,1\n"not closed,2\nmore,3\n',
        "The quote that opens on line 3 is never closed.",
    ),
    "bad.jsonl": (
        b'{"text": "fine"}\n\n{"text": oops}\n',
        "Line 3 is neither a JSON object nor a JSON string.",
    ),
    "number.jsonl": (b"17\n", "Line 1 is neither a JSON object nor a JSON string."),
    "bad.json": (b'[{"text": "fine"},', "This file is not JSON:"),
    "bad.parquet": (b"PAR1 or not", "This file cannot be read as Parquet:"),
    "image.txt": (b"\x89PNG\r\n\x1a\n\0\0\0", "This file is not text."),
    "packed.txt": (gzip.compress(b"text", mtime=0), "This file is not text."),
    "blank.txt": (b" \n\n", "blank.txt has no text to search."),
}


def test_what_is_wrong_with_a_file_is_said_and_nothing_is_lost(open_page):
    page = open_page("search")
    for name, (content, sentence) in WRONG.items():
        drop(page, name, content)
        expect(page.locator("#find-say")).to_contain_text(sentence)
        expect(page.locator("#find-say")).to_have_class("say error")
        expect(page.locator("#find-about")).to_have_text("Example: 48 passages")
    ask(page, "bread")
    page.locator("#language").click()
    drop(page, "sheet.xlsx", b"PK")
    expect(page.locator("#find-say")).to_contain_text("本页面无法读取 sheet.xlsx 这种类型的文件")


def test_a_parquet_file_without_text_and_a_huge_file_are_refused(open_page, tmp_path):
    page = open_page("search")
    numbers = tmp_path / "numbers.parquet"
    pq.write_table(pa.table({"x": [1, 2], "y": [["a"], ["b"]]}), numbers)
    page.locator("#find-file").set_input_files(numbers)
    expect(page.locator("#find-say")).to_contain_text("has no column of text")
    huge = tmp_path / "huge.csv"
    with huge.open("wb") as file:
        file.truncate(101 * 1024 * 1024)
    page.locator("#find-file").set_input_files(huge)
    expect(page.locator("#find-say")).to_contain_text("huge.csv has 101 MB; this page reads up to 100 MB.")


@pytest.mark.parametrize(
    ("encoding", "text", "said"),
    [
        ("utf-8-sig", GERMAN, None),
        ("utf-16", GERMAN, None),
        ("utf-16-be", "\ufeff" + CHINESE, None),
        ("cp1252", GERMAN, "windows-1252"),
        ("gb18030", CHINESE, "gb18030"),
    ],
)
def test_an_encoding_is_read_and_a_guess_is_said(open_page, encoding, text, said):
    page = open_page("search")
    drop(page, "a.txt", text.encode(encoding))
    expect(page.locator("#find-about")).to_have_text("a.txt: 2 passages")
    settle(page)
    ask(page, text.split("\n")[0])
    expect(page.locator("#hits .passage").first).to_have_text(text.split("\n")[0])
    notes = page.locator("#find-notes")
    if said:
        expect(notes).to_contain_text(f"It was read as {said}, which is a guess")
    else:
        expect(notes).to_be_hidden()


def test_rows_wider_than_the_first_line_are_told_of(open_page):
    page = open_page("search")
    drop(page, "wide.csv", 'text,id\n"over\ntwo lines",1\nbread, not quoted, and more,2\nfine,3\n')
    expect(page.locator("#find-about")).to_have_text("wide.csv: 3 passages")
    expect(page.locator("#find-notes")).to_contain_text("The first is on line 4 (4 fields, 2 columns).")
    drop(page, "long.csv", f"text,id\n{'rain and bread ' * 100},1\n")
    settle(page)
    ask(page, "bread")
    passage = page.locator("#hits .passage")
    folded = passage.bounding_box()["height"]
    page.get_by_role("button", name="Show all of it").click()
    assert passage.bounding_box()["height"] > 2 * folded
    page.get_by_role("button", name="Show less").click()
    assert passage.bounding_box()["height"] == folded


def test_the_map_says_what_is_wrong_with_a_table(open_page, tmp_path):
    page = open_page("map")
    file = tmp_path / "quote.csv"
    file.write_bytes(WRONG["quote.csv"][0])
    page.locator("#points-file").set_input_files(file)
    expect(page.locator("#map-say")).to_contain_text(WRONG["quote.csv"][1])


def test_a_document_is_cut_into_passages_or_read_as_lines(open_page):
    page = open_page("search")
    bread, rain = "Bread is baked from flour and water. " * 60, "Rain falls from clouds. " * 90
    text = f"# Bread\n\n{bread}\n\n# Rain\n\n{rain}"
    drop(page, "book.md", text)
    expect(page.locator("#find-about")).to_have_text(re.compile(r"^book\.md: \d+ passages$"))
    settle(page)
    ask(page, "Wetter")
    expect(about(page)).to_have_text(re.compile(r"^passage \d+/\d+ · Rain$"))
    page.get_by_role("button", name="Read as lines").click()
    expect(page.locator("#find-about")).to_have_text("book.md: 4 passages")


def test_texts_are_pasted_in_their_box_or_anywhere(open_page):
    page = open_page("search")
    page.locator("#find-paste").click()
    expect(page.locator("#paste-text")).to_be_focused()
    page.locator("#paste-text").fill("kind\ttext\nx\tDas Brot ist fertig.\ny\tMorgen regnet es.")
    page.get_by_role("button", name="Search in these texts").click()
    expect(page.locator("#find-about")).to_have_text("Pasted text: 2 passages")
    expect(page.locator("#find-column option:checked")).to_have_text("text")
    page.evaluate(
        """() => {
          const clipboardData = new DataTransfer();
          clipboardData.setData("text/plain", '{"text": "eins"}\\n{"text": "zwei"}\\n{"text": "drei"}');
          document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true }));
        }"""
    )
    expect(page.locator("#find-about")).to_have_text("Pasted text: 3 passages")
    page.locator("#find-example").click()
    expect(page.locator("#find-about")).to_have_text("Example: 48 passages")
