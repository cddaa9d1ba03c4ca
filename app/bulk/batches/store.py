"""The folder of files and batches, which several processes use at once."""

import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from app.bulk.batches.disk import (
    UNFINISHED,
    create_locked,
    flush_folder,
    locked,
    remove_abandoned,
    write_whole,
)
from app.bulk.batches.errors import FileTooLarge, InUse, Unknown
from app.bulk.batches.records import BATCH_ID, FILE_ID, Record, new_batch, new_file, new_id

log = logging.getLogger(__name__)

MOST_LISTED = 10_000  # at once, OpenAI's limit


class Store:
    """Files and batches as OpenAI's objects. Any method may raise OSError, such as when the disk is full.

    Reading takes no lock, because records are replaced whole.
    """

    def __init__(self, folder: Path) -> None:
        """Make the folder if it is missing."""
        folder = folder.absolute()  # Flask looks for relative paths in its package
        self.lock = folder / "lock"  # held by the active runner
        self._records = folder / "records.lock"
        self._files = folder / "files"
        self._batches = folder / "batches"
        self._unfinished = folder / "unfinished"
        self._incoming = folder / "incoming"
        for place in (self._files, self._batches, self._unfinished, self._incoming):
            place.mkdir(parents=True, exist_ok=True)

    def add_file(self, name: str, purpose: str, chunks: Iterable[bytes], most: int) -> dict[str, Any]:
        """Store the chunks as a file, completely or not at all; raises FileTooLarge over `most` bytes."""
        id = new_id("file-")
        incoming = self._incoming / id
        try:
            with locked(self._records):  # a sweep must not find the file before it is locked
                file = create_locked(incoming)
            with file:
                size = 0
                for chunk in chunks:
                    size += len(chunk)
                    if size > most:
                        raise FileTooLarge(most)
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                added = new_file(id, name, purpose, size)
                with locked(self._records):
                    self._keep(incoming, added)
            return added
        except BaseException:
            self._remove(id)
            incoming.unlink(missing_ok=True)
            raise

    def file(self, id: str) -> dict[str, Any]:
        """A file's record; raises Unknown if there is none."""
        if not FILE_ID.fullmatch(id):
            raise Unknown("file", id)
        try:
            found = json.loads(self._file_record(id).read_bytes())
        except FileNotFoundError:
            raise Unknown("file", id) from None
        except ValueError:
            log.error("%s is damaged", self._file_record(id))
            raise Unknown("file", id) from None
        return dict(found)

    def files(
        self,
        after: str | None = None,
        limit: int = MOST_LISTED,
        *,
        ascending: bool = False,
        purpose: str | None = None,
    ) -> tuple[list[dict[str, Any]], bool]:
        """Up to `limit` files that come after the id `after`, and whether there are more.

        The newest come first, unless `ascending`.
        """
        ids = _ids(self._files, FILE_ID, after, ascending)
        return _page(ids, self.file, limit, lambda file: purpose in (None, file["purpose"]))

    def content(self, id: str) -> Path:
        """Where a file's content is; raises Unknown if there is no such file."""
        self.file(id)
        return self._files / id

    def delete_file(self, id: str) -> None:
        """Delete a file; raises Unknown if there is none, InUse if a batch that is not finished needs it."""
        with locked(self._records):
            self.file(id)
            if batch_id := self._used().get(id):
                raise InUse(id, batch_id)
            self._remove(id)
            flush_folder(self._files)

    def add_batch(
        self, input_file_id: str, endpoint: str, window: str, metadata: dict[str, str] | None, space: str = ""
    ) -> dict[str, Any]:
        """Queue a batch; raises Unknown if there is no such file, ValueError if `window` is not "24h".

        `space`: the embedding space that it expects; "" if it does not say.
        """
        id = new_id("batch_")
        batch = new_batch(id, input_file_id, endpoint, window, metadata, space)
        with locked(self._records):
            self.file(input_file_id)
            folder = self._unfinished / id
            folder.mkdir()
            try:
                flush_folder(self._unfinished)  # a record without this folder would never be processed
                write_whole(self._batch_record(id), Record(batch).as_json())
            except OSError:
                self._batch_record(id).unlink(missing_ok=True)
                folder.rmdir()
                raise
        return batch

    def batch(self, id: str) -> dict[str, Any]:
        """A batch; raises Unknown if there is none."""
        return self.record(id).batch

    def batches(
        self, after: str | None = None, limit: int = MOST_LISTED, *, ascending: bool = False
    ) -> tuple[list[dict[str, Any]], bool]:
        """Like `files`."""
        return _page(_ids(self._batches, BATCH_ID, after, ascending), self.batch, limit)

    def cancel(self, id: str) -> dict[str, Any]:
        """Cancel a batch: at once if it has not begun, else as soon as its runner checks for that.

        A batch that is finished, or about to be, is not changed. Raises Unknown if there is none.
        """
        with self.changing(id) as record:
            if record.finished or record.progress.ending or record.batch["status"] == "cancelling":
                return record.batch
            begun = record.batch["status"] != "validating"
            record.become("cancelling")
            if not begun:
                record.become("cancelled")
        return record.batch

    # For the runner

    def record(self, id: str) -> Record:
        """A batch and how far it has come; raises Unknown if there is none."""
        if not BATCH_ID.fullmatch(id):
            raise Unknown("batch", id)
        path = self._batch_record(id)
        try:
            return Record.from_json(path.read_bytes())
        except FileNotFoundError:
            raise Unknown("batch", id) from None
        except (ValueError, KeyError, TypeError):
            log.error("%s is damaged", path)
            raise Unknown("batch", id) from None

    @contextmanager
    def changing(self, id: str) -> Iterator[Record]:
        """Change a batch's record while nobody else can; it is written unless the block raises."""
        with locked(self._records):
            record = self.record(id)
            before = record.as_json()
            yield record
            if record.as_json() != before:
                write_whole(self._batch_record(id), record.as_json())

    def unfinished(self) -> list[str]:
        """Ids of the batches that are not finished or not cleared yet, the oldest first."""
        return sorted(path.name for path in self._unfinished.iterdir() if BATCH_ID.fullmatch(path.name))

    def part(self, id: str, kind: str) -> Path:
        """Where results of an unfinished batch are collected; `kind` is "output" or "error"."""
        return self._unfinished / id / kind

    def adopt(self, part: Path, size: int, id: str, name: str) -> bool:
        """Turn the first `size` bytes of a part into a file, if not done yet; False if they are lost."""
        with locked(self._records):
            if part.exists() and part.stat().st_size >= size:
                os.truncate(part, size)
                self._keep(part, new_file(id, name, "batch_output", size))
            elif (self._files / id).exists():  # killed between the two steps
                self._keep(None, new_file(id, name, "batch_output", size))
            else:
                return False
        return True

    def clear(self, id: str) -> None:
        """Remove what is left of the work on a batch that is finished or has no record."""
        with locked(self._records):
            with suppress(Unknown):
                if not self.record(id).finished:
                    return
            shutil.rmtree(self._unfinished / id)
            flush_folder(self._unfinished)

    def sweep(self) -> None:
        """Remove what killed processes left behind; only the runner that holds `lock` may call it."""
        with locked(self._records):
            for folder in (self._files, self._batches):
                for path in folder.glob(f"*{UNFINISHED}"):
                    path.unlink()
            used = self._used()
            for path in list(self._files.iterdir()):
                id = path.name
                if FILE_ID.fullmatch(id) and id not in used and not self._file_record(id).exists():
                    path.unlink()
            remove_abandoned(self._incoming)

    def _file_record(self, id: str) -> Path:
        return self._files / f"{id}.json"

    def _batch_record(self, id: str) -> Path:
        return self._batches / f"{id}.json"

    def _keep(self, path: Path | None, file: dict[str, Any]) -> None:
        """Move the content from `path`, unless it is in place, and write the record; needs the lock."""
        if path is not None:
            os.replace(path, self._files / file["id"])
        write_whole(self._file_record(file["id"]), json.dumps(file).encode())

    def _remove(self, id: str) -> None:
        self._file_record(id).unlink(missing_ok=True)
        (self._files / id).unlink(missing_ok=True)

    def _used(self) -> dict[str, str]:
        """Each file that an unfinished batch reads or writes -> that batch, by id."""
        used: dict[str, str] = {}
        for batch_id in self.unfinished():
            with suppress(Unknown):
                record = self.record(batch_id)
                if not record.finished:
                    ids = (
                        record.batch["input_file_id"],
                        record.progress.output_file_id,
                        record.progress.error_file_id,
                    )
                    used |= {id: batch_id for id in ids if id}
        return used


def _ids(folder: Path, ids: re.Pattern[str], after: str | None, ascending: bool) -> list[str]:
    """The ids after `after` that a folder has records of, the newest first unless `ascending`."""
    names = (name.removesuffix(".json") for name in os.listdir(folder) if name.endswith(".json"))
    found = [id for id in names if ids.fullmatch(id)]
    if after is not None:
        found = [id for id in found if (id > after if ascending else id < after)]
    return sorted(found, reverse=not ascending)


def _page(
    ids: Iterable[str],
    read: Callable[[str], dict[str, Any]],
    limit: int,
    fits: Callable[[dict[str, Any]], bool] = lambda _: True,
) -> tuple[list[dict[str, Any]], bool]:
    """The first `limit` records that fit, and whether there are more; no others are read."""
    found: list[dict[str, Any]] = []
    for id in ids:
        with suppress(Unknown):  # deleted just now, or damaged
            one = read(id)
            if fits(one):
                if len(found) == limit:
                    return found, True
                found.append(one)
    return found, False
