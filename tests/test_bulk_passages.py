"""`flask embed --chunk`: one row per passage, which can be found and cited."""

import json
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from app.bulk import passages
from app.engine.embeddings import Chunking
from tests.documents import lines, pdf
from tests.test_bulk import BAD, dense, read, write_jsonl

LONG = "\n\n".join(f"Absatz {n} beginnt hier. Er hat 两个 Sätze über Nr. {n}. " * 3 for n in range(30))


def test_passages_of_a_folder_can_be_found_and_cited(run, tmp_path, reference):
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "a.txt").write_text(LONG)
    (folder / "b.md").write_text(f"# Zweites\n\n{LONG[:3000]}")
    (folder / "c.html").write_text("<title>Drittes</title>" + "".join(f"<p>{n} kurz" for n in range(100)))
    sentences = [[f"Sentence {n} on page {page}." for n in range(40)] for page in range(1, 4)]
    (folder / "d.pdf").write_bytes(pdf([lines(*page) for page in sentences], title="Viertes"))
    (folder / "e.pdf").write_bytes(b"broken")
    cut = ("--chunk", "64", "--overlap", "0", "--outputs", "dense,sparse")
    done = run(folder, "--out", tmp_path / "out", *cut)
    assert done.exit_code == 3, done.output
    table = read(tmp_path / "out")
    assert f"5 documents, {table.num_rows - 1} passages, without a vector: 1 broken" in done.output
    names = ("path", "title", "text", "document", "document_sha256", "chunk", "start", "end", "page")
    assert table.schema.names == [*names, "dense", "sparse"]
    whole = {"a.txt": LONG, "b.md": f"# Zweites\n\n{LONG[:3000]}"}
    rows = table.to_pylist()
    titles = {"a.txt": None, "b.md": "Zweites", "c.html": "Drittes", "d.pdf": "Viertes"}
    for document, title in titles.items():
        found = [row for row in rows if row["document"] == document]
        assert len(found) > 3
        assert [row["chunk"] for row in found] == list(range(len(found)))
        assert {(row["path"], row["title"]) for row in found} == {(document, title)}
        if document in whole:
            text = whole[document]
            assert [text[row["start"] : row["end"]] for row in found] == [row["text"] for row in found]
            # Nothing is lost, neither between passages nor at the end.
            assert "".join("".join(row["text"] for row in found).split()) == "".join(text.split())
            assert {row["document_sha256"] for row in found} == {sha256(text.encode()).hexdigest()}
        if document == "d.pdf":
            for row in found:
                said = [int(word[0]) for word in row["text"].split("page ")[1:]]
                assert row["page"] == said[0]
            assert {row["page"] for row in found} == {1, 2, 3}
        else:
            assert {row["page"] for row in found} == {None}
    expected = reference.encode([row["text"] for row in rows[:8]]).dense
    np.testing.assert_allclose([row["dense"] for row in rows[:8]], expected, atol=1e-5)
    last = rows[-1]
    assert {name for name, value in last.items() if value is not None} == {"path", "document"}


# A `page` column that the rows have themselves is a column like any other.
ROWS = [{"id": f"row {n}", "n": n, "text": LONG[: 400 * n] or None, "page": f"p{n}"} for n in range(5)]


@pytest.mark.parametrize("late", [False, True])
def test_rows_of_a_file_are_the_encoders_own_passages(run, tmp_path, reference, late):
    place = write_jsonl(tmp_path / "a.jsonl", ROWS)
    options = ("--chunk", "--late") if late else ("--chunk",)
    done = run(place, "--out", tmp_path / "out", "--outputs", "dense,sparse,colbert", *options)
    assert done.exit_code == 3, done.output
    table = read(tmp_path / "out")
    texts = [row["text"] for row in ROWS[1:]]
    expected = reference.encode(texts, outputs=("dense", "sparse", "colbert"), chunk=Chunking(256, 32, late))
    assert table.num_rows == len(expected.passages) + 1
    assert table.column("document").to_pylist() == [
        "a.jsonl#1",
        *(f"a.jsonl#{passage.text + 2}" for passage in expected.passages),
    ]
    first, *rows = table.to_pylist()
    assert [first[name] for name in ("n", "text", "chunk", "start", "dense", "sparse", "colbert")] == [
        0,
        *[None] * 6,
    ]
    for index, (row, passage) in enumerate(zip(rows, expected.passages, strict=True)):
        assert (row["n"], row["start"], row["end"]) == (passage.text + 1, passage.start, passage.stop)
        assert row["page"] == f"p{passage.text + 1}"
        assert row["text"] == texts[passage.text][passage.start : passage.stop]
        np.testing.assert_allclose(row["dense"], expected.dense[index], atol=1e-5)
        np.testing.assert_allclose(row["colbert"], expected.multi_vector[index], atol=1e-5)
        assert row["sparse"]["indices"] == expected.sparse[index][0].tolist()
    said = json.loads(table.schema.metadata[b"embedding"])
    assert said["chunk"] == {"tokens": 256, "overlap": 32, "late": late}


def test_rows_without_a_text_stay_or_go(run, tmp_path):
    place = write_jsonl(tmp_path / "bad.jsonl", BAD)
    done = run(place, "--out", tmp_path / "null", "--id-column", "id", "--chunk", "32", max_length=40)
    assert done.exit_code == 3
    assert "7 documents, 4 passages, without a vector: 2 null, 1 empty, 1 not text" in done.output
    table = read(tmp_path / "null")
    assert table.column("document").to_pylist() == ["a", "b", "c", "d", "e", "f", "f", "g"]
    assert table.column("chunk").to_pylist() == [0, None, None, None, None, 0, 1, 0]
    assert table.column("text").to_pylist()[2:4] == [" \n", "7"]
    done = run(place, "--out", tmp_path / "skip", "--on-error", "skip", "--chunk")
    assert done.exit_code == 3
    assert read(tmp_path / "skip").column("id").to_pylist() == ["a", "f", "g"]
    done = run(place, "--out", tmp_path / "fail", "--on-error", "fail", "--id-column", "id", "--chunk")
    assert done.exit_code == 1
    assert "the text of b is null" in done.output


@pytest.mark.parametrize("outputs", ["dense", "dense,colbert"])
def test_a_text_larger_than_memory_has_for_it_is_embedded_in_windows(run, tmp_path, monkeypatch, outputs):
    """No part of it is lost or counted twice; every document has its own numbering."""
    texts = ["kurz", LONG, "  ", LONG[:2000], "x" * 5000]
    place = write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in texts])
    most = 1500
    monkeypatch.setattr(passages, "WINDOW_CHARACTERS", most)
    monkeypatch.setattr(passages, "WINDOW_NUMBERS", most * 64)  # the tiny model has 64 numbers per vector
    given = []
    encode = passages.Encoder.encode

    def watched(encoder, texts, **options):
        given.append(sum(map(len, texts)))
        return encode(encoder, texts, **options)

    monkeypatch.setattr(passages.Encoder, "encode", watched)
    done = run(place, "--out", tmp_path / "out", "--chunk", "64", "--outputs", outputs)
    table = read(tmp_path / "out")
    assert f"5 documents, {table.num_rows - 1} passages, without a vector: 1 empty" in done.output
    assert max(given) <= most
    assert len(given) > 5
    rows = table.to_pylist()
    for number, text in enumerate(texts, 1):
        found = [row for row in rows if row["document"] == f"a.jsonl#{number}"]
        if not text.strip():
            continue
        assert [row["chunk"] for row in found] == list(range(len(found)))
        assert [row["text"] for row in found] == [text[row["start"] : row["end"]] for row in found]
        covered = {place for row in found for place in range(row["start"], row["end"])}
        assert all(text[place].isspace() for place in set(range(len(text))) - covered)


def test_goes_on_with_the_same_cut_only(run, tmp_path):
    place = write_jsonl(tmp_path / "a.jsonl", ROWS[1:])
    out = tmp_path / "out"
    arguments = (place, "--out", out, "--part-rows", "1")
    assert run(*arguments, "--chunk", "64").exit_code == 0
    before = read(out)
    (out / "part-00000000-00000001.parquet").unlink()
    for change, words in (
        ((), "chunk tokens (64, now None)"),
        (("--chunk", "65"), "chunk tokens (64, now 65)"),
        (("--chunk", "64", "--overlap", "9"), "chunk overlap (8, now 9)"),
        (("--chunk", "64", "--late"), "chunk late (False, now True)"),
    ):
        done = run(*arguments, *change)
        assert done.exit_code == 1
        assert words in done.output
    done = run(*arguments, "--chunk", "64")
    assert done.exit_code == 0
    assert f"4 documents, {before.num_rows} passages" in done.output
    after = read(out)
    assert after.drop_columns("dense") == before.drop_columns("dense")
    np.testing.assert_allclose(dense(after), dense(before), atol=1e-6)


def test_a_numpy_file_has_its_passages_beside_it(run, tmp_path):
    place = write_jsonl(tmp_path / "a.jsonl", ROWS)
    done = run(place, "--out", tmp_path / "v.npy", "--id-column", "id", "--part-rows", 2, "--chunk", "64")
    assert done.exit_code == 3, done.output
    vectors, beside = np.load(tmp_path / "v.npy"), pq.read_table(tmp_path / "v.passages.parquet")
    assert len(vectors) == beside.num_rows > 5
    assert beside.schema.names[:5] == ["id", "n", "text", "page", "document"]
    assert np.isnan(vectors[0]).all()
    assert not np.isnan(vectors[1:]).any()
    assert beside.column("document").to_pylist() == beside.column("id").to_pylist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "v.npy", "v.passages.parquet"]


def test_what_cannot_be_cut_is_said_in_a_sentence(run, tmp_path):
    place = write_jsonl(tmp_path / "a.jsonl", [{"text": "one", "start": 1}])
    good = write_jsonl(tmp_path / "b.jsonl", [{"text": "one"}])
    for arguments, words in (
        ((good, "--chunk", "--late", "--pooling", "cls"), "late chunking averages the tokens"),
        ((good, "--chunk", "9000"), "--chunk takes 32 to 8190 tokens with this model, not 9000"),
        ((good, "--chunk", "31"), "--chunk takes 32 to"),
        ((good, "--chunk", "0"), "a passage cannot have 0 tokens"),
        ((good, "--chunk", "1" * 5000), "a passage cannot have 111111111111 tokens"),
        ((good, "--chunk", "64", "--overlap", "33"), "half of a passage, 32 tokens, not 33"),
        ((good, "--overlap", "3"), "give --chunk too"),
        ((good, "--late"), "give --chunk too"),
        (("--chunk", good), "b.jsonl' is not a number of tokens: to give none, put --chunk after SOURCE"),
        ((place, "--chunk"), "already has a column 'start'"),
    ):
        done = run(*arguments, "--out", tmp_path / "out")
        assert done.exit_code in (1, 2), arguments
        assert words in " ".join(done.output.split()), (arguments, done.output)
        assert "Traceback" not in done.output


def test_other_types_of_text_columns(run, tmp_path):
    for name, column in (
        ("dictionary", pa.array([LONG, None, LONG]).dictionary_encode()),
        ("large", pa.array([LONG, None, LONG], pa.large_string())),
        ("bytes", pa.Array.from_buffers(pa.string(), 3, pa.array([LONG.encode(), None, b"\xff"]).buffers())),
    ):
        pq.write_table(pa.table({"text": column, "n": [1, 2, 3]}), tmp_path / f"{name}.parquet")
        done = run(tmp_path / f"{name}.parquet", "--out", tmp_path / name, "--chunk")
        assert done.exit_code == 3, done.output
        table = read(Path(tmp_path / name))
        assert table.schema.field("text").type == pa.string()
        assert {row["n"] for row in table.to_pylist()} == {1, 2, 3}
        assert ("1 not text" in done.output) == (name == "bytes")


def test_what_passages_have_in_common_is_written_some_rows_at_a_time(run, tmp_path, monkeypatch):
    rows = [{"text": LONG, "raw": "x" * 5000}, {"text": "", "raw": "y"}, {"text": LONG[:2000], "raw": "z"}]
    source = write_jsonl(tmp_path / "a.jsonl", rows)
    cut = ("--chunk", "64", "--outputs", "dense,sparse")
    run(source, "--out", tmp_path / "whole", *cut)
    monkeypatch.setattr(passages, "REPEATED_BYTES", 3 * 5100)
    done = run(source, "--out", tmp_path / "few", *cut)
    assert "3 documents" in done.output
    whole, few = read(tmp_path / "whole"), read(tmp_path / "few")
    assert whole.num_rows == few.num_rows > 10
    names = [name for name in whole.schema.names if name != "dense"]
    assert whole.select(names).to_pylist() == few.select(names).to_pylist()
