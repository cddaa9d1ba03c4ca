"""`bge-m3 serve`: the server, and first the demo model where there is none."""

import os
import sys
from pathlib import Path

import click

from app.cli import FOLDER, demo
from app.config import set_default
from app.folders import DEMO, find_model, models_folder

NO_MODEL = (
    "there is no model yet: `bge-m3 serve --demo` makes a small demo model and serves it, "
    "`bge-m3 model download` downloads BGE-M3 (2.3 GB)"
)
OFFER = (
    "There is no model yet. `bge-m3 model download` downloads BGE-M3 (2.3 GB).\n"
    f"Make and serve a small demo model now ({DEMO}, 1.2 GB of disk, a minute or two)?"
)


@click.command()
@click.option(
    "--host", metavar="ADDRESS", help="Where to listen; 0.0.0.0 lets others in.  [default: 127.0.0.1]"
)
@click.option("--port", type=click.IntRange(1, 65535), help="[default: 8000]")
@click.option("--model", "folder", type=FOLDER, envvar="EMBED_MODEL_PATH", help="The model folder.")
@click.option(
    "--demo", "wants_demo", is_flag=True, help="Serve the small demo model; make it first if need be."
)
@click.pass_context
def serve(
    context: click.Context, host: str | None, port: int | None, folder: Path | None, wants_demo: bool
) -> None:
    """Serve the model in --model, else BGE-M3 or the demo model, whichever is there.

    Settings are environment variables, as the documentation lists them. GUNICORN_CMD_ARGS takes Gunicorn's
    own flags, such as --workers 2.
    """
    if folder and wants_demo:
        raise click.UsageError("give --model or --demo, not both")
    chosen = folder or _demo(context, wants_demo)
    set_default("EMBED_MODEL_PATH", chosen, override=True)
    flags = []
    if host or port:
        host = host or "127.0.0.1"
        flags = ["--bind", f"{f'[{host}]' if ':' in host else host}:{port or 8000}"]
    # In a process of its own, whose master imports as little as possible. -P: an `app` in the current folder
    # is another one.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-P", "-m", "app.server.run", *flags])


def _demo(context: click.Context, wanted: bool) -> Path:
    """A model that is there, or the demo model, made where somebody wants it."""
    found = None if wanted else find_model()
    if found:
        return found
    made = models_folder() / DEMO
    if not (made / "config.json").is_file():
        if not wanted and not sys.stdin.isatty():
            raise click.ClickException(NO_MODEL)
        if not wanted and not click.confirm(OFFER, default=True):
            raise click.ClickException("no model, nothing to serve")
        context.invoke(demo, name="encoder", folder=made)
    return made
