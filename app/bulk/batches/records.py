"""The records of files and batches: OpenAI's objects, and how far the work on a batch has come."""

import json
import re
import secrets
import time
from dataclasses import asdict, dataclass, field
from typing import Any

# An id from a client must match one of these before it becomes part of a path.
FILE_ID = re.compile("file-[0-9a-f]{32}")
BATCH_ID = re.compile("batch_[0-9a-f]{32}")
IDS = {"file": FILE_ID, "batch": BATCH_ID}

WINDOWS = {"24h": 24 * 3600}  # seconds
FINISHED = frozenset({"completed", "failed", "expired", "cancelled"})
MOMENTS = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")


def new_id(prefix: str) -> str:
    """An id that cannot be guessed; ids with the same prefix sort by the time they were made."""
    return f"{prefix}{time.time_ns():016x}{secrets.token_hex(8)}"


def new_file(id: str, name: str, purpose: str, size: int) -> dict[str, Any]:
    """OpenAI's object for a file of `size` bytes."""
    return {
        "id": id,
        "object": "file",
        "bytes": size,
        "created_at": int(time.time()),
        "filename": name,
        "purpose": purpose,
        "status": "processed",
    }


def new_batch(
    id: str, input_file_id: str, endpoint: str, window: str, metadata: dict[str, str] | None, space: str = ""
) -> dict[str, Any]:
    """OpenAI's object for a new batch; raises ValueError if `window` is not one of WINDOWS."""
    if window not in WINDOWS:
        raise ValueError(f"the completion window must be one of {', '.join(WINDOWS)}")
    now = int(time.time())
    return {
        "id": id,
        "object": "batch",
        "endpoint": endpoint,
        "errors": None,
        "input_file_id": input_file_id,
        "completion_window": window,
        "status": "validating",
        "output_file_id": None,
        "error_file_id": None,
        "created_at": now,
        "expires_at": now + WINDOWS[window],
        **{f"{status}_at": None for status in MOMENTS},
        "request_counts": {"total": 0, "completed": 0, "failed": 0},
        "metadata": metadata,
        **({"embedding_space": space} if space else {}),
    }


@dataclass
class Progress:
    """How far the work on a batch has come, so that another process can continue it."""

    read: int = 0  # bytes of the input whose results are in the two part files
    output_bytes: int = 0  # of the part with results
    error_bytes: int = 0  # of the part with failed lines
    expired: int = 0  # lines that got no answer in time
    ending: str | None = None  # the status it is about to get; the results are complete
    output_file_id: str | None = None  # ids of the files that the parts become
    error_file_id: str | None = None


@dataclass
class Record:
    """A batch as it is on disk."""

    batch: dict[str, Any]  # OpenAI's object
    progress: Progress = field(default_factory=Progress)

    @property
    def finished(self) -> bool:
        return self.batch["status"] in FINISHED

    def become(self, status: str) -> None:
        self.batch["status"] = status
        self.batch[f"{status}_at"] = int(time.time())

    def as_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @staticmethod
    def from_json(content: bytes) -> "Record":
        """Raises ValueError, KeyError or TypeError if `content` was not written by `as_json`."""
        found = json.loads(content)
        return Record(found["batch"], Progress(**found["progress"]))
