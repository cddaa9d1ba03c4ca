"""`flask embed` on all sorts of files: it logs what it detects, and no row stops a corpus."""

import json
import logging
import os
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk.errors import BulkError
from app.bulk.formats import Malformed
from app.bulk.source import find_source
from tests.test_bulk import read, write_jsonl

TEXTS = {
    "de": "Für die Größe der Bäume gäbe es keine schöne Erklärung, sagte der Müller.",
    "zh": "什么是机器学习？明天的天气会怎么样？我们去图书馆看书吧。",
    "ru": "Что такое машинное обучение? Завтра будет дождь, сказал он тихо.",
    "pa": "ਮਸ਼ੀਨ ਸਿਖਲਾਈ ਕੀ ਹੈ? ਉਹ ਊਠ ਅਤੇ ਆਲੂ ਲਿਆਇਆ।",  # in UTF-16 every letter has the byte of a line end
}


@pytest.fixture(autouse=True)
def _told(caplog):
    caplog.set_level(logging.INFO)


def texts_of(place: Path, **how) -> list[object]:
    """The texts of a source that is read in parts of two rows."""
    source = find_source(str(place), **how)
    return [text for part in source.parts(2) for text in source.read(part).texts]


@pytest.mark.parametrize(
    ("language", "encoding"),
    [
        *((language, encoding) for language in TEXTS for encoding in ("utf-16", "utf-16-le", "utf-16-be")),
        ("de", "cp1252"),
        ("zh", "gb18030"),
        ("ru", "cp1251"),
        ("ru", "koi8-r"),
        ("pa", "utf-32"),
        ("zh", "utf-8-sig"),
    ],
)
def test_encodings_are_found_out_in_every_format(tmp_path, caplog, language, encoding):
    texts = [f"{number} {TEXTS[language]}" for number in range(5)]
    written = {
        "a.txt": ["\n".join(texts)],
        "lines.txt": texts,
        "a.csv": ["n;text"] + [f'{number};"{text}"' for number, text in enumerate(texts)],
        "a.jsonl": [json.dumps({"text": text}, ensure_ascii=False) for text in texts],
    }
    for name, lines in written.items():
        (tmp_path / name).write_bytes("\n".join(lines).encode(encoding))
        kind = "lines" if name == "lines.txt" else None
        found = texts_of(tmp_path / name, kind=kind)
        assert found == (["\n".join(texts)] if name == "a.txt" else texts), name
    if encoding != "utf-8-sig":
        assert "a.txt is read as" in caplog.text
        assert "a.jsonl is read as" in caplog.text
    assert "a.csv is read as" in caplog.text
    assert "with ; between columns" in caplog.text


def test_a_file_that_begins_in_ascii_is_read_to_the_first_letter_that_is_not(tmp_path):
    (tmp_path / "a.txt").write_bytes(
        b"all of it ASCII\n" * 200_000 + (TEXTS["de"] + "\n").encode("cp1252") * 3
    )
    source = find_source(str(tmp_path / "a.txt"), kind="lines")
    *_, last = source.parts(2048)
    assert source.read(last).texts[-1] == TEXTS["de"]


def test_one_broken_line_is_no_other_encoding(tmp_path):
    good = [(line + "\n").encode() for line in TEXTS.values()]
    (tmp_path / "a.txt").write_bytes(b"".join([*good, b"broken \xe9\xff here\n", *good]))
    found = texts_of(tmp_path / "a.txt", kind="lines")
    assert [text for text in found if text in TEXTS.values()] == [*TEXTS.values()] * 2
    assert found[4] == "broken \udce9\udcff here"


def test_a_file_in_utf_16_that_was_cut_off(tmp_path):
    (tmp_path / "a.txt").write_bytes("one text\nand another\n".encode("utf-16-le")[:-1])
    assert texts_of(tmp_path / "a.txt", kind="lines") == ["one text", "and another\udc0a"]


def test_a_name_that_is_no_utf_8_is_said(tmp_path):
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("one")
    with pytest.raises(BulkError, match="whose name is not UTF-8"):
        find_source(str(tmp_path))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_are_found_out(tmp_path, caplog, delimiter):
    rows = [["id", "price, net", "text"], ["1", "3,50", "one; or | the\tother, in short"], ["2", "4", "two"]]
    quoted = [delimiter.join(f'"{field}"' for field in row) for row in rows]
    (tmp_path / "a.csv").write_text("\n".join(quoted))
    assert texts_of(tmp_path / "a.csv") == [rows[1][2], "two"]
    assert ("a.csv is read as UTF-8, with" in caplog.text) == (delimiter != ",")
    # Without quotes, the column's name decides.
    (tmp_path / "b.csv").write_text(f"price, net{delimiter}text\n" + f"3,5{delimiter}one\n" * 3)
    if delimiter != ",":
        assert texts_of(tmp_path / "b.csv") == ["one"] * 3


def test_encoding_and_delimiter_can_be_said(run, tmp_path):
    (tmp_path / "a.csv").write_bytes("text:n\nżółw:1\n".encode("cp852"))
    done = run(
        *(tmp_path / "a.csv", "--out", tmp_path / "out", "--delimiter", ":"),
        *("--encoding", "cp852", "--encoding", "int8"),
    )
    assert done.exit_code == 0, done.output
    table = read(tmp_path / "out")
    assert table.drop_columns("dense").to_pylist() == [{"text": "żółw", "n": "1"}]
    assert table.schema.field("dense").type.value_type == pa.int8()
    again = run(tmp_path / "a.csv", "--out", tmp_path / "out", "--delimiter", ":", "--encoding", "int8")
    assert "begun with a different text encoding (cp852, now None)" in again.output
    (tmp_path / "b.tsv").write_text("text\tn\none\t1\n")
    arguments = (
        tmp_path / "b.tsv",
        "--out",
        tmp_path / "tabs",
        "--delimiter",
        "tab",
        "--encoding",
        "utf-8-sig",
    )
    assert run(*arguments).exit_code == 0
    assert read(tmp_path / "tabs").column("text").to_pylist() == ["one"]
    for wrong, words in (
        (("--encoding", "latin17"), "'latin17' is neither float32, float16, int8, binary, ubinary"),
        (("--encoding", "cp037"), "'cp037' is neither"),
        (("--encoding", "base64"), "'base64' is neither"),
        (("--encoding", "int8", "--encoding", "binary"), "give at most one for numbers"),
        (("--delimiter", "::"), "one character, or tab"),
    ):
        done = run(tmp_path / "a.csv", "--out", tmp_path / "no", *wrong)
        assert (done.exit_code, words in " ".join(done.output.split())) == (2, True), done.output
    good = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    assert "--delimiter is for CSV" in run(good, "--out", tmp_path / "no", "--delimiter", ";").output


def test_folders_as_hive_names_them_are_columns(run, tmp_path):
    for name, texts in {
        "lang=en/year=2024": ["one", "two"],
        "lang=a%2Fb/year=__HIVE_DEFAULT_PARTITION__": ["x"],
    }.items():
        (tmp_path / "parquet" / name).mkdir(parents=True)
        pq.write_table(pa.table({"text": texts}), tmp_path / "parquet" / name / "0.parquet")
        (tmp_path / "txt" / name).mkdir(parents=True)
        for number, text in enumerate(texts):
            (tmp_path / "txt" / name / f"{number}.txt").write_text(text)
    expected = [("a/b", None, "x"), ("en", "2024", "one"), ("en", "2024", "two")]
    for kind in ("parquet", "txt"):
        assert run(tmp_path / kind, "--out", tmp_path / "out" / kind).exit_code == 0
        rows = read(tmp_path / "out" / kind).to_pylist()
        assert [(row["lang"], row["year"], row["text"]) for row in rows] == expected
    # A column that the file has itself is kept.
    (tmp_path / "own" / "lang=en").mkdir(parents=True)
    pq.write_table(pa.table({"text": ["one"], "lang": ["de"]}), tmp_path / "own" / "lang=en" / "0.parquet")
    source = find_source(str(tmp_path / "own"))
    assert source.read(next(source.parts(9))).table.to_pylist() == [{"text": "one", "lang": "de"}]


def test_a_file_of_several_lines_is_one_text_and_says_so(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert texts_of(tmp_path / "a.txt") == ["one\ntwo\n"]
    assert "a.txt is read as one text; if each line is a text, use --format lines" in caplog.text
    caplog.clear()
    texts_of(tmp_path / "a.txt", kind="text")
    texts_of(tmp_path / "a.txt", kind="lines")
    (tmp_path / "b.txt").write_text("one\n\n")
    texts_of(tmp_path / "b.txt")
    assert "--format lines" not in caplog.text


def test_a_files_name_is_no_folder(run, tmp_path):
    good = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    names = ("x.csv", "x.parquet", "x.JSON", "x.jsonl.gz", "x.txt", "x.pdf", "x.NPY", "x.npy.gz", "x.npy/")
    for name in (*names, "s3://bucket/x.parquet"):
        done = run(good, "--out", name if "://" in name else f"{tmp_path}/{name}")
        assert done.exit_code == 1
        assert "looks like a file" in done.output
        assert "x.npy for dense vectors in one file" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]
    (tmp_path / "old.csv").mkdir()
    assert run(good, "--out", tmp_path / "old.csv").exit_code == 0
    assert run(good, "--out", tmp_path / "v1.2").exit_code == 0


def test_counts_agree_with_their_nouns(run, tmp_path, caplog):
    good = write_jsonl(tmp_path / "a.jsonl", [{"text": "one"}])
    assert "1 row, without a vector: none" in run(good, "--out", tmp_path / "out").output
    assert "1 row in 1 part, 0 already done" in caplog.text
    two = write_jsonl(tmp_path / "b.jsonl", [{"text": "one"}, {"text": "two"}])
    assert "2 rows, without" in run(two, "--out", tmp_path / "two", "--part-rows", 1).output
    assert "2 rows in 2 parts, 0 already done" in caplog.text


DEEP = 200_000
WILD_JSON = [
    b'{"id": 1, "text": "good"}',
    b'{"id": 2, "text": "good", "deep": ' + b"[" * DEEP + b"]" * DEEP + b"}",
    b'{"id": 3, "text": "good", "deep": ' + b'{"a":' * 1000 + b"1" + b"}" * 1000 + b"}",
    b'{"id": 4, "text": "good", "\\ud800": 1}',
    b'{"id": 5, "text": "good", "value": {"\\udfff": ["\\ud800"]}}',
    b'{"id": 6, "text": "good", "value": "\\ud800"}',
    b'{"id": 7, "text": "broken \xe9", "other": "\xc3\xbc\xc3\xbc"}',
    b'{"id": 8, "text": "good"',
    b"[1]",
    b'{"id": 9, "text": "good", "value": ' + b"9" * 5000 + b"}",
    b'{"id": 10, "text": {"a": "good"}}',
    b'{"id": 11, "text": "good", "value": NaN}',
    b'{"id": 12, "text": "good"}',
]


def test_whatever_a_json_row_holds_is_a_row(run, tmp_path, caplog):
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(WILD_JSON))
    done = run(tmp_path / "a.jsonl", "--out", tmp_path / "out", "--part-rows", 4)
    assert done.exit_code == 3, done.output
    assert "13 rows, without a vector: 2 not text, 6 malformed" in done.output
    table = read(tmp_path / "out")
    ids = [1, None, None, None, 5, 6, 7, None, None, None, 10, 11, 12]
    assert table.column("id").to_pylist() == ids
    has = [value is not None for value in table.column("dense").to_pylist()]
    assert has == [number in (1, 5, 6, 11, 12) for number in ids]
    assert (
        "a.jsonl row 2 is malformed: it is nested too deeply (malformed rows in this part: 3 of 4)"
        in caplog.text
    )
    done = run(tmp_path / "a.jsonl", "--out", tmp_path / "skip", "--on-error", "skip")
    assert read(tmp_path / "skip").column("id").to_pylist() == [1, 5, 6, 11, 12]
    (tmp_path / "b.jsonl").write_bytes(WILD_JSON[0] + b"\n" + WILD_JSON[7])
    for number, more in enumerate(((), ("--id-column", "id"))):
        done = run(tmp_path / "b.jsonl", "--out", tmp_path / f"fail{number}", "--on-error", "fail", *more)
        assert done.exit_code == 1
        assert "b.jsonl, row 2, is malformed: it is not valid JSON" in done.output


def test_whatever_a_csv_row_holds_is_a_row(run, tmp_path):
    rows = [
        "one,1",
        "two",
        "three,3,3",
        '"four',
        "five,5",
        '"six"x,6',
        "seven,7",
        '"eight\nand more",8',
        '"nine',
    ]
    (tmp_path / "a.csv").write_text("text,n\n" + "\n".join(rows) + "\nten,10\n")
    for size in (1, 2, 100):
        done = run(tmp_path / "a.csv", "--out", tmp_path / f"out{size}", "--part-rows", size)
        assert done.exit_code == 3, done.output
        found = read(tmp_path / f"out{size}").drop_columns("dense").to_pylist()
        good = {row["n"]: row["text"] for row in found if row["n"] is not None}
        assert good == {"1": "one", "5": "five", "7": "seven", "8": "eight\nand more", "10": "ten"}
        assert len(found) == 10
        assert "10 rows, without a vector: 5 malformed" in done.output


def test_an_id_of_any_length_beside_an_array(run, tmp_path):
    rows = [{"id": "x" * 3_000_000, "text": "one"}, *({"id": str(n), "text": "two"} for n in range(20))]
    place = write_jsonl(tmp_path / "a.jsonl", rows)
    done = run(place, "--out", tmp_path / "v.npy", "--id-column", "id")
    assert done.exit_code == 0, done.output
    assert pq.read_table(tmp_path / "v.ids.parquet").column("id").to_pylist() == [row["id"] for row in rows]
    assert (tmp_path / "v.ids.parquet").stat().st_size < 10_000_000
    assert np.load(tmp_path / "v.npy").shape == (21, 64)


def junk(chance: random.Random) -> bytes:
    pieces = [
        b'"',
        b",",
        b";",
        b"\t",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b":",
        b"\0",
        b"\r",
        b"\xff",
        b"\xc3",
        b"word ",
    ]
    pieces += [
        "ü".encode(),
        "语".encode(),
        "😀".encode(),
        b"\\ud800",
        b'""',
        b"null",
        b"1e999",
        b'"text":',
        b"=1",
    ]
    return b"".join(chance.choices(pieces, k=chance.randrange(20)))


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 8))])
def test_rows_at_random_keep_their_place(run, tmp_path, seed):
    chance = random.Random(seed)
    rows = 60
    good = b'{"text": "good", "n": 1}\n'
    lines = [junk(chance).replace(b"\n", b"") or b"x" for _ in range(rows)]
    (tmp_path / "a.jsonl").write_bytes(good + b"\n".join(b"{" + line for line in lines))
    (tmp_path / "lines.txt").write_bytes(b"\n".join(lines))
    (tmp_path / "a.csv").write_bytes(b"text,n\n" + b"".join(line + b",1\n" for line in lines))
    (tmp_path / "texts").mkdir()
    for number in range(rows):
        (tmp_path / "texts" / f"{number:03}.txt").write_bytes(junk(chance))
    binary = pa.array([line if chance.random() < 0.9 else None for line in lines], pa.binary())
    pq.write_table(
        pa.table({"text": binary.view(pa.string()), "id": binary.view(pa.string()), "raw": binary}),
        tmp_path / "a.parquet",
    )
    expected = {"a.jsonl": rows + 1, "lines.txt": rows, "a.csv": None, "texts": rows, "a.parquet": rows}
    for number, (name, count) in enumerate(expected.items()):
        kind = ("--format", "lines") if name == "lines.txt" else ()
        out = tmp_path / f"out{number}"
        done = run(tmp_path / name, "--out", out, "--part-rows", 7, *kind)
        assert done.exit_code in (0, 3), (name, done.output, done.exc_info)
        table = read(out)
        if count is None:  # a row may have several lines: expect as many rows as from one part
            source = find_source(str(tmp_path / name))
            (part,) = source.parts(10**6)
            count = part.rows
            one = source.read(part)
            assert [isinstance(text, Malformed) for text in one.texts] == [
                row["text"] is None for row in table.to_pylist()
            ]
        assert table.num_rows == count, name
        assert json.loads((out / "_summary.json").read_text())["rows"] == count
    done = run(tmp_path / "a.parquet", "--out", tmp_path / "v.npy", "--id-column", "id")
    assert done.exit_code in (0, 3), done.output
    done = run(tmp_path / "a.parquet", "--out", tmp_path / "f", "--id-column", "id", "--on-error", "fail")
    assert "Traceback" not in done.output
    assert isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("how", [("--on-error", "skip"), ("--chunk",)])
def test_views_of_parquet_are_columns_like_others(run, tmp_path, how):
    texts = ["eins zwei", None, "drei", ""]
    views = pa.array(texts, pa.string_view())
    table = {
        "text": views,
        "same": views,
        "bytes": pa.array([b"\xff"] * 4, pa.binary_view()),
        "list": pa.array([["a"]] * 4, pa.list_(pa.string_view())),
        "struct": pa.array([{"a": "b"}] * 4, pa.struct([("a", pa.string_view())])),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    done = run(tmp_path / "a.parquet", "--out", tmp_path / "out", *how)
    assert done.exit_code == 3, done.output
    rows = [row for row in read(tmp_path / "out").to_pylist() if row["dense"]]
    assert [(row["text"], row["same"]) for row in rows] == [("eins zwei",) * 2, ("drei",) * 2]
    assert [(row["bytes"], row["list"], row["struct"]) for row in rows] == [(b"\xff", ["a"], {"a": "b"})] * 2


def test_a_link_to_a_folder_above_is_not_followed(tmp_path):
    inner = tmp_path / "texts" / "inner"
    inner.mkdir(parents=True)
    (inner / "a.txt").write_text("a")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "b.txt").write_text("b")
    (inner / "up").symlink_to(tmp_path / "texts")
    (inner / "itself").symlink_to(inner)
    (inner / "aside").symlink_to(tmp_path / "elsewhere")
    found = find_source(str(tmp_path / "texts"))
    assert [file.name for file in found.files] == ["inner/a.txt", "inner/aside/b.txt"]
