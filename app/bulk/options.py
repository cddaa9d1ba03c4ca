"""The options for embedding a corpus, and what is recorded about the result."""

import json
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from app.bulk.errors import BulkError
from app.engine.embeddings import (
    Chunking,
    Output,
    Pooling,
)
from app.engine.errors import ChunkOutOfRange, LateNeedsMean

OnError = Literal["null", "skip", "fail"]


@dataclass(frozen=True)
class Options:
    """Everything that changes the output."""

    outputs: tuple[Output, ...]
    encoding: str  # of dense and multi-vectors: float32, float16, int8, binary, ubinary
    truncate: bool  # if not, a text that is too long is a fault
    on_error: OnError
    part_rows: int
    limit: int | None
    id_column: str | None
    colbert_pool: int | None = None  # how many tokens share a row of a multi-vector, on average
    chunk: Chunking | None = None  # cut texts of any length into passages, one row each

    @property
    def record(self) -> dict[str, Any]:
        """The options as the manifest has them."""
        record = as_record(self)
        chunk = record.pop("chunk") or {}
        return record | {f"chunk_{name}": chunk.get(name) for name in ("tokens", "overlap", "late")}


@dataclass(frozen=True)
class Cluster:
    """The Ray cluster to use, if the work is not done in this process."""

    address: str | None = None  # None: RAY_ADDRESS, else a cluster on this machine alone
    actors: int | None = None  # at most; None: as many as fit
    cpus: int | None = None  # per actor; None: as many as the smallest node has


@dataclass(frozen=True)
class Model:
    """The model that made the vectors; files of the same space can be searched together."""

    name: str
    space: str  # see app.engine.space
    version: str  # sha256 that changes with the weights
    pooling: Pooling
    precision: str
    engine: str
    width: int
    max_tokens: int


# What `told` says of a model besides its space: it is for people to read, and decides nothing.
DESCRIBED = {"model", "model_version", "pooling", "precision", "engine", "width", "max_tokens"}
UNREAD = ("encrypted", "broken", "only_images", "too_large")  # why a document has no text


@dataclass
class Counts:
    """What became of the source's rows; the counts of several parts can be added."""

    rows: int = 0
    passages: int = 0  # that have vectors, if the texts were cut into passages
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
    reused: int = 0  # rows whose vectors come from an earlier output

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
    """How to cut texts; 0 `tokens` and no `overlap` mean the defaults. Raises BulkError if out of range."""
    if late and model.pooling != "mean":
        raise BulkError(str(LateNeedsMean()))
    try:
        return Chunking.of(model.max_tokens, tokens or None, overlap, late)
    except ChunkOutOfRange as error:
        if error.name == "overlap":
            raise BulkError(
                f"--overlap takes at most half of a passage, {error.most} tokens, not {overlap}"
            ) from None
        raise BulkError(
            f"--chunk takes {error.least} to {error.most} tokens with this model, not {tokens}"
        ) from None


def metadata(model: Model, options: Options) -> dict[str, str]:
    """Metadata for every file's schema: a JSON object under `embedding` that describes the vectors."""
    found = {**told(model), "outputs": options.outputs, "encoding": options.encoding}
    if options.colbert_pool:
        found["colbert_pool"] = options.colbert_pool
    if options.chunk:
        found["chunk"] = asdict(options.chunk)
    return {"embedding": json.dumps(found)}


def told(model: Model) -> dict[str, Any]:
    """The model as files describe it."""
    record = as_record(model)
    return {
        "model": record.pop("name"),
        "embedding_space": record.pop("space"),
        "model_version": record.pop("version"),
        **record,
    }


def as_record(value: Any) -> dict[str, Any]:
    """A data class as plain values, as they are when read back from JSON."""
    record: dict[str, Any] = json.loads(json.dumps(asdict(value)))
    return record
