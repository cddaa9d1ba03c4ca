"""The door: the application factory, the only room that knows both floors."""

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from flask import Flask

    from app.api.context import Encoder as EncoderLike
    from app.api.context import Reranker as RerankerLike
    from app.config import Settings

__version__ = "0.1.0"


def create_app(
    config: "Settings | None" = None,
    encoder: "EncoderLike | None" = None,
    reranker: "RerankerLike | None" = None,
) -> "Flask":
    """Build the application; no weights are read until somebody calls the encoder's `load`.

    `config` defaults to the environment's settings, `encoder` to one for `config.model_path`, `reranker` to
    one for `config.reranker_path` beside it, or to none.
    Raises ConfigError if a setting in the environment cannot be used.
    """
    # Imported here, because Gunicorn's master, which imports parts of this package, needs none of them; and
    # prometheus-client must not be imported before a worker has its folder, see app.server.counters.
    from flask import Flask

    from app import api, cli
    from app.api.metrics import watch_batch
    from app.config import Settings
    from app.engine.encoder import Encoder, EncoderSettings
    from app.engine.reranker import Reranker, RerankerSettings
    from app.processors import thread_budget

    settings = config or Settings.from_env()
    app = Flask(__name__, static_folder=None)  # flasgger serves app/static, at /assets
    app.config["EMBED"] = settings
    app.extensions["encoder"] = encoder = encoder or Encoder(
        watch=watch_batch,
        settings=EncoderSettings(
            path=settings.model_path,
            max_tokens=settings.max_length,
            pooling=settings.pooling,
            engine=settings.engine,
            precision=settings.precision,
            cache=settings.cache_dir,
            instructions=settings.native_isa,
            max_waiting=settings.queue_tokens,
            timeout=settings.request_timeout,
            cache_texts=settings.cache_texts,
            threads=settings.threads or thread_budget(workers=1),
        ),
    )
    if reranker is None and settings.reranker_path:
        limits = RerankerSettings(settings.reranker_path, settings.reranker_max_length)
        reranker = Reranker(limits, cast(Encoder, encoder))
    app.extensions["reranker"] = reranker
    api.init_app(app, __version__)
    cli.init_app(app)
    return app
