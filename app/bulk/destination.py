"""Where the parts go: a folder on any file system. A part is there completely or not at all."""

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.files import open_place
from app.bulk.options import DESCRIBED, Counts
from app.engine.embeddings import Output

# Programs that read a folder of Parquet files skip names that begin with _ or a dot.
MANIFEST = "_embed.json"
SUMMARY = "_summary.json"
UNFINISHED = "."


@dataclass(frozen=True)
class Destination:
    """A folder of parts, with a manifest that says what they were made from."""

    place: str

    def begin(self, manifest: dict[str, Any]) -> None:
        """Make the folder, or resume in it; raises BulkError if it holds other files or other vectors."""
        files, path = self._open()
        with _told(path):
            files.create_dir(path, recursive=True)
        names = self._names()
        if MANIFEST not in names:
            if visible := [name for name in names if not name.startswith(("_", "."))]:
                raise BulkError(f"{self.place} already holds something else, such as {visible[0]}")
            self._write_json(MANIFEST, manifest)
            return
        before = self._read_json(MANIFEST)
        for name, value in manifest.items():
            if name not in DESCRIBED and before.get(name) != value:
                was, now = short(before.get(name)), short(value)
                raise BulkError(
                    f"{self.place} was begun with a different {name.replace('_', ' ')} ({was}, now {now}): "
                    "give another --out, or delete that folder"
                )

    def manifest(self) -> dict[str, Any]:
        """What the parts were made from; raises BulkError if this is not an output folder of this program."""
        files, path = self._open()
        with _told(path):
            there = files.get_file_info(f"{path}/{MANIFEST}").type == fs.FileType.File
        if not there:
            raise BulkError(
                f"{self.place} is not an output folder of this program: it has no {MANIFEST} in it"
            )
        return self._read_json(MANIFEST)

    def open(self, name: str) -> pq.ParquetFile:
        """Open a finished part."""
        files, path = self._open()
        with _told(f"{path}/{name}"):
            return pq.ParquetFile(files.open_input_file(f"{path}/{name}"))

    def done(self) -> set[str]:
        """Names of the finished parts."""
        return {name for name in self._names() if name.endswith(".parquet") and not name.startswith(".")}

    def has(self, name: str) -> bool:
        """Whether the folder has this file."""
        files, path = self._open()
        with _told(path):
            return bool(files.get_file_info(f"{path}/{name}").type == fs.FileType.File)

    def counts(self, names: set[str]) -> Counts:
        """The counts of these parts, added up."""
        total = Counts()
        for name in sorted(names):
            found = self.open(name).metadata.metadata or {}
            try:
                total.add(Counts(**json.loads(found[b"counts"])))
            except (KeyError, TypeError, ValueError, RecursionError):
                raise BulkError(f"{self.place}/{name} was not written by this program") from None
        return total

    @contextmanager
    def part(self, name: str, schema: pa.Schema) -> Iterator[pq.ParquetWriter]:
        """Write a part; it appears under its name once everything is written."""
        files, path = self._open()
        unfinished = f"{path}/{UNFINISHED}{name}.{uuid.uuid4().hex}"
        others = [field.name for field in schema if field.name not in get_args(Output)]
        with _told(unfinished):
            try:
                with pq.ParquetWriter(
                    unfinished,
                    schema,
                    filesystem=files,
                    compression="zstd",
                    # Dictionaries and statistics help with texts and labels, but not with vectors.
                    use_dictionary=others,
                    write_statistics=others,
                ) as writer:
                    yield writer
                _flush(files, unfinished)
                files.move(unfinished, f"{path}/{name}")
                _flush(files, path)
            except BaseException:
                _remove(files, unfinished)
                raise

    def end(self, summary: dict[str, Any]) -> None:
        """Write the summary, which marks the output as complete; remove what interrupted runs left."""
        files, path = self._open()
        for name in self._names():
            if name.startswith(tuple(UNFINISHED + ours for ours in ("part-", "stdin.", MANIFEST, SUMMARY))):
                _remove(files, f"{path}/{name}")
        self._write_json(SUMMARY, summary)

    def _open(self) -> tuple[fs.FileSystem, str]:
        return open_place(self.place)

    def _names(self) -> list[str]:
        files, path = self._open()
        with _told(path):
            return [info.base_name for info in files.get_file_info(fs.FileSelector(path))]

    def _read_json(self, name: str) -> dict[str, Any]:
        files, path = self._open()
        with _told(f"{path}/{name}"), files.open_input_stream(f"{path}/{name}") as stream:
            content = json.loads(stream.read())
        if not isinstance(content, dict):
            raise BulkError(f"{path}/{name} was not written by this program")
        return content

    def _write_json(self, name: str, content: dict[str, Any]) -> None:
        files, path = self._open()
        unfinished = f"{path}/{UNFINISHED}{name}.{uuid.uuid4().hex}"
        with _told(f"{path}/{name}"):
            with files.open_output_stream(unfinished) as stream:
                stream.write(json.dumps(content, indent=1).encode())
            _flush(files, unfinished)
            files.move(unfinished, f"{path}/{name}")


def short(value: Any) -> str:
    """A value of a manifest as a message has it: hashes are cut, names of embedding spaces are not."""
    return str(value) if len(str(value)) < 64 else f"{str(value)[:12]}..."


@contextmanager
def _told(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, RecursionError) as error:
        raise BulkError(f"{path} cannot be read or written: {error}") from error


def _remove(files: fs.FileSystem, path: str) -> None:
    try:
        files.delete_file(path)
    except OSError:  # nothing was written yet, or the disk is gone
        return


def _flush(files: fs.FileSystem, path: str) -> None:
    """Sync to the disk, so that a part that has its final name survives a power cut."""
    if isinstance(files, fs.LocalFileSystem):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
