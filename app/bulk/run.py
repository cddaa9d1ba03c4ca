"""Embeds a corpus, from the source to the last file."""

import logging
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from app.bulk.destination import Destination
from app.bulk.errors import BulkError
from app.bulk.formats import PART_BYTES, PASSAGES_BYTES, Part
from app.bulk.local import embed_here
from app.bulk.matrix import write_matrix
from app.bulk.options import Cluster, Counts, Model, Options, as_record, told
from app.bulk.progress import Progress, counted, duration
from app.bulk.reuse import Earlier
from app.bulk.source import find_source
from app.bulk.spool import spool
from app.bulk.vectors import vector_fields
from app.bulk.work import Work
from app.engine.checkpoint import Checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import MissingHead

log = logging.getLogger(__name__)

# --out may not end like the name of a file, unless a folder with that name exists already.
FILES = (
    *(".parquet", ".pq", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".txt", ".md", ".npz", ".h5", ".hdf5"),
    *(".arrow", ".feather", ".pkl", ".pickle", ".pt", ".bin", ".safetensors", ".xlsx", ".db", ".sqlite"),
    *(".html", ".htm", ".xhtml", ".xml", ".pdf", ".npy"),
    *(".gz", ".bz2", ".zst", ".lz4", ".xz", ".zip", ".tar"),
)


@dataclass(frozen=True)
class Reading:
    """How to read the source; a value of None is detected."""

    column: str | None = None  # that holds the texts
    format: str | None = None
    encoding: str | None = None  # of characters
    delimiter: str | None = None  # of CSV


@dataclass(frozen=True)
class Request:
    """What the command line asks for."""

    source: str  # `-`: standard input
    out: str
    reading: Reading
    options: Options
    cluster: Cluster | None
    reuse: str | None = None  # an earlier output


def embed_corpus(
    request: Request, settings: EncoderSettings, checkpoint: Checkpoint, model: Model, stdin: BinaryIO
) -> Counts:
    """Embed the corpus, or what is left of it; return the counts of all rows. Raises BulkError."""
    for output in request.options.outputs:
        if output != "dense" and output not in checkpoint.heads:
            raise BulkError(str(MissingHead(output)))
    if request.options.colbert_pool and "colbert" not in request.options.outputs:
        raise BulkError(
            "--colbert-pool shortens multi-vectors: add colbert to --outputs, or leave out --colbert-pool"
        )
    _check_name(request.out)
    target = Path(request.out) if request.out.endswith(".npy") else None
    folder = request.out if target is None else f"{request.out}.parts"
    if target is not None:
        _check_matrix(target, Path(folder), request.options)
    if "://" not in folder:
        folder = str(Path(folder).absolute())  # the nodes of a cluster have other working folders
    destination = Destination(folder)
    spooled: Path | None = None
    reading = request.reading
    place, kind = request.source, reading.format
    if place == "-":
        spooled, kind = spool(stdin, folder, kind)
        place = str(spooled)
    try:
        source = find_source(place, reading.column, kind, reading.encoding, reading.delimiter)
        if spooled:  # its name has a hash of its content, so its time does not matter
            source = replace(source, files=(replace(source.files[0], modified=0),))
        work = Work(source, destination, request.options, model)
        size = PASSAGES_BYTES if request.options.chunk else PART_BYTES
        parts = list(source.parts(request.options.part_rows, request.options.limit, size))
        manifest = {
            "source": source.fingerprint,
            "column": source.column,
            "text_encoding": reading.encoding,
            "delimiter": reading.delimiter,
            **request.options.record,
            **told(model),
        }
        if request.reuse:
            work = replace(work, earlier=_earlier(request, manifest, folder, work))
        destination.begin(manifest)
    except BulkError:
        if spooled:
            spooled.unlink(missing_ok=True)
        raise
    done = destination.done()
    todo = [part for part in parts if part.name not in done]
    rows = counted(sum(part.rows for part in parts), "row")
    log.info("%s in %s, %d already done", rows, counted(len(parts), "part"), len(done))
    log.info("the embedding space is %s", model.space)

    total = destination.counts(done)
    if todo:
        total.add(_embed(work, settings, todo, parts, request.cluster))
    destination.end(as_record(total))
    if spooled:
        spooled.unlink(missing_ok=True)
    if target is not None:
        options = request.options
        width = work.schema.field("dense").type.list_size
        write_matrix(Path(folder), target, width, options.encoding, options.id_column, bool(options.chunk))
        old = Path(f"{folder}.old")
        shutil.rmtree(old, ignore_errors=True)
        shutil.rmtree(Path(folder).rename(old))
    return total


def _embed(
    work: Work, settings: EncoderSettings, todo: list[Part], parts: list[Part], cluster: Cluster | None
) -> Counts:
    rows, left = (sum(part.rows for part in some) for some in (parts, todo))
    progress = Progress(rows, rows - left, passages=bool(work.options.chunk))
    if cluster is not None:
        from app.bulk.cluster import embed_there

        with progress:
            found = embed_there(work, settings, todo, progress, cluster)
    else:
        encoder = Encoder(settings, watch=progress.watch)
        try:
            encoder.load()
            with progress:
                found = embed_here(work, encoder, todo, progress)
        finally:
            encoder.close()
    seconds = progress.seconds
    log.info(
        "%s and %s in %s: %.1f texts/s, %.0f tokens/s%s",
        counted(found.rows, "row"),
        counted(found.tokens, "token"),
        duration(seconds),
        found.rows / seconds,
        found.tokens / seconds,
        f", {progress.padding:.1%} padding" if progress.padded else "",
    )
    return found


def _earlier(request: Request, manifest: dict[str, Any], folder: str, work: Work) -> Earlier:
    if request.cluster is not None:
        raise BulkError("--reuse works on one machine: leave out --ray, or --reuse")
    start = time.monotonic()
    earlier = Earlier(str(request.reuse), manifest, folder, vector_fields(work.model, work.options))
    seconds = duration(time.monotonic() - start)
    held = counted(earlier.size, "document" if request.options.chunk else "row")
    log.info("%s: %s to reuse from, read in %s", request.reuse, held, seconds)
    return earlier


def _check_name(out: str) -> None:
    """Raises BulkError for a name that looks like a file's: a folder would get it."""
    if out.endswith(".npy"):
        return
    stem = out.rstrip("/")
    while suffix := next((suffix for suffix in FILES if stem.lower().endswith(suffix)), None):
        stem = stem[: -len(suffix)]
    if stem != out.rstrip("/") and ("://" in out or not Path(out).is_dir()):
        raise BulkError(
            f"{out} looks like a file, but --out makes a folder of Parquet files: use --out {stem}, "
            f"or {stem}.npy for dense vectors in one file"
        )


def _check_matrix(target: Path, parts: Path, options: Options) -> None:
    if options.outputs != ("dense",):
        raise BulkError(
            "a .npy file holds dense vectors only: leave --outputs out, or give a folder for Parquet files"
        )
    if ":/" in str(target):
        raise BulkError("a .npy file can be written on this machine only: give a folder for Parquet files")
    if target.exists() and not parts.exists():  # if both exist, it was killed in between
        raise BulkError(f"{target} already exists: delete it, or give another --out")
