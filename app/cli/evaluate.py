"""`flask model evaluate`: retrieval by language, and what a precision costs there."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import click
from flask import current_app
from flask.cli import with_appcontext

from app.cli.report import told_loss
from app.config import Settings
from app.engine.backends import Place, choose, exporter_for
from app.engine.checkpoint import Checkpoint, read_checkpoint
from app.engine.embeddings import Precision
from app.engine.encoder import EncoderSettings
from app.engine.errors import EngineError, ModelError
from app.engine.export import find_export
from app.engine.processor import kind_of
from app.folders import EVALUATION_DATA, no_data, no_model

STOPPED = 130  # as shells have it for Ctrl-C
ROWS = 15  # of a table, unless all are asked for


def _names(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (value or "").split(",") if name.strip())


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), required=False)
@click.option(
    "--precision",
    "precisions",
    type=click.Choice([name for name in get_args(Precision) if name != "fp32"]),
    multiple=True,
    default=["int8"],
    show_default=True,
    help="What to compare with fp32; can be given several times.",
)
@click.option(
    "--languages",
    callback=_names,
    metavar="en,yo,...",
    help="Only queries in these, by their BCP 47 tags.  [default: all]",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help='A folder with .jsonl files of {"query", "passage", "language"}, or in BEIR\'s layout.  '
    "[default: the parallel texts that make evaluation-data fetches]",
)
@click.option(
    "--qrels",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Judgements for --data in BEIR's layout, in TREC's or BEIR's format.  [default: its qrels/test.tsv]",
)
@click.option(
    "--all", "whole", is_flag=True, help="All texts instead of a sample, and all rows of the tables."
)
@click.option("--pairs", is_flag=True, help="Print pairs of languages too.")
@with_appcontext
def evaluate(
    folder: Path | None,
    precisions: tuple[Precision, ...],
    languages: tuple[str, ...],
    data: Path | None,
    qrels: Path | None,
    whole: bool,
    pairs: bool,
) -> None:
    """Measure retrieval across languages in fp32 and in other precisions, the worst language first.

    FOLDER is the model's; without it the one in EMBED_MODEL_PATH. Nothing is kept if it is interrupted.
    """
    try:
        from app.evaluation.data import read_folder
        from app.evaluation.errors import EvaluationError
        from app.evaluation.run import compare_precisions
    except ImportError as error:
        raise click.ClickException(
            f"an evaluation needs {error.name}, which is not installed here: run flask model evaluate with "
            "the full image or installation"
        ) from error
    settings: Settings = current_app.config["EMBED"]
    served: EncoderSettings = current_app.extensions["encoder"].settings
    wanted = folder or settings.model_path
    if not wanted.exists():
        raise click.ClickException(no_model(wanted))
    if qrels and not data:
        raise click.UsageError("--qrels judges the queries of --data: give --data too")
    precisions = tuple(dict.fromkeys(precisions))
    data = data or EVALUATION_DATA
    if not data.is_dir():
        raise click.ClickException(no_data(data))
    try:
        checkpoint = read_checkpoint(wanted)
        place = Place(served.cache, served.threads, instructions=served.instructions)
        for precision in precisions:
            _check(checkpoint, served, precision, place)
        collections = read_folder(data, qrels, languages, whole)
        # No queue of strangers here: what the server limits, an evaluation may have.
        encoder = replace(served, path=wanted, throughput=True, max_waiting=None, timeout=None, cache_texts=0)
        found = compare_precisions(collections, encoder, precisions)
    except KeyboardInterrupt:
        click.echo("stopped; nothing was kept", err=True)
        sys.exit(STOPPED)
    except (EvaluationError, EngineError) as error:
        raise click.ClickException(str(error)) from error
    for precision, records in found.items():
        for name, record in records.items():
            click.echo("\n".join(_table(name, record, precision, None if whole else ROWS)))
            if pairs:
                click.echo("\n".join(_pairs(record, precision)))
            click.echo()
        if languages:
            click.echo("not kept, because it is of some languages only", err=True)
        else:
            _keep(checkpoint, served, precision, place, records)


def _check(checkpoint: Checkpoint, served: EncoderSettings, precision: Precision, place: Place) -> None:
    """Raise ModelError if the precision cannot run here."""
    chosen = choose(checkpoint, served.engine, precision, place)
    if chosen.precision != precision:
        raise ModelError(f"{precision} cannot be evaluated here: {chosen.reason or chosen.better}")


def _keep(
    checkpoint: Checkpoint,
    served: EncoderSettings,
    precision: Precision,
    place: Place,
    records: dict[str, Any],
) -> None:
    from app.evaluation.kept import keep

    chosen = choose(checkpoint, served.engine, precision, place)
    export = find_export(checkpoint, exporter_for(chosen.engine), precision, served.cache)
    if export is None:
        return
    try:
        file = keep(export, kind_of(place.features), precision, served.pooling, records)
        click.echo(f"kept in {file}", err=True)
    except OSError as error:
        click.echo(f"not kept, because {export} cannot be written: {error.strerror}", err=True)


def _table(name: str, record: dict[str, Any], precision: Precision, rows: int | None) -> Iterator[str]:
    """A row for each language, in percent; losses in points."""
    from app.evaluation.compare import KNOWN, MOST, is_known

    languages: dict[str, Any] = record["languages"]
    summary = record["summary"]
    yield f"{name}: {record['sample']}"
    yield _row("language", "recall@1", "loss (95 % interval)", "recall@10", "loss", "nDCG@10", "loss")
    for language, found in list(languages.items())[:rows]:
        first, ten, gain = (found[metric] for metric in ("recall@1", "recall@10", "ndcg@10"))
        low, high = first["interval"]
        yield _row(
            language if is_known(found) else f"{language} *",
            _both(first),
            f"{first['loss']:.2f} ({low:.2f} to {high:.2f})",
            _both(ten),
            f"{ten['loss']:.2f}",
            _both(gain),
            f"{gain['loss']:.2f}",
        )
    if rows is not None and len(languages) > rows:
        yield f"... and {len(languages) - rows} more languages: --all prints them"
    if unknown := sum(not is_known(found) for found in languages.values()):
        yield f"* fp32 finds less than {KNOWN:.0f} % of {unknown} languages first: they do not count below"
    if summary:
        yield f"{precision} loses {told_loss(summary)}"
        if summary["languages"] > ROWS:
            yield f"{MOST} % of {summary['languages']} languages lose {summary['most_loss']} points or less"


def _pairs(record: dict[str, Any], precision: Precision) -> Iterator[str]:
    """A row for each pair of languages, the largest loss of recall@1 first."""
    found = [
        (f"{language} in {into}", metrics)
        for language, of in record["pairs"].items()
        for into, metrics in of.items()
    ]
    yield _row("pair", "recall@1", "loss", "recall@10", "loss", "nDCG@10", "loss")
    for name, metrics in sorted(found, key=lambda pair: pair[1]["recall@1"][1] - pair[1]["recall@1"][0]):
        cells: list[str] = []
        for exact, here in metrics.values():
            cells += [f"{exact:.1f} -> {here:.1f}", f"{exact - here:.2f}"]
        yield _row(name, *cells)


def _both(metric: dict[str, Any]) -> str:
    return f"{metric['fp32']:.1f} -> {metric['here']:.1f}"


def _row(name: str, *cells: str) -> str:
    widths: Sequence[int] = (15, 22, 15, 7, 15, 7)
    return f"{name:<16}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
