"""`flask embed`: a whole corpus, here or on a Ray cluster."""

import codecs
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import click
from flask import current_app
from flask.cli import with_appcontext

from app.cli.report import begin
from app.config import Settings
from app.engine.backends import Place, choose
from app.engine.checkpoint import read_checkpoint
from app.engine.embeddings import CHUNK_TOKENS, POOL_FACTORS, Output, Pooling
from app.engine.encoder import EncoderSettings
from app.engine.errors import EngineError
from app.folders import requirements

if TYPE_CHECKING:
    from app.bulk.options import Counts

log = logging.getLogger(__name__)

# Exit statuses beside 0, 1 for an error and 2 for a wrong command line.
INCOMPLETE = 3  # all is written, but rows are without a vector
STOPPED = 130  # as shells have it for Ctrl-C
DEFAULT = 0  # tokens of a passage: as many as is usual


NUMBERS = ("float32", "float16", "int8", "binary", "ubinary")


class _Encodings(NamedTuple):
    numbers: str  # in vectors
    characters: str | None  # in files; None: found out


def _outputs(context: click.Context, parameter: click.Parameter, value: str) -> tuple[Output, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in value.split(",")))
    if wrong := [name for name in names if name not in get_args(Output)]:
        raise click.BadParameter(f"{wrong[0]!r} is not one of {', '.join(get_args(Output))}")
    return tuple(output for output in get_args(Output) if output in names)


def _encodings(context: click.Context, parameter: click.Parameter, values: tuple[str, ...]) -> _Encodings:
    """Names of both kinds: no encoding of characters is called as one of numbers is."""
    numbers = [value for value in values if value in NUMBERS]
    characters = [value for value in values if value not in NUMBERS]
    for value in characters:
        try:
            # Where a line ends must be seen without reading all that is before.
            if "\n".encode(value).strip(b"\0\xef\xbb\xbf\xfe\xff") != b"\n":
                raise LookupError
            b"\xff".decode(value, "replace")
        except (LookupError, ValueError):
            raise click.BadParameter(
                f"{value!r} is neither {', '.join(NUMBERS)}, for numbers, nor an encoding of characters "
                "such as cp1252, utf-16, shift_jis"
            ) from None
    if len(numbers) > 1 or len(characters) > 1:
        raise click.BadParameter("give at most one for numbers and one for characters")
    names = [codecs.lookup(value).name.removesuffix("-sig") for value in characters]
    return _Encodings(next(iter(numbers), "float32"), next(iter(names), None))


def _delimiter(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    value = "\t" if value in ("tab", "\\t") else value
    if value is not None and (len(value) != 1 or value in '"\r\n\0'):
        raise click.BadParameter("must be one character, or tab")
    return value


def _tokens(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    if value and not (value.isascii() and value.isdecimal()):
        raise click.BadParameter(
            f"{value!r} is not a number of tokens: to give none, put --chunk after SOURCE"
        )
    if value and (len(value) > 9 or not int(value)):
        raise click.BadParameter(
            f"a passage cannot have {value[:12]} tokens: leave the number out for {CHUNK_TOKENS}"
        )
    return None if value is None else int(value or DEFAULT)


@click.command()
@click.argument("source")
@click.option("--out", required=True, metavar="DEST", help="Folder for Parquet files, or a .npy file.")
@click.option("--column", help="Column of the texts.  [default: text]")
@click.option("--id-column", help="Column that names a row: in messages, and beside a .npy file.")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["parquet", "jsonl", "csv", "text", "lines", "documents"]),
    help="What SOURCE holds, if its names do not tell; text: one text per file, lines: one text per line, "
    "documents: text, Markdown, HTML and PDF, with their titles.",
)
@click.option("--outputs", default="dense", show_default=True, callback=_outputs, help="dense,sparse,colbert")
@click.option(
    "--encoding",
    "encodings",
    multiple=True,
    callback=_encodings,
    metavar="NAME",
    help="The numbers in vectors: float32, float16, int8, binary or ubinary.  [default: float32]  "
    "Or the characters in SOURCE: cp1252, utf-16, ...  [default: detected]  Can be given for each.",
)
@click.option(
    "--delimiter",
    callback=_delimiter,
    help="The character between columns of CSV, or tab.  [default: detected]",
)
@click.option(
    "--colbert-pool",
    type=click.IntRange(POOL_FACTORS[0], POOL_FACTORS[-1]),
    help="Make multi-vectors so many times shorter: similar tokens share a row.",
)
@click.option(
    "--pooling", type=click.Choice(["mean", "cls"]), help="Of dense vectors.  [default: EMBED_POOLING]"
)
@click.option(
    "--chunk",
    is_flag=False,
    flag_value="",
    callback=_tokens,
    metavar="[TOKENS]",
    help="Cut texts of any length into passages of up to this many tokens (256), one row each. "
    "Without a number, put it after SOURCE.",
)
@click.option(
    "--overlap",
    type=click.IntRange(min=0),
    help="With --chunk: tokens that a passage shares with the one before, at most.  [default: an eighth]",
)
@click.option(
    "--late", is_flag=True, help="With --chunk: pool passages out of one pass over the text (late chunking)."
)
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows.")
@click.option(
    "--truncate/--no-truncate", default=True, show_default=True, help="Cut texts that are too long."
)
@click.option(
    "--on-error",
    type=click.Choice(["null", "skip", "fail"]),
    default="null",
    show_default=True,
    help="What to do with a row that has no text to embed.",
)
@click.option(
    "--part-rows",
    type=click.IntRange(min=1),
    default=2048,
    show_default=True,
    help="Rows per file. If it is killed, the work on at most two files is lost.",
)
@click.option(
    "--reuse",
    metavar="OLD",
    help="Folder of an earlier output: rows whose text is in it take their vectors from there; "
    "with --chunk documents.",
)
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="",
    metavar="[ADDRESS]",
    help="On a Ray cluster; without an address RAY_ADDRESS, else this machine alone. Put it last.",
)
@click.option("--actors", type=click.IntRange(min=1), help="With --ray: the most encoders to run.")
@click.option("--cpus", type=click.IntRange(min=1), help="With --ray: processors for each encoder.")
@with_appcontext
def embed(
    source: str,
    out: str,
    column: str | None,
    kind: str | None,
    encodings: _Encodings,
    delimiter: str | None,
    chunk: int | None,
    overlap: int | None,
    late: bool,
    pooling: Pooling | None,
    reuse: str | None,
    address: str | None,
    actors: int | None,
    cpus: int | None,
    **asked: Any,
) -> None:
    """Embed a corpus: Parquet, JSON Lines, CSV, a folder or glob of text, Markdown, HTML and PDF files,
    or - for standard input.

    If it is interrupted, the same command continues where it stopped. Exit status 0: every row has its
    vectors, 3: some rows have none, 1: it failed, and a sentence says why.
    """
    if chunk is None and (overlap is not None or late):
        raise click.UsageError("--overlap and --late say how to cut passages: give --chunk too")
    try:
        from app.bulk.errors import BulkError, Stopped
        from app.bulk.options import Cluster, Model, Options, chunking
        from app.bulk.run import Reading, Request, embed_corpus
    except ImportError as error:
        raise click.ClickException(
            f"embedding a corpus needs more libraries ({error}): {requirements('bulk')}"
        ) from error
    begin()
    settings: Settings = current_app.config["EMBED"]
    served: EncoderSettings = current_app.extensions["encoder"].settings
    try:
        checkpoint = read_checkpoint(served.path)
        # What `auto` means here, so that it means the same on every node.
        place = Place(served.cache, instructions=served.instructions)
        chosen = choose(checkpoint, served.engine, served.precision, place)
        if chosen.auto:
            log.info("%s", chosen.told)
        # No queue of strangers here: what the server limits, a corpus may have.
        encoder = replace(
            served,
            path=served.path.absolute(),  # the nodes of a cluster run elsewhere
            cache=served.cache and served.cache.absolute(),
            pooling=pooling or served.pooling,
            precision=chosen.precision,
            throughput=True,
            max_waiting=None,
            timeout=None,
            cache_texts=0,
        )
        info = checkpoint.info(
            min(checkpoint.max_tokens, encoder.max_tokens), encoder.pooling, chosen.engine, chosen.precision
        )
        model = Model(
            name=settings.served_name,
            version=info.digest,
            pooling=info.pooling,
            precision=info.precision,
            engine=info.engine,
            width=info.width,
            max_tokens=info.max_tokens,
        )
        cluster = None if address is None else Cluster(address or None, actors, cpus)
        passages = None if chunk is None else chunking(chunk, overlap, late, model)
        options = Options(encoding=encodings.numbers, chunk=passages, **asked)
        reading = Reading(column, kind, encodings.characters, delimiter)
        request = Request(source, out, reading, options, cluster, reuse)
        counts = embed_corpus(request, encoder, checkpoint, model, sys.stdin.buffer)
    except (Stopped, KeyboardInterrupt):
        click.echo(str(Stopped()), err=True)
        sys.exit(STOPPED)
    except (BulkError, EngineError) as error:
        raise click.ClickException(str(error)) from error
    click.echo(_summary(counts, out, chunk is not None))
    sys.exit(INCOMPLETE if counts.faults else 0)


def _summary(counts: "Counts", out: str, chunked: bool) -> str:
    from app.bulk.progress import counted

    without = ", ".join(f"{count} {reason}" for reason, count in counts.faults.items())
    cut = f", {counted(counts.truncated, 'text')} cut" if counts.truncated else ""
    reused = f", {counts.reused} of them reused" if counts.reused else ""
    rows = counted(counts.rows, "row")
    if chunked:
        reused = f", {counts.reused} of the documents reused" if counts.reused else ""
        rows = f"{counted(counts.rows, 'document')}, {counted(counts.passages, 'passage')}"
    return f"{out}: {rows}{reused}, without a vector: {without or 'none'}{cut}"
