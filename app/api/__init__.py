"""Upper floor: HTTP. Knows Flask and marshmallow; no torch, no OpenVINO, no model files in here."""

from flask import Flask

from app.api import docs, embed, errors, health, ollama, openai, rerank, tei, wire


def init_app(app: Flask, version: str) -> None:
    """Register every endpoint, the error table and the documentation made from both."""
    wire.init_app(app)
    errors.init_app(app)
    app.config["VERSION"] = version
    for room in (embed, ollama, openai, tei, rerank, health):
        app.register_blueprint(room.bp)
    docs.init_app(app, version)  # last: it documents what is registered
