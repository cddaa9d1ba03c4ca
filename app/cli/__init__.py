"""`flask model ...`: get a model folder, prepare it, look into it. `flask embed`: a whole corpus."""

from pathlib import Path
from typing import get_args

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from app.cli.embed import embed
from app.cli.evaluate import evaluate
from app.cli.report import begin, place_of, rows, told
from app.config import Settings
from app.engine.backends import AskedPrecision
from app.engine.checkpoint import read_checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError
from app.engine.prepare import compare, prepare
from app.folders import models_folder, no_model

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.group(cls=AppGroup)
def model() -> None:
    """Get a model folder, prepare it, look into it."""
    begin()


model.add_command(evaluate)


def init_app(app: Flask) -> None:
    app.cli.add_command(model)
    app.cli.add_command(embed)


def _meant(word: str | None, folder: Path | None, names: tuple[str, ...]) -> tuple[str, Path | None]:
    """Which of `names` is meant, and the folder: `word` may be either, and without a name the first is."""
    if word in names:
        return word, folder
    if folder is not None:
        raise click.UsageError(f"{word!r} is not one of {', '.join(names)}")
    return names[0], FOLDER(word) if word else None


@model.command()
@click.argument("name", metavar="[bge-m3|reranker]", required=False)
@click.argument("folder", type=FOLDER, required=False)
def download(name: str | None, folder: Path | None) -> None:
    """Download BAAI/bge-m3, or the reranker BAAI/bge-reranker-v2-m3, into FOLDER.

    An interrupted download continues where it stopped. Each model has 2.3 GB. Set HF_ENDPOINT to use a
    mirror, HF_TOKEN to send a token.
    """
    from app.cli.download import DownloadError, fetch
    from app.cli.hub import BGE_M3, BGE_RERANKER

    known = {"bge-m3": BGE_M3, "reranker": BGE_RERANKER, BGE_RERANKER.name: BGE_RERANKER}
    name, folder = _meant(name, folder, tuple(known))
    folder = folder or models_folder() / known[name].name
    try:
        fetch(known[name], folder)
    except DownloadError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{folder} is complete: every file has the expected sha256")
    settings: Settings = current_app.config["EMBED"]
    _export(folder, settings.precision)


@model.command()
@click.argument("name", metavar="[encoder|reranker]", required=False)
@click.argument("folder", type=FOLDER, required=False)
def demo(name: str | None, folder: Path | None) -> None:
    """Make a small real model in FOLDER: a multilingual encoder, or a reranker for English.

    Their weights are in the packages that requirements-demo.txt and requirements-demo-reranker.txt name.
    """
    from app.cli.demo import ENCODER, RERANKER
    from app.cli.demo.folder import DemoError

    known = {"encoder": ENCODER, "reranker": RERANKER}
    name, folder = _meant(name, folder, tuple(known))
    folder = folder or models_folder() / known[name].name
    if (folder / "config.json").is_file():
        click.echo(f"{folder} exists already: nothing to do")
        return
    click.echo(f"making {folder}, {known[name].about}")
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
    help="auto: what this processor runs by default, and int8 for comparison.",
)
def export(folder: Path | None, precision: AskedPrecision) -> None:
    """Convert FOLDER's weights for this machine's engine, and measure 8-bit weights against fp32."""
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
            click.echo(f"for comparison: int8{told(int8)}")
    except ModelError as error:
        raise click.ClickException(str(error)) from error


@model.command()
@click.argument("folder", type=FOLDER, required=False)
def info(folder: Path | None) -> None:
    """Describe the model in FOLDER, an encoder or a reranker; without FOLDER the one in EMBED_MODEL_PATH."""
    settings: Settings = current_app.config["EMBED"]
    wanted = folder or settings.model_path
    if not wanted.exists():
        raise click.ClickException(no_model(wanted))
    try:
        table = rows(read_checkpoint(wanted), settings)
    except ModelError as error:
        raise click.ClickException(str(error)) from error
    for name, value in table.items():
        click.echo(f"{name:<13} {value}")
