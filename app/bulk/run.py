"""An embedding of a corpus from the source to the last file."""

import filecmp
import logging
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from app.bulk.destination import Destination
from app.bulk.errors import BulkError
from app.bulk.formats import Part
from app.bulk.local import embed_here
from app.bulk.matrix import write_matrix
from app.bulk.options import Counts, Model, Options, as_record, told
from app.bulk.progress import Progress, duration
from app.bulk.source import find_source
from app.bulk.work import Work
from app.engine.checkpoint import Checkpoint
from app.engine.encoder import Encoder, EncoderSettings
from app.engine.errors import MissingHead

log = logging.getLogger(__name__)

SPOOL = "_stdin"


@dataclass(frozen=True)
class Cluster:
    """Where else to do it."""

    address: str | None
    actors: int | None
    cpus: int | None


@dataclass(frozen=True)
class Request:
    """What the command line says."""

    source: str  # `-`: standard input
    out: str
    column: str | None
    format: str | None
    options: Options
    cluster: Cluster | None


def embed_corpus(
    request: Request, settings: EncoderSettings, checkpoint: Checkpoint, model: Model, stdin: BinaryIO
) -> Counts:
    """Do it, or what is left of it; the counts of all rows. BulkError says what stopped it."""
    for output in request.options.outputs:
        if output != "dense" and output not in checkpoint.heads:
            raise BulkError(str(MissingHead(output)))
    target = Path(request.out) if request.out.endswith(".npy") else None
    if target is not None:
        _check_matrix(target, request.options)
    folder = f"{request.out}.parts" if target is not None else request.out
    place, kind = (
        (_spool(stdin, folder, request.format)) if request.source == "-" else (request.source, request.format)
    )

    source = find_source(place, request.column, kind)
    destination = Destination(folder)
    work = Work(source, destination, request.options, model)
    manifest = {
        "source": source.fingerprint,
        "column": source.column,
        **as_record(request.options),
        **told(model),
    }
    parts = list(source.parts(request.options.part_rows, request.options.limit))
    destination.begin(manifest)
    done = destination.done()
    todo = [part for part in parts if part.name not in done]
    log.info("%d rows in %d parts, %d parts are there", sum(p.rows for p in parts), len(parts), len(done))

    total = destination.counts(done)
    if todo:
        total.add(_embed(work, settings, todo, parts, request.cluster))
    destination.end({"rows": total.rows, **as_record(total)})
    if request.source == "-":
        Path(place).unlink(missing_ok=True)
    if target is not None:
        options = request.options
        width = work.schema.field("dense").type.list_size
        write_matrix(Path(folder), target, width, options.encoding, options.id_column)
        shutil.rmtree(folder)
    return total


def _embed(
    work: Work, settings: EncoderSettings, todo: list[Part], parts: list[Part], cluster: Cluster | None
) -> Counts:
    rows, left = (sum(part.rows for part in some) for some in (parts, todo))
    progress = Progress(rows, rows - left)
    if cluster is not None:
        from app.bulk.cluster import embed_there

        with progress:
            found = embed_there(work, settings, todo, progress, cluster.address, cluster.actors, cluster.cpus)
    else:
        encoder = Encoder(settings, watch=progress.watch)
        encoder.load()
        try:
            with progress:
                found = embed_here(work, encoder, todo, progress)
        finally:
            encoder.close()
    seconds = progress.seconds
    log.info(
        "%d rows and %d tokens in %s: %.1f texts/s, %.0f tokens/s%s",
        found.rows,
        found.tokens,
        duration(seconds),
        found.rows / seconds,
        found.tokens / seconds,
        f", {progress.padding:.1%} padding" if progress.padded else "",
    )
    return found


def _check_matrix(target: Path, options: Options) -> None:
    if options.outputs != ("dense",):
        raise BulkError("a .npy file holds dense vectors and nothing else, --outputs must be dense")
    if target.exists():
        raise BulkError(f"{target} is there already, delete it or give another --out")


def _spool(stdin: BinaryIO, folder: str, kind: str | None) -> tuple[str, str]:
    """Standard input as a file, so that it can be looked at before and gone back to; and its format."""
    if "://" in folder:
        raise BulkError("standard input can only be embedded into a folder of this machine")
    spool, fresh = Path(folder) / SPOOL, Path(folder) / f".{SPOOL}"
    try:
        fresh.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as file:
            shutil.copyfileobj(stdin, file, 1 << 20)
        if spool.exists() and filecmp.cmp(spool, fresh, shallow=False):
            fresh.unlink()
        else:
            os.replace(fresh, spool)
        with spool.open("rb") as file:
            first = file.readline(1 << 20)
    except OSError as error:
        raise BulkError(f"{spool} cannot be written: {error}") from error
    guess = (
        "parquet" if first.startswith(b"PAR1") else "jsonl" if first.lstrip().startswith(b"{") else "lines"
    )
    if kind is None:
        log.info("standard input is taken as %s", guess)
    return str(spool), kind or guess
