"""What is asked of an embedding of a corpus, and what is written down about it."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from app.bulk.errors import BulkError
from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import (
    Chunking,
    Output,
    Pooling,
)
from app.engine.errors import ChunkOutOfRange, LateNeedsMean

OnError = Literal["null", "skip", "fail"]


@dataclass(frozen=True)
class Options:
    """Whatever changes what is written."""

    outputs: tuple[Output, ...]
    encoding: str  # of dense and multi-vectors: float32, float16, int8, binary, ubinary
    truncate: bool  # else a text that is too long is a fault
    on_error: OnError
    part_rows: int
    limit: int | None
    id_column: str | None
    colbert_pool: int | None = None  # tokens that share a row of a multi-vector, on average
    chunk: Chunking | None = None  # texts of any length are cut into passages, and each is a row

    @property
    def record(self) -> dict[str, Any]:
        """For the manifest."""
        record = as_record(self)
        chunk = record.pop("chunk") or {}
        return record | {f"chunk_{name}": chunk.get(name) for name in ("tokens", "overlap", "late")}


@dataclass(frozen=True)
class Cluster:
    """Where to do it, if not in this process."""

    address: str | None = None  # None: RAY_ADDRESS, else a cluster on this machine alone
    actors: int | None = None  # at most; None: as many as there is room for
    cpus: int | None = None  # of each actor; None: those of the smallest node


@dataclass(frozen=True)
class Model:
    """What the vectors come from; two files with the same can be searched together."""

    name: str
    version: str  # sha256 that changes with the weights
    pooling: Pooling
    precision: str
    engine: str
    width: int
    max_tokens: int

    def check(self, found: Checkpoint, where: str) -> None:
        """BulkError unless the model folder at `where` holds the same weights."""
        if found.fingerprint != self.version:
            raise BulkError(
                f"the model on {where} has the version {found.fingerprint[:12]}, "
                f"here it is {self.version[:12]}: copy the same model folder to every node"
            )


UNREAD = ("encrypted", "broken", "only_images", "too_large")  # documents that have no text


@dataclass
class Counts:
    """What became of rows of the source; those of several parts add up."""

    rows: int = 0
    passages: int = 0  # with vectors, where the texts were cut into some
    null: int = 0
    empty: int = 0
    not_text: int = 0
    malformed: int = 0
    too_long: int = 0
    not_finite: int = 0
    encrypted: int = 0
    broken: int = 0
    only_images: int = 0
    too_large: int = 0
    truncated: int = 0
    tokens: int = 0  # that were computed
    reused: int = 0  # whose vectors are from an earlier output

    def add(self, other: "Counts") -> None:
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    @property
    def unseen(self) -> int:
        """Rows that were never given to the encoder."""
        unread: int = sum(getattr(self, name) for name in UNREAD)
        return self.null + self.empty + self.not_text + self.malformed + unread + self.reused

    @property
    def faults(self) -> dict[str, int]:
        """How many rows have no vector, by reason."""
        names = ("null", "empty", "not_text", "malformed", "too_long", "not_finite", *UNREAD)
        return {name.replace("_", " "): count for name in names if (count := getattr(self, name))}


def chunking(tokens: int, overlap: int | None, late: bool, model: Model) -> Chunking:
    """How to cut; 0 `tokens` and no `overlap` mean the usual ones. BulkError for what cannot be."""
    if late and model.pooling != "mean":
        raise BulkError(str(LateNeedsMean()))
    try:
        return Chunking.of(model.max_tokens, tokens or None, overlap, late)
    except ChunkOutOfRange as error:
        if error.name == "overlap":
            raise BulkError(
                f"--overlap takes up to half of a passage, {error.most} tokens, not {overlap}"
            ) from None
        raise BulkError(
            f"--chunk takes {error.least} to {error.most} tokens with this model, not {tokens}"
        ) from None


def metadata(model: Model, options: Options) -> dict[str, str]:
    """For the schema of every file: what its vectors are, as one JSON object under `embedding`."""
    found = {**told(model), "outputs": options.outputs, "encoding": options.encoding}
    if options.colbert_pool:
        found["colbert_pool"] = options.colbert_pool
    if options.chunk:
        found["chunk"] = asdict(options.chunk)
    return {"embedding": json.dumps(found)}


def told(model: Model) -> dict[str, Any]:
    """The model as files tell of it."""
    record = as_record(model)
    return {"model": record.pop("name"), "model_version": record.pop("version"), **record}


def as_record(value: Any) -> dict[str, Any]:
    """A data class as JSON gives it back."""
    record: dict[str, Any] = json.loads(json.dumps(asdict(value)))
    return record
