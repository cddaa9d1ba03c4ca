"""The command `bge-m3` of the installed package: `serve`, and what the flask command has."""

import click
from flask.cli import ScriptInfo

from app import __version__, create_app
from app.cli import model
from app.cli.embed import embed
from app.cli.serve import serve
from app.config import ConfigError, set_default
from app.folders import ENCODER, cache_folder, find_model, models_folder


def _create_app() -> object:
    try:
        return create_app()
    except ConfigError as error:
        raise click.ClickException(str(error)) from error


# Those with a context of the application make it only when they run.
INFO = ScriptInfo(create_app=_create_app, set_debug_flag=False)  # type: ignore[arg-type]


@click.group(context_settings={"obj": INFO, "help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="bge-m3")
@click.pass_context
def main(context: click.Context) -> None:
    """Turn text into BGE-M3 embeddings on CPUs."""
    set_default("EMBED_CACHE_DIR", cache_folder())
    if context.invoked_subcommand != "serve":  # which offers to make a model
        set_default("EMBED_MODEL_PATH", find_model() or models_folder() / ENCODER)


for command in (serve, model, embed):
    main.add_command(command)
