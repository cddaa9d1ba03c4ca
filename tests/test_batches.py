"""Files and batches on disk: every line is answered once, even after kills, full disks and damage."""

import errno
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from app.bulk.batches import FileTooLarge, InUse, Result, Runner, Store, Unknown, lines, records, runner, work
from app.bulk.errors import Stopped
from app.engine.errors import Abandoned, NotLoaded, Overloaded, TooLate

ROOT = Path(__file__).parent.parent
URL = "/v1/embeddings"
FINISHED = ("completed", "failed", "expired", "cancelled")


@pytest.fixture(autouse=True)
def fast(monkeypatch):
    """Make nothing wait for a second, and record every group."""
    monkeypatch.setattr(runner, "LOOK_SECONDS", 0.01)
    for name in ("SAVE_SECONDS", "LOOK_SECONDS"):
        monkeypatch.setattr(work, name, 0.0)
    for module in (runner, work):
        monkeypatch.setattr(module, "FIRST_WAIT", 0.01)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "server" / "batches")


def request(id: object, **changes: object) -> dict:
    return {"custom_id": id, "method": "POST", "url": URL, "body": {"input": f"text {id}"}} | changes


def jsonl(rows: list) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def add(store: Store, content: bytes, most: int = 1 << 30) -> dict:
    return store.add_file("in.jsonl", "batch", [content], most)


def queue(store: Store, content: bytes) -> str:
    return store.add_batch(add(store, content)["id"], URL, "24h", None)["id"]


def numbered(count: int) -> bytes:
    return jsonl([request(str(number)) for number in range(count)])


def answer(lines: list[bytes], gone: Callable[[], bool], space: str = "") -> list[Result]:
    """Answer with each request's id; those that end with 7 fail."""
    ids = [json.loads(line)["custom_id"] for line in lines]
    return [Result(json.dumps({"custom_id": id}).encode(), failed=id.endswith("7")) for id in ids]


@contextmanager
def running(store: Store, answer: Callable = answer) -> Iterator[Runner]:
    one = Runner(store, answer)
    one.start()
    try:
        yield one
    finally:
        one.stop()
        assert not one._thread.is_alive()


def wait_for(condition: Callable, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def finished(store: Store, id: str) -> dict:
    wait_for(lambda: store.batch(id)["status"] in FINISHED)
    return store.batch(id)


def worked_off(store: Store, content: bytes, answer: Callable = answer) -> dict:
    id = queue(store, content)
    with running(store, answer):
        return finished(store, id)


def ids(store: Store, file_id: str | None) -> list[str]:
    """The ids of the lines in a file of results."""
    if file_id is None:
        return []
    return [json.loads(line)["custom_id"] for line in store.content(file_id).read_bytes().splitlines()]


def names(store: Store) -> set[str]:
    """The names of everything in the folder except the locks."""
    folder = store.lock.parent
    found = {str(path.relative_to(folder)) for path in folder.rglob("*")}
    return found - {"lock", "records.lock", "files", "batches", "unfinished", "incoming"}


def assert_all_there(store: Store, id: str, count: int) -> None:
    """Every line of numbered(count) is answered once, in order, and nothing else is left."""
    batch = store.batch(id)
    assert batch["status"] == "completed"
    every = [str(number) for number in range(count)]
    failures = [number for number in every if number.endswith("7")]
    assert ids(store, batch["output_file_id"]) == [one for one in every if one not in set(failures)]
    assert ids(store, batch["error_file_id"]) == failures
    counts = {"total": count, "completed": count - len(failures), "failed": len(failures)}
    assert batch["request_counts"] == counts
    wait_for(lambda: not store.unfinished())
    kept = [batch["input_file_id"], batch["output_file_id"], batch["error_file_id"]]
    expected = {f"files/{file}{end}" for file in kept if file for end in ("", ".json")}
    assert names(store) == expected | {f"batches/{id}.json"}


# Files


def test_a_file_is_openais_object(store):
    before = int(time.time())
    file = store.add_file("täxt.jsonl", "batch", iter([b"ab", b"", b"c"]), 3)
    assert store.file(file["id"]) == file
    assert file["id"].startswith("file-")
    assert before <= file["created_at"] <= time.time()
    told = {name: value for name, value in file.items() if name not in ("id", "created_at")}
    expected = {"object": "file", "bytes": 3, "filename": "täxt.jsonl", "purpose": "batch"}
    assert told == expected | {"status": "processed"}
    assert store.content(file["id"]).read_bytes() == b"abc"


def test_the_newest_file_and_batch_come_first(store):
    files = [add(store, numbered(1)) for _ in range(5)]
    assert store.files() == (files[::-1], False)
    batches = [store.add_batch(file["id"], URL, "24h", None) for file in files]
    assert store.batches() == (batches[::-1], False)


def test_the_folder_does_not_depend_on_where_the_server_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = Store(Path("batches"))
    file = add(kept, b"x")
    monkeypatch.chdir("/")
    assert kept.content(file["id"]).read_bytes() == b"x"


def test_a_page_begins_after_any_id_in_either_order(store):
    files = [add(store, b"x") for _ in range(5)]
    ids = [file["id"] for file in files]
    store.delete_file(ids[2])
    assert store.files(ids[2], 1) == ([files[1]], True)
    assert store.files(ids[2]) == ([files[1], files[0]], False)
    assert store.files(ids[2], 1, ascending=True) == ([files[3]], True)
    assert store.files(ids[2], 2, ascending=True) == ([files[3], files[4]], False)
    assert store.files(purpose="batch_output") == ([], False)
    batches = [store.add_batch(ids[0], URL, "24h", None) for _ in range(3)]
    assert store.batches(batches[1]["id"]) == ([batches[0]], False)
    assert store.batches(limit=2, ascending=True) == (batches[:2], True)


def test_a_page_reads_its_own_records_only(store, monkeypatch):
    files = [add(store, b"x") for _ in range(9)]
    read = []
    original = Store.file
    monkeypatch.setattr(Store, "file", lambda self, id: read.append(id) or original(self, id))
    assert store.files(files[6]["id"], 2) == ([files[5], files[4]], True)
    assert read == [file["id"] for file in (files[5], files[4], files[3])]


def test_of_a_file_that_is_too_large_nothing_is_left(store):
    assert add(store, b"x" * 10, most=10)["bytes"] == 10
    before = names(store)
    with pytest.raises(FileTooLarge, match="10 bytes"):
        store.add_file("a", "batch", iter([b"x" * 5, b"x" * 6]), 10)
    assert names(store) == before


def test_of_an_upload_that_breaks_off_nothing_is_left(store):
    def broken() -> Iterator[bytes]:
        yield b"x"
        raise ConnectionError("gone")

    with pytest.raises(ConnectionError):
        store.add_file("a", "batch", broken(), 10)
    assert names(store) == set()


@pytest.mark.parametrize("calls", range(3))
def test_of_an_upload_on_a_full_disk_nothing_is_left(store, monkeypatch, calls):
    """Wherever it shows: when the content, the record or the folder is written."""
    full_after(monkeypatch, os, "fsync", calls)
    with pytest.raises(OSError, match="No space"):
        add(store, b"x")
    assert names(store) == set()


@pytest.mark.parametrize("calls", range(3))
def test_of_a_batch_that_a_full_disk_refuses_nothing_is_left(store, monkeypatch, calls):
    file = add(store, b"x")
    before = names(store)
    full_after(monkeypatch, os, "fsync", calls)
    with pytest.raises(OSError, match="No space"):
        store.add_batch(file["id"], URL, "24h", None)
    assert names(store) == before


def full_after(monkeypatch, place: object, name: str, calls: int) -> None:
    """After this many calls there is no space left, until the patch is undone."""
    original = getattr(place, name)
    made = iter(range(calls))

    def full(*arguments, **named):
        if next(made, None) is None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return original(*arguments, **named)

    monkeypatch.setattr(place, name, full)


HOSTILE = ["../../x", "../x", "", ".", "x\0", "file-", "batch_" + "0" * 31 + "/", "0" * 10_000]
HOSTILE += [start + "0" * 32 + "\n" for start in ("file-", "batch_")]


@pytest.mark.parametrize("id", HOSTILE)
def test_a_hostile_id_is_unknown(store, id):
    file, batch = add(store, b"x"), records.new_batch("x", "x", URL, "24h", None)
    for folder in (store.lock.parent, store.lock.parent.parent):  # that the first ones lead to
        (folder / "x.json").write_bytes(records.Record(batch | file).as_json())
        (folder / "x").write_bytes(b"secret")
    before = names(store)
    for call in (store.file, store.content, store.delete_file):
        with pytest.raises(Unknown) as caught:
            call(id)
        assert (caught.value.kind, caught.value.id) == ("file", id)
        assert len(str(caught.value)) < 200
    for call in (store.batch, store.cancel):
        with pytest.raises(Unknown) as caught:
            call(id)
        assert caught.value.kind == "batch"
    with pytest.raises(Unknown):
        store.add_batch(id, URL, "24h", None)
    assert names(store) == before


def test_a_file_in_use_is_not_deleted(store):
    id = queue(store, numbered(20))
    source = store.batch(id)["input_file_id"]
    held, go = threading.Event(), threading.Event()

    def slowly(lines, gone, *_):
        held.set()
        go.wait(20)
        return answer(lines, gone)

    with pytest.raises(InUse, match=id):
        store.delete_file(source)
    with running(store, slowly):
        held.wait(20)
        with pytest.raises(InUse):
            store.delete_file(source)
        go.set()
        batch = finished(store, id)
    for file in (source, batch["output_file_id"], batch["error_file_id"]):
        store.delete_file(file)
        with pytest.raises(Unknown):
            store.file(file)
    assert names(store) == {f"batches/{id}.json"}


@contextmanager
def at_its_end(store: Store, id: str, monkeypatch) -> Iterator[None]:
    """The moment when the results of a batch are files already, but its record does not name them."""
    adopt, ready, go = Store.adopt, threading.Event(), threading.Event()
    calls = iter(range(1))

    def held(*given):
        found = adopt(*given)
        if next(calls, None) is None:
            ready.set()
            go.wait(20)
        return found

    monkeypatch.setattr(Store, "adopt", held)
    with running(store):
        assert ready.wait(20)
        yield
        go.set()
        finished(store, id)


def test_results_are_in_use_before_the_batch_tells_of_them(store, monkeypatch):
    """A process that goes on after a kill needs them."""
    id = queue(store, numbered(20))
    with at_its_end(store, id, monkeypatch):
        assert [file["purpose"] for file in store.files()[0]] == ["batch_output", "batch_output", "batch"]
        for file in store.files()[0]:
            with pytest.raises(InUse, match=id):
                store.delete_file(file["id"])
    assert_all_there(store, id, 20)


def test_what_killed_processes_left_is_removed_and_nothing_else(store):
    """Another process's unfinished upload is kept, and so are complete files."""
    folder = store.lock.parent
    kept = add(store, b"kept")
    left = [folder / "incoming" / f"file-{'1' * 32}", folder / "files" / f"file-{'2' * 32}"]
    left += [folder / "files" / f"file-{'3' * 32}.json.new", folder / "batches" / "x.json.new"]
    for path in left:
        path.write_bytes(b"left")
    (folder / "unfinished" / f"batch_{'4' * 32}").mkdir()
    half, go = threading.Event(), threading.Event()
    added = []

    def chunks() -> Iterator[bytes]:
        yield b"first"
        half.set()
        go.wait(20)
        yield b" second"

    upload = threading.Thread(target=lambda: added.append(store.add_file("a", "batch", chunks(), 100)))
    upload.start()
    half.wait(20)
    with running(store):
        wait_for(lambda: not any(path.exists() for path in left) and not store.unfinished())
    go.set()
    upload.join(20)
    assert store.content(added[0]["id"]).read_bytes() == b"first second"
    assert store.content(kept["id"]).read_bytes() == b"kept"
    assert len(names(store)) == 4


# A batch's way


def test_a_batch_is_openais_object_all_the_way(store):
    file = add(store, numbered(8))
    batch = store.add_batch(file["id"], URL, "24h", {"a": "b"})
    moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
    assert batch == {
        "id": batch["id"],
        "object": "batch",
        "endpoint": URL,
        "errors": None,
        "input_file_id": file["id"],
        "completion_window": "24h",
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": batch["created_at"],
        "expires_at": batch["created_at"] + 24 * 3600,
        **{f"{moment}_at": None for moment in moments},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": {"a": "b"},
    }
    seen = []

    def watched(lines, gone, *_):
        seen.append(store.batch(batch["id"]))
        return answer(lines, gone)

    with running(store, watched):
        end = finished(store, batch["id"])
    assert [(one["status"], one["request_counts"]["total"]) for one in seen] == [("in_progress", 8)]
    passed = {moment for moment in moments if end[f"{moment}_at"]}
    assert passed == {"in_progress", "finalizing", "completed"}
    assert end.keys() == batch.keys()
    assert_all_there(store, batch["id"], 8)
    for kind, size in (("output", 7), ("error", 1)):
        made = store.file(end[f"{kind}_file_id"])
        assert made["purpose"] == "batch_output"
        assert made["filename"] == f"{batch['id']}_{kind}.jsonl"
        assert made["bytes"] == store.content(made["id"]).stat().st_size == size * len('{"custom_id": "0"}\n')


def test_a_window_that_is_not_offered_is_refused(store):
    file = add(store, numbered(1))
    with pytest.raises(ValueError, match="24h"):
        store.add_batch(file["id"], URL, "1h", None)


@pytest.mark.parametrize(("id", "output", "error"), [("1", True, False), ("7", False, True)])
def test_a_file_without_lines_is_not_made(store, id, output, error):
    batch = worked_off(store, jsonl([request(id)]))
    assert (batch["output_file_id"] is not None, batch["error_file_id"] is not None) == (output, error)


def test_batches_are_answered_one_at_a_time_and_the_oldest_first(store):
    queued = [queue(store, jsonl([request(f"{batch} {n}") for n in range(100)])) for batch in range(4)]
    calls = []

    def noted(lines, gone, *_):
        calls.append({json.loads(line)["custom_id"].split()[0] for line in lines})
        return answer(lines, gone)

    with running(store, noted):
        for id in queued:
            finished(store, id)
    assert calls == [{str(batch)} for batch in range(4) for _ in range(2)]


def test_lines_come_in_groups_that_fit_into_memory(store):
    sizes = []

    def noted(lines, gone, *_):
        sizes.append(len(lines))
        return answer(lines, gone)

    long = [request(str(n), body={"input": "x" * 50_000}) for n in range(4)]
    short = [request(f"short {n}") for n in range(100)]
    worked_off(store, jsonl(long + short), noted)
    assert sizes == [3, lines.GROUP_LINES, 104 - 3 - lines.GROUP_LINES]


def test_lines_with_many_texts_come_in_small_groups(store):
    """A text of one letter takes four bytes, and its vector takes thousands."""
    sizes = []

    def noted(lines, gone, *_):
        sizes.append(len(lines))
        return answer(lines, gone)

    worked_off(store, jsonl([request(str(n), body={"input": ["x"] * 1500}) for n in range(6)]), noted)
    assert sizes == [2, 2, 2]


def test_blank_lines_are_no_requests(store):
    content = b"\n \r\n" + numbered(3).replace(b"\n", b"\r\n\n") + b"\t"
    batch = worked_off(store, content)
    assert ids(store, batch["output_file_id"]) == ["0", "1", "2"]
    assert batch["request_counts"]["total"] == 3


def test_the_mark_of_utf8_is_skipped(store):
    batch = worked_off(store, b"\xef\xbb\xbf" + numbered(3))
    assert ids(store, batch["output_file_id"]) == ["0", "1", "2"]


def test_a_group_is_not_much_to_repeat(store):
    """A text has about one token per four bytes."""
    sizes = []

    def noted(lines, gone, *_):
        sizes.append(sum(map(len, lines)))
        return answer(lines, gone)

    worked_off(store, jsonl([request(str(n), body={"input": "x" * 4000}) for n in range(100)]), noted)
    assert max(sizes) < 4 * 35_000


def test_a_last_line_needs_no_end(store):
    batch = worked_off(store, numbered(3).rstrip())
    assert ids(store, batch["output_file_id"]) == ["0", "1", "2"]


# What is wrong with the input


def without(name: str) -> dict:
    return {key: value for key, value in request("bad").items() if key != name}


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"\xff", "invalid_json_line", None),
        (b"[" * 100_000, "invalid_json_line", None),
        (b"[1]", "invalid_json_line", None),
        (b'{"a":[' + b'{"b":0},' * 100_000 + b"0]}", "line_too_complex", None),
        (b"x" * (lines.LINE_BYTES + 1), "line_too_long", None),
        (json.dumps(without("custom_id")).encode(), "missing_required_parameter", "custom_id"),
        (json.dumps(request(5)).encode(), "invalid_type", "custom_id"),
        (json.dumps(without("body")).encode(), "missing_required_parameter", "body"),
        (json.dumps(request("bad", body=[])).encode(), "invalid_type", "body"),
        (json.dumps(request("bad", method="GET")).encode(), "invalid_method", "method"),
        (json.dumps(without("method")).encode(), "invalid_method", "method"),
        (json.dumps(request("bad", url="/v1/x")).encode(), "invalid_url", "url"),
        (json.dumps(request("0")).encode(), "duplicate_custom_id", "custom_id"),
    ],
    ids=lambda value: "line" if isinstance(value, bytes) else None,
)
def test_a_bad_line_fails_the_batch_and_is_named(store, line, code, param):
    asked = []
    batch = worked_off(store, b"\n" + numbered(1) + line + b"\n", lambda *_: asked.append(1))
    assert batch["status"] == "failed"
    assert batch["failed_at"]
    assert batch["errors"]["object"] == "list"
    (fault,) = batch["errors"]["data"]
    assert fault.keys() == {"code", "message", "param", "line"}
    assert (fault["code"], fault["param"], fault["line"]) == (code, param, 3)
    assert not asked
    assert batch["output_file_id"] is batch["error_file_id"] is None
    assert len(names(store)) == 3  # the input and the batch


@pytest.mark.parametrize("content", [b"", b"\n  \n"])
def test_an_empty_file_fails_the_batch(store, content):
    batch = worked_off(store, content)
    assert batch["status"] == "failed"
    assert [fault["code"] for fault in batch["errors"]["data"]] == ["empty_file"]


def test_a_batch_has_so_many_requests_at_most(store, monkeypatch):
    monkeypatch.setattr(lines, "MOST_LINES", 4)
    assert worked_off(store, numbered(4))["status"] == "completed"
    batch = worked_off(store, numbered(5))
    assert [fault["code"] for fault in batch["errors"]["data"]] == ["too_many_tasks"]


def test_a_batch_has_so_many_texts_at_most(store, monkeypatch):
    monkeypatch.setattr(lines, "MOST_INPUTS", 6)
    bodies = [{"input": ["a", "b", "c"]}, {"input": "a"}, {}, {"input": ["a"]}]
    rows = [request(str(number), body=body) for number, body in enumerate(bodies)]
    assert worked_off(store, jsonl(rows))["status"] == "completed"
    batch = worked_off(store, jsonl([*rows, request("more")]))
    assert [fault["code"] for fault in batch["errors"]["data"]] == ["too_many_inputs"]


def test_a_batch_has_so_many_blank_lines_at_most(store, monkeypatch):
    monkeypatch.setattr(lines, "MOST_BLANK", 4)
    assert worked_off(store, numbered(2) + b"\n" * 4)["status"] == "completed"
    batch = worked_off(store, numbered(2) + b"\n" * 5)
    assert [fault["code"] for fault in batch["errors"]["data"]] == ["too_many_blank_lines"]


def test_an_input_of_blank_lines_takes_no_time():
    begin = time.monotonic()
    assert lines.check(io.BytesIO(b"\n" * 20_000_000), URL, lambda: False)[1]
    assert time.monotonic() < begin + 2


def looked(read: Callable, content: bytes) -> int:
    """How many bytes of the content are read until the third call of `gone` stops it."""
    file, calls = io.BytesIO(content), iter(range(2))
    with pytest.raises(Stopped):
        read(file, lambda: next(calls, None) is None)
    return file.tell()


BLANK_LINE = b" " * 999 + b"\n"


@pytest.mark.parametrize(
    "content",
    [b"x" * (20 << 20), BLANK_LINE * (20 << 10), numbered(64) * (3 << 10)],
    ids=("one line", "blank lines", "requests"),
)
def test_whoever_reads_the_input_looks_whether_to_go_on(content):
    assert looked(lambda file, gone: lines.check(file, URL, gone), content) <= 5 << 20
    assert looked(lines.read_group, content) <= 5 << 20


def test_so_many_errors_are_listed(store):
    batch = worked_off(store, b"x\n" * 1000)
    assert [fault["line"] for fault in batch["errors"]["data"]] == list(range(1, lines.MOST_FAULTS + 1))


def test_a_line_over_the_bound_is_named_and_never_held(store, monkeypatch):
    monkeypatch.setattr(lines, "LINE_BYTES", 100)
    monkeypatch.setattr(lines, "GROUP_BYTES", 50)
    fits = jsonl([request("0")])
    fits = fits.rstrip().ljust(100) + b"\n"
    assert worked_off(store, fits)["status"] == "completed"
    batch = worked_off(store, fits + b"x" * 1000 + b"\nx\n" + b" " * 101)
    told = [(fault["code"], fault["line"]) for fault in batch["errors"]["data"]]
    assert told == [("line_too_long", 2), ("invalid_json_line", 3), ("line_too_long", 4)]


def gone(store: Store, file: Path) -> None:
    file.unlink()
    file.with_name(f"{file.name}.json").unlink()


def no_content(store: Store, file: Path) -> None:
    file.unlink()


def bad_record(store: Store, file: Path) -> None:
    file.with_name(f"{file.name}.json").write_bytes(b"{")


def shorter(store: Store, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [gone, no_content, bad_record, shorter])
@pytest.mark.parametrize("begun", [False, True])
def test_a_batch_without_its_input_fails_with_a_sentence(store, harm, begun):
    id = queue(store, numbered(200))
    if begun:
        with running(store, stopping_after(1)) as one:
            one._thread.join(20)
        with store.part(id, "output").open("ab") as file:
            file.write(b'{"custom_id": "half')  # as after a kill
    assert store.batch(id)["request_counts"]["completed"] == 58 * begun
    harm(store, store.lock.parent / "files" / store.batch(id)["input_file_id"])
    after = queue(store, numbered(3))
    with running(store):
        batch = finished(store, id)
        assert finished(store, after)["status"] == "completed"
    assert batch["status"] == "failed"
    (fault,) = batch["errors"]["data"]
    assert fault["code"] in ("input_file_missing", "input_file_damaged")
    assert "input file" in fault["message"]
    assert len(ids(store, batch["output_file_id"])) == 58 * begun  # what is done is not lost


def stopping_after(groups: int) -> Callable:
    """An answer that stops its runner in the middle of the group after this many."""
    calls = iter(range(groups))

    def asked(lines, gone, *_):
        if next(calls, None) is not None:
            return answer(lines, gone)
        gone.__self__._stopped.set()  # as `stop` does
        raise Abandoned

    return asked


def test_an_input_that_changes_under_way_fails_the_batch(store):
    id = queue(store, numbered(200))
    path = store.content(store.batch(id)["input_file_id"])

    def changing(lines, gone, *_):
        path.write_bytes(b"\n" * path.stat().st_size)
        return [Result(b"{}", failed=False) for line in lines]

    with running(store, changing):
        batch = finished(store, id)
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["code"] == "input_file_damaged"


class Unreadable(io.BytesIO):
    def readline(self, size: int | None = -1) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_an_input_that_the_disk_does_not_give_fails_the_batch(store, monkeypatch):
    monkeypatch.setattr(work.BatchWork, "_source", lambda self: Unreadable())
    batch = worked_off(store, numbered(3))
    assert batch["status"] == "failed"
    assert "cannot be read" in batch["errors"]["data"][0]["message"]


def test_results_that_are_lost_fail_the_batch(store):
    id = queue(store, numbered(200))
    with running(store, stopping_after(1)) as one:
        one._thread.join(20)
    store.part(id, "output").write_bytes(b"")
    with running(store):
        batch = finished(store, id)
    assert batch["status"] == "failed"
    assert "lost" in batch["errors"]["data"][0]["message"]
    assert batch["output_file_id"] is None


def test_a_batch_that_is_not_finished_is_not_cleared_away(store):
    """A runner may see its folder before its record, which it can see only once it has the lock."""
    id = queue(store, numbered(3))
    store.clear(id)
    assert store.unfinished() == [id]


def test_a_damaged_record_holds_nobody_up(store):
    first, second = queue(store, numbered(3)), queue(store, numbered(3))
    (store.lock.parent / "batches" / f"{first}.json").write_bytes(b'{"batch": {}')
    with running(store):
        assert finished(store, second)["status"] == "completed"
    assert [batch["id"] for batch in store.batches()[0]] == [second]
    with pytest.raises(Unknown):
        store.batch(first)


# What goes wrong with answers


@pytest.mark.parametrize("error", [Overloaded(1, 1, 1), TooLate(), NotLoaded("not yet")])
def test_a_busy_engine_is_asked_again(store, error, caplog):
    errors = [error] * 3
    asked = []

    def busy(lines, gone, *_):
        asked.append(time.monotonic())
        if errors:
            raise errors.pop()
        return answer(lines, gone)

    id = queue(store, numbered(10))
    with running(store, busy):
        finished(store, id)
    assert_all_there(store, id, 10)
    pauses = [after - before for before, after in pairwise(asked)]
    assert all(pause >= wait for pause, wait in zip(pauses, (0.01, 0.02, 0.04), strict=True))


def test_a_group_that_is_tried_again_is_told_once(store, caplog):
    """It is logged again if it happens after a group that was answered at once."""
    steps = iter([TooLate(), TooLate(), None, None, TooLate(), None])

    def busy(lines, gone, *_):
        if error := next(steps):
            raise error
        return answer(lines, gone)

    id = queue(store, numbered(150))
    with running(store, busy):
        finished(store, id)
    assert_all_there(store, id, 150)
    why = "the request waited too long for its turn, try again later"
    told = f"{id} waits, its next lines are tried again: {why}"
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [told] * 2


def test_fields_that_are_ignored_are_told_once(store, caplog):
    def noted(lines, gone, *_):
        return [Result(one.line, one.failed, {"dimension": "dimensions"}) for one in answer(lines, gone)]

    id = queue(store, numbered(100))
    with running(store, noted):
        finished(store, id)
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told == [f"{id}: unknown fields are ignored: dimension (dimensions?)"]


def test_so_many_fields_that_are_ignored_are_told(store, caplog):
    def noted(lines, gone, *_):
        found = zip(lines, answer(lines, gone), strict=True)
        return [Result(one.line, one.failed, {f"x{hash(line)}": "x"}) for line, one in found]

    worked_off(store, numbered(100), noted)
    (told,) = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert told.count("(x?)") == work.MOST_IGNORED


def test_a_busy_engine_does_not_hold_up_a_stop(store, monkeypatch):
    monkeypatch.setattr(work, "FIRST_WAIT", 60)
    monkeypatch.setattr(work, "LONGEST_WAIT", 60)
    asked = threading.Event()

    def busy(lines, gone, *_):
        asked.set()
        raise Overloaded(1, 1, 1)

    id = queue(store, numbered(10))
    with running(store, busy):
        asked.wait(20)
        begin = time.monotonic()
    assert time.monotonic() < begin + 2
    assert store.batch(id)["status"] == "in_progress"


def test_waits_grow_to_a_limit(store, monkeypatch):
    monkeypatch.setattr(work, "LONGEST_WAIT", 0.02)
    left = [Overloaded(1, 1, 1)] * 8
    begin = time.monotonic()
    worked_off(store, numbered(1), lambda *given: answer(*given) if not left else throw(left.pop()))
    assert time.monotonic() < begin + 2  # 0.01 * 2 ** 8 would be 2.5


def throw(error: Exception) -> None:
    raise error


def too_few(lines, gone, *_):
    return answer(lines, gone)[1:]


def broken(lines, gone, *_):
    raise RuntimeError("secret")


def no_file(lines, gone, *_):
    """Not the disk of the batches."""
    raise FileNotFoundError("secret")


@pytest.mark.parametrize("fails", [too_few, broken, no_file])
def test_an_answer_that_fails_ends_the_batch_and_no_other(store, fails, caplog):
    first, second = queue(store, numbered(100)), queue(store, numbered(10))
    calls = iter([answer, fails])
    with running(store, lambda *given: next(calls, answer)(*given)):
        batch = finished(store, first)
        assert finished(store, second)["status"] == "completed"
    assert batch["status"] == "failed"
    (fault,) = batch["errors"]["data"]
    assert "internal error" in fault["message"]
    assert "secret" not in json.dumps(batch)
    assert [record.exc_info is not None for record in caplog.records if record.levelname == "ERROR"] == [True]
    assert len(ids(store, batch["output_file_id"])) == 58  # what is done is not lost
    assert len(ids(store, batch["error_file_id"])) == 6


# Cancelling and expiry


def test_a_batch_that_nobody_works_on_is_cancelled_at_once(store):
    id = queue(store, numbered(10))
    batch = store.cancel(id)
    assert batch["status"] == "cancelled"
    assert batch["cancelling_at"]
    assert batch["cancelled_at"]
    assert store.batch(id) == batch
    store.delete_file(batch["input_file_id"])
    with running(store):
        wait_for(lambda: not store.unfinished())
    assert store.batch(id) == batch


def test_a_batch_under_way_is_cancelled_and_keeps_what_is_done(store):
    """The request to cancel comes while the runner holds a copy of the record without it."""
    id = queue(store, numbered(200))
    told = []

    def cancelling(lines, gone, *_):
        if not told:
            told.append(store.cancel(id))
            with store.changing(id) as record:
                record.batch["cancelling_at"] -= 5
            assert store.cancel(id) == store.batch(id)
        return answer(lines, gone)

    with running(store, cancelling):
        batch = finished(store, id)
    assert told[0]["status"] == "cancelling"
    assert told[0]["cancelling_at"]
    assert batch["status"] == "cancelled"
    assert batch["cancelling_at"] == told[0]["cancelling_at"] - 5
    assert len(ids(store, batch["output_file_id"])) == 58
    assert len(ids(store, batch["error_file_id"])) == 6
    assert batch["request_counts"] == {"total": 200, "completed": 58, "failed": 6}


def test_a_cancelled_batch_does_not_wait_for_its_group(store):
    id = queue(store, numbered(200))
    calls = []

    def slow(lines, gone, *_):
        calls.append(lines)
        if len(calls) == 1:
            return answer(lines, gone)
        store.cancel(id)
        wait_for(gone, 5)
        calls.append("gone")
        raise Abandoned

    with running(store, slow):
        assert finished(store, id)["status"] == "cancelled"
    assert calls[2:] == ["gone"]
    assert len(ids(store, store.batch(id)["output_file_id"])) == 58


def test_a_cancelled_batch_does_not_wait_until_it_would_be_tried_again(store):
    id = queue(store, numbered(1))
    one = work.BatchWork(store, id, answer, threading.Event())
    threading.Timer(0.05, store.cancel, [id]).start()
    begin = time.monotonic()
    one._pause(60)
    assert time.monotonic() < begin + 5


def test_a_batch_that_was_cancelled_before_a_restart_is_cancelled(store):
    id = queue(store, numbered(200))
    with running(store, stopping_after(1)) as one:
        one._thread.join(20)
    assert store.cancel(id)["status"] == "cancelling"
    with running(store):
        assert finished(store, id)["status"] == "cancelled"
    assert store.batch(id)["request_counts"] == {"total": 200, "completed": 58, "failed": 6}


def test_the_record_is_looked_at_once_in_a_while(store, monkeypatch):
    monkeypatch.setattr(work, "LOOK_SECONDS", 60)
    id = queue(store, numbered(1))
    one = work.BatchWork(store, id, answer, threading.Event())
    assert not one._gone()
    store.cancel(id)
    assert not one._gone()
    one._looked -= 60
    assert one._gone()


def test_a_batch_can_be_cancelled_while_its_input_is_checked(store, monkeypatch):
    id = queue(store, numbered(10))
    original, asked = work.check, []

    def checked(*given):
        assert store.cancel(id)["status"] == "cancelled"
        return original(*given)

    monkeypatch.setattr(work, "check", checked)
    with running(store, lambda *_: asked.append(1)):
        wait_for(lambda: not store.unfinished())
    assert store.batch(id)["status"] == "cancelled"
    assert not asked


def test_a_wish_that_comes_with_the_last_line_is_kept(store):
    """A client that was told "cancelling" waits for "cancelled"."""
    id = queue(store, numbered(10))

    def cancelling(lines, gone, *_):
        store.cancel(id)
        return answer(lines, gone)

    with running(store, cancelling):
        assert finished(store, id)["status"] == "cancelled"


def test_a_finished_batch_is_not_cancelled(store):
    batch = worked_off(store, numbered(10))
    assert store.cancel(batch["id"]) == batch
    assert store.batch(batch["id"]) == batch


def test_at_the_end_it_is_too_late_to_cancel(store, monkeypatch):
    id = queue(store, numbered(20))
    with at_its_end(store, id, monkeypatch):
        assert store.cancel(id)["status"] == "finalizing"
    assert_all_there(store, id, 20)


def test_nobody_overwrites_what_another_writes(store, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    id = queue(store, numbered(1))

    def count() -> None:
        for _ in range(50):
            with store.changing(id) as record:
                record.batch["request_counts"]["total"] += 1

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert store.batch(id)["request_counts"]["total"] == 200


def test_an_expired_batch_tells_of_the_lines_it_has_not_answered(store, monkeypatch):
    monkeypatch.setitem(records.WINDOWS, "24h", 1)
    id = queue(store, numbered(200))

    def slowly(lines, gone, *_):
        time.sleep(max(0, store.batch(id)["expires_at"] - time.time()))
        return answer(lines, gone)

    with running(store, slowly):
        batch = finished(store, id)
    assert batch["status"] == "expired"
    assert batch["expired_at"] >= batch["expires_at"]
    assert batch["completed_at"] is None
    assert batch["request_counts"] == {"total": 200, "completed": 58, "failed": 6 + 136}
    failed = store.content(batch["error_file_id"]).read_bytes().splitlines()[6:]
    assert [json.loads(line)["custom_id"] for line in failed] == [str(number) for number in range(64, 200)]
    for line in map(json.loads, failed):
        assert line["id"].startswith("batch_req_")
        assert line["response"] is None
        assert line["error"]["code"] == "batch_expired"
        assert line["error"]["message"]


# Stopping, killing, full disks


def test_a_stop_gives_up_what_is_under_way_for_the_next_runner(store):
    id = queue(store, numbered(200))
    groups = []
    held = threading.Event()

    def held_up(lines, gone, *_):
        if len(groups) < 2:
            groups.append(len(lines))
            return answer(lines, gone)
        held.set()
        while not gone():
            time.sleep(0.005)
        raise Abandoned

    with running(store, held_up):
        held.wait(20)
        begin = time.monotonic()
    assert time.monotonic() < begin + 2
    batch = store.batch(id)
    assert batch["status"] == "in_progress"
    assert sum(batch["request_counts"].values()) - 200 == 128

    def counted(lines, gone, *_):
        groups.append(len(lines))
        return answer(lines, gone)

    with running(store, counted):
        finished(store, id)
    assert groups == [64, 64, 64, 8]
    assert_all_there(store, id, 200)


def test_a_stop_does_not_wait_until_the_input_is_checked(store, monkeypatch):
    id = queue(store, numbered(10))
    original = work.check

    def checked(file, endpoint, gone):
        gone.__self__._stopped.set()
        return original(file, endpoint, gone)

    with monkeypatch.context() as patch:
        patch.setattr(work, "check", checked)
        with running(store) as one:
            one._thread.join(20)
    assert store.batch(id)["status"] == "validating"
    with running(store):
        finished(store, id)
    assert_all_there(store, id, 10)


def test_a_runner_that_was_not_started_can_be_stopped(store):
    Runner(store, answer).stop()


def test_a_stop_does_not_wait_for_an_answer_that_does_not_look(store, monkeypatch):
    monkeypatch.setattr(runner, "STOP_SECONDS", 0.1)
    held, go = threading.Event(), threading.Event()

    def deaf(lines, gone, *_):
        held.set()
        go.wait(20)
        return answer(lines, gone)

    id = queue(store, numbered(10))
    one = Runner(store, deaf)
    one.start()
    held.wait(20)
    begin = time.monotonic()
    one.stop()
    assert time.monotonic() < begin + 2
    go.set()
    one._thread.join(20)
    with running(store):
        finished(store, id)
    assert_all_there(store, id, 10)


def test_a_beginning_an_end_and_a_resumption_are_logged(store, caplog):
    caplog.set_level("INFO", "app.bulk.batches")
    id = queue(store, numbered(100))
    with running(store, stopping_after(1)) as one:
        one._thread.join(20)
    with running(store):
        finished(store, id)
        wait_for(lambda: not store.unfinished())
    assert [record.getMessage() for record in caplog.records] == [
        f"{id} begins",
        f"{id} continues: 64 of 100 lines done, 6 of these failed",
        f"{id} completed: 100 of 100 lines done, 10 of these failed",
    ]


CHILD = """
import os, sys, time
from pathlib import Path
import orjson
from app.bulk.batches import Result, Runner, Store, runner, work

runner.LOOK_SECONDS = work.SAVE_SECONDS = 0.05
folder, log, left = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
notes = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def answer(lines, gone, *_):
    global left
    left -= len(lines)
    time.sleep(0.003 if left >= 0 else 60)
    os.write(notes, b"%d %d\\n" % (os.getpid(), len(lines)))
    ids = [orjson.loads(line)["custom_id"] for line in lines]
    return [Result(orjson.dumps({"custom_id": id}), id.endswith("7")) for id in ids]

Runner(Store(folder), answer).start()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def child(store, tmp_path):
    """Start a process with a runner that hangs after this many lines; it notes every group it answers."""
    started = []

    def start(lines: int) -> subprocess.Popen:
        command = [sys.executable, "-c", CHILD, store.lock.parent, tmp_path / "notes", str(lines)]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE))
        assert started[-1].stdout.readline() == b"ready\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def notes(folder: Path) -> list[tuple[int, int]]:
    """The process and the number of lines of each group."""
    found = (folder / "notes").read_text().splitlines() if (folder / "notes").exists() else []
    return [tuple(map(int, note.split())) for note in found]


def test_no_line_is_lost_or_doubled_across_kills(store, child, tmp_path):
    count, kills = 20_000, 5
    id = queue(store, numbered(count))

    def recorded() -> int:
        counts = store.batch(id)["request_counts"]
        return counts["completed"] + counts["failed"]

    for kill in range(kills):
        before = recorded()
        process = child(count // kills - 100)
        wait_for(lambda before=before, kill=kill: recorded() >= before + 500 * kill)
        time.sleep(0.01 * kill)
        process.kill()
        process.wait()
    assert 0 < recorded() < count
    child(count)
    wait_for(lambda: store.batch(id)["status"] == "completed")
    assert_all_there(store, id, count)
    answered = sum(number for _, number in notes(tmp_path))
    assert count <= answered < 1.5 * count  # lines that were recorded are not answered again


def test_one_process_works_and_another_takes_over(store, child, tmp_path):
    both = {process.pid: process for process in (child(2500), child(2500))}
    first = queue(store, numbered(2000))
    finished(store, first)
    assert sum(number for _, number in notes(tmp_path)) == 2000
    dead = notes(tmp_path)[0][0]
    assert {process for process, _ in notes(tmp_path)} == {dead}
    second = queue(store, numbered(2000))
    wait_for(lambda: sum(number for _, number in notes(tmp_path)) >= 2400)
    both[dead].kill()
    finished(store, second)
    order = [process for process, _ in notes(tmp_path)]
    assert set(order) == set(both)
    assert order == sorted(order, key=lambda process: process != dead)
    every = [str(number) for number in range(2000) if number % 10 != 7]
    assert ids(store, store.batch(second)["output_file_id"]) == every


STEPS = [
    (os, "fsync"),
    (os, "replace"),
    (os, "truncate"),
    (os, "mkdir"),
    (shutil, "rmtree"),
    (work, "_append"),
]

# Each child is killed before or after the next one of these steps, until one child finishes.
KILLED = """
import os, shutil, sys
from pathlib import Path
from threading import Event
from app.bulk.batches import Store, lines, work
from tests.test_batches import STEPS, URL, answer, numbered, add

folder = Path(sys.argv[1])
work.SAVE_SECONDS = 0.0
lines.GROUP_LINES = 4
append = work._append

def at_once(file, results):
    written = append(file, results)
    file.flush()
    return written

def live(place, last):
    left = iter(range(last))

    def killed_at(name, call):
        def step(*given, **named):
            if next(left, None) is None:
                os._exit(9)
            found = call(*given, **named)
            if next(left, None) is None:
                os._exit(9)
            return found
        return step

    store = Store(place)
    work._append = at_once
    for module, name in STEPS:
        call = (lambda descriptor: None) if name == "fsync" else getattr(module, name)
        setattr(module, name, killed_at(name, call))
    file = add(store, numbered(10))
    batch = store.add_batch(file["id"], URL, "24h", None)
    work.BatchWork(store, batch["id"], answer, Event()).run()
    os._exit(0)

step = 0
while True:
    child = os.fork()
    if not child:
        live(folder / str(step), step)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 9:
        sys.exit(status)
    step += 1
"""


def test_a_kill_at_any_step_loses_nothing(tmp_path, monkeypatch):
    subprocess.run([sys.executable, "-c", KILLED, tmp_path], cwd=ROOT, check=True)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # a kill is not a power cut
    stages = Counter()
    for folder in tmp_path.iterdir():
        store = Store(folder)
        before = {batch["id"]: batch["status"] for batch in store.batches()[0]}
        with running(store):
            wait_for(lambda store=store: not store.unfinished())
            wait_for(lambda folder=folder: not list(folder.glob("incoming/*")))
        assert {batch["id"] for batch in store.batches()[0]} == set(before)
        for id in before:
            assert_all_there(store, id, 10)
        if not before:
            assert len(names(store)) in (0, 2)  # the complete file or nothing
        stages.update(before.values() or [len(names(store))])
    assert min(stages[stage] for stage in (0, 2, "validating", "in_progress", "finalizing", "completed")) > 0
    assert stages.total() > 80


@pytest.mark.parametrize("times", [1, 2])
def test_a_full_disk_at_any_step_loses_nothing(tmp_path, monkeypatch, caplog, times):
    """It is logged once, however often it is retried, and the batch goes on afterwards."""
    monkeypatch.setattr(lines, "GROUP_LINES", 4)
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    steps = 0
    while True:
        store = Store(tmp_path / str(steps))
        id = queue(store, numbered(10))
        caplog.clear()
        with monkeypatch.context() as patch:
            left, fails = iter(range(steps)), iter(range(times))
            for place, name in STEPS:
                patch.setattr(place, name, failing(getattr(place, name), left, fails))
            with running(store):
                finished(store, id)
                wait_for(lambda store=store: not store.unfinished())
        assert_all_there(store, id, 10)
        if next(fails, None) is not None:
            break
        assert len(errors(caplog)) == 1
        assert "No space left" in errors(caplog)[0]
        steps += 1
    assert steps > 30


def test_a_disk_that_is_full_again_is_told_again(store, monkeypatch, caplog):
    append = work._append
    with running(store):
        for told in (1, 2):
            monkeypatch.setattr(work, "_append", failing(append, iter(()), iter(range(3))))
            assert finished(store, queue(store, numbered(3)))["status"] == "completed"
            wait_for(lambda: not store.unfinished())
            assert len(errors(caplog)) == told


def test_nothing_is_recorded_before_it_is_on_the_disk(store, monkeypatch):
    """Otherwise a power cut could leave a record of results that are not there."""
    fsync, replace, append = os.fsync, os.replace, work._append
    written, synced = set(), set()  # by their inode numbers
    recorded = []

    def appended(file, results):
        written.add(os.fstat(file.fileno()).st_ino)
        return append(file, results)

    def flushed(descriptor):
        written.discard(os.fstat(descriptor).st_ino)
        synced.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def replaced(source, target):
        assert not written
        synced.remove(os.stat(source).st_ino)
        recorded.append(Path(target).parent.name)
        replace(source, target)

    monkeypatch.setattr(work, "_append", appended)
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", replaced)
    id = queue(store, numbered(200))
    with running(store):
        finished(store, id)
    assert_all_there(store, id, 200)
    assert recorded.count("batches") > 5
    assert recorded.count("files") == 6


def errors(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]


def failing(call: Callable, left: Iterator, fails: Iterator) -> Callable:
    def step(*given, **named):
        if next(left, None) is None and next(fails, None) is not None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(*given, **named)

    return step


def test_a_server_needs_nothing_more_for_it():
    code = "import sys, app.bulk.batches; print({'pyarrow', 'flask', 'numpy', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
