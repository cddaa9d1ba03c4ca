"""The work on one batch. It may be killed at any moment; another process then continues it.

Results are appended to two part files. About once a second those are flushed, and then their lengths are
recorded, with how much of the input they answer. To continue, cut them to the recorded lengths first.
"""

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import orjson

from app.bulk.batches.disk import flush_folder
from app.bulk.batches.errors import BatchFault, Unknown
from app.bulk.batches.lines import changed, check, read_group
from app.bulk.batches.records import new_id
from app.bulk.batches.store import Store
from app.bulk.errors import Stopped
from app.engine.errors import Abandoned, EngineError, NotLoaded, Overloaded, TooLate

log = logging.getLogger(__name__)

SAVE_SECONDS = 1.0  # how often the progress is recorded; a killed process loses what came since
LOOK_SECONDS = 1.0  # how often to check whether the batch is cancelled
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before a retry; each doubles the one before
MOST_IGNORED = 16  # how many unknown fields are logged per batch


@dataclass(frozen=True)
class Result:
    """The answer to a request: a line of JSON for the file of results, or for that of errors."""

    line: bytes  # without its end
    failed: bool
    ignored: dict[str, str] = field(default_factory=dict)  # unknown fields -> the fields that they resemble


# Takes lines of the input and returns a result for each, in order. The second argument, `gone`, says whether
# to give up; it then raises Abandoned. The third is the embedding space that the batch expects; "" if it
# does not say. After Overloaded, TooLate or NotLoaded it is called again later.
Answer = Callable[[list[bytes], Callable[[], bool], str], list[Result]]


class BatchWork:
    """Runs one batch, from where it stands to its end."""

    def __init__(self, store: Store, id: str, answer: Answer, stopped: threading.Event) -> None:
        """Raises Unknown if there is no such batch."""
        self._store = store
        self._id = id
        self._answer = answer
        self._stopped = stopped
        self._record = store.record(id)  # its counts are ahead of those on disk
        self._cancelled = False
        self._looked = -LOOK_SECONDS  # when that was last checked
        self._waits = False  # whether the last group had to be tried again
        self._ignored: dict[str, str] = {}  # unknown fields that the log has already

    def run(self) -> None:
        """Work until the batch is finished or `stopped` is set; raises OSError if the disk fails."""
        if not self._record.finished and self._record.progress.ending is None:
            try:
                self._end(*self._work())
            except Stopped:
                if self._stopped.is_set():
                    return
                self._end("cancelled", [])
            except BatchFault as fault:
                self._end("failed", [fault.listed()])
        if not self._record.finished:
            self._finish()
        self._log(self._record.batch["status"])
        self._store.clear(self._id)

    def announce(self) -> None:
        """Log that the work begins or continues."""
        if self._record.batch["status"] == "validating":
            log.info("%s begins", self._id)
        elif not self._record.finished:
            self._log("continues")

    def _work(self) -> tuple[str, list[dict[str, Any]]]:
        """Answer the lines that are left; return the status to end with, and what is wrong with the input."""
        with ExitStack() as stack:
            source = stack.enter_context(self._source())
            if self._record.batch["status"] == "validating":
                lines, faults = check(source, self._record.batch["endpoint"], self._gone)
                if faults:
                    return "failed", faults
                with self._store.changing(self._id) as self._record:
                    if self._record.finished:
                        return "cancelled", []
                    self._record.batch["request_counts"]["total"] = lines
                    self._record.become("in_progress")
            progress = self._record.progress
            parts = (
                stack.enter_context(self._part("output", progress.output_bytes)),
                stack.enter_context(self._part("error", progress.error_bytes)),
            )
            flush_folder(self._store.part(self._id, "output").parent)
            source.seek(progress.read)
            try:
                return self._answer_all(source, *parts), []
            finally:
                self._save(*parts)

    def _answer_all(self, source: BinaryIO, output: BinaryIO, error: BinaryIO) -> str:
        """Answer group after group; return the status to end with."""
        progress, counts = self._record.progress, self._record.batch["request_counts"]
        saved = time.monotonic()
        while lines := read_group(source, self._gone):
            results = self._results(lines)
            self._log_ignored(results)
            failures = [result for result in results if result.failed]
            written = _append(output, [result for result in results if not result.failed])
            failed = _append(error, failures)
            # Counted only after both are written: if the second fails, the lines are answered again.
            progress.output_bytes += written
            progress.error_bytes += failed
            progress.read = source.tell()
            counts["completed"] += len(results) - len(failures)
            counts["failed"] += len(failures)
            if time.monotonic() >= saved + SAVE_SECONDS:
                self._save(output, error)
                saved = time.monotonic()
        if counts["completed"] + counts["failed"] != counts["total"]:
            raise changed()
        return "expired" if progress.expired else "completed"

    def _gone(self) -> bool:
        """Whether to give up what is under way: the runner stops, or the batch is cancelled."""
        now = time.monotonic()
        if not self._cancelled and now >= self._looked + LOOK_SECONDS:
            self._looked = now
            with suppress(Unknown, OSError):  # saving the progress will raise it again
                self._cancelled = self._store.batch(self._id)["status"] in ("cancelling", "cancelled")
        return self._cancelled or self._stopped.is_set()

    def _results(self, lines: list[bytes]) -> list[Result]:
        """A result for each line, however long that takes; raises Stopped once the batch must not go on."""
        wait = FIRST_WAIT
        while not self._gone():
            try:
                if time.time() >= self._record.batch["expires_at"]:
                    self._record.progress.expired += len(lines)
                    return [_expired(line) for line in lines]
                results = self._answer(lines, self._gone, self._record.batch.get("embedding_space", ""))
                if len(results) != len(lines):
                    raise ValueError(f"{len(results)} results for {len(lines)} lines")
                self._waits = wait > FIRST_WAIT
                return results
            except (Overloaded, TooLate, NotLoaded, Abandoned) as error:
                if self._gone():
                    break
                if not self._waits:
                    log.warning("%s waits, its next lines are tried again: %s", self._id, error)
                self._waits = True
                self._pause(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            except EngineError as error:
                log.exception("%s failed", self._id)
                raise BatchFault("server_error", str(error)) from error
            except Exception as error:
                log.exception("%s failed", self._id)
                raise BatchFault("server_error", "an internal error; the server's log has more") from error
        raise Stopped

    def _pause(self, seconds: float) -> None:
        """Wait, but return early if the batch must not go on."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0 and not self._gone():
            self._stopped.wait(min(left, FIRST_WAIT))

    def _log_ignored(self, results: list[Result]) -> None:
        """Log the fields that look misspelt, each once."""
        found = {name: near for result in results for name, near in result.ignored.items()}
        new = ((name, near) for name, near in found.items() if name not in self._ignored)
        if told := dict(islice(new, MOST_IGNORED - len(self._ignored))):
            self._ignored |= told
            names = ", ".join(f"{name} ({near}?)" for name, near in told.items())
            log.warning("%s: unknown fields are ignored: %s", self._id, names)

    def _log(self, what: str) -> None:
        counts = self._record.batch["request_counts"]
        log.info(
            "%s %s: %d of %d lines done, %d of these failed",
            self._id,
            what,
            counts["completed"] + counts["failed"],
            counts["total"],
            counts["failed"],
        )

    def _save(self, *parts: BinaryIO) -> None:
        """Sync the results to the disk, then record the progress that counts them."""
        for part in parts:
            part.flush()
            os.fsync(part.fileno())
        with self._store.changing(self._id) as record:
            record.progress = self._record.progress
            record.batch["request_counts"] = self._record.batch["request_counts"]

    def _end(self, ending: str, faults: list[dict[str, Any]]) -> None:
        """Record how the batch will end; after this no more lines are answered."""
        with self._store.changing(self._id) as self._record:
            if self._record.finished:  # cancelled while its input was checked
                return
            batch, progress = self._record.batch, self._record.progress
            progress.ending = "cancelled" if batch["status"] == "cancelling" else ending
            progress.output_file_id = new_id("file-") if progress.output_bytes else None
            progress.error_file_id = new_id("file-") if progress.error_bytes else None
            if faults:
                batch["errors"] = {"object": "list", "data": faults}
            if progress.ending == "completed":
                self._record.become("finalizing")

    def _finish(self) -> None:
        """Turn the results into files."""
        progress = self._record.progress
        output = self._file("output", progress.output_bytes, progress.output_file_id)
        error = self._file("error", progress.error_bytes, progress.error_file_id)
        with self._store.changing(self._id) as self._record:
            self._record.batch |= {"output_file_id": output, "error_file_id": error}
            self._record.become(str(progress.ending))

    def _file(self, kind: str, size: int, id: str | None) -> str | None:
        """Turn a part into the file `id` and return that; None if there are no results or they are lost."""
        part = self._store.part(self._id, kind)
        return id if id and self._store.adopt(part, size, id, f"{self._id}_{kind}.jsonl") else None

    def _part(self, kind: str, size: int) -> BinaryIO:
        """Open the results so far, cut to their recorded length; raises BatchFault if there are fewer."""
        file = self._store.part(self._id, kind).open("ab")
        if file.tell() < size:
            file.close()
            raise BatchFault("server_error", "the results so far are lost: send the batch again")
        file.truncate(size)
        return file

    def _source(self) -> BinaryIO:
        """Open the input; raises BatchFault if it is gone, or if its size is not that of the upload."""
        id = self._record.batch["input_file_id"]
        try:
            size = self._store.file(id)["bytes"]
            source = self._store.content(id).open("rb")
        except (Unknown, FileNotFoundError):
            raise BatchFault("input_file_missing", f"the input file {id} is gone") from None
        if os.fstat(source.fileno()).st_size != size:
            source.close()
            raise BatchFault("input_file_damaged", f"the input file {id} is damaged: send it again")
        return source


def _append(file: BinaryIO, results: list[Result]) -> int:
    """Write the lines; return how many bytes they have."""
    for result in results:
        file.write(result.line)
        file.write(b"\n")
    return sum(len(result.line) + 1 for result in results)


def _expired(line: bytes) -> Result:
    told = {
        "id": f"batch_req_{secrets.token_hex(16)}",
        "custom_id": orjson.loads(line)["custom_id"],
        "response": None,
        "error": {
            "code": "batch_expired",
            "message": "This request could not be executed before the completion window expired.",
        },
    }
    return Result(orjson.dumps(told), failed=True)
