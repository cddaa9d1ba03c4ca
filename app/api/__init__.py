"""Upper floor: HTTP. Knows Flask and marshmallow; no torch, no OpenVINO, no model files in here."""

from flask import Flask

from app.api import (
    admission,
    answer,
    auth,
    body,
    docs,
    embed,
    errors,
    health,
    metrics,
    ollama,
    openai,
    page,
    requests,
    rerank,
    tei,
)
from app.config import Settings


def init_app(app: Flask, version: str) -> None:
    """Register every endpoint, the error table and the documentation made from both."""
    settings: Settings = app.config["EMBED"]
    app.config["VERSION"] = version
    answer.init_app(app)
    body.init_app(app)
    errors.init_app(app)
    requests.init_app(app)  # before who may in: a refused request has an id and a line too
    auth.init_app(app, settings.keys, settings.cors_origins)
    admission.init_app(app)  # after: who may not come in does not learn how busy it is
    for room in (page, embed, ollama, openai, tei, rerank, health, metrics):
        app.register_blueprint(room.bp)
    docs.init_app(app, version)  # last: it documents what is registered
