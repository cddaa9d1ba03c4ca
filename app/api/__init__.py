"""Upper floor: HTTP. Knows Flask and marshmallow; no torch, no OpenVINO, no model files in here."""

from flask import Flask

from app.api import (
    admission,
    answer,
    auth,
    body,
    docs,
    errors,
    health,
    metrics,
    page,
    protocols,
    request_log,
    service,
    tracing,
)


def init_app(app: Flask, version: str) -> None:
    """Register every endpoint, the error table and the documentation made from both."""
    app.config["VERSION"] = version
    app.url_map.strict_slashes = False  # a redirect would not have the shape of our errors
    app.extensions["keys"] = auth.Keys(app.config["EMBED"])
    answer.init_app(app)
    body.init_app(app)
    errors.init_app(app)
    tracing.init_app(app)
    request_log.init_app(app)  # before auth, so that requests without a key are logged with an id too
    auth.init_app(app)
    for blueprint in (page.bp, *protocols.found(), health.bp, metrics.bp):
        app.register_blueprint(blueprint)
    docs.init_app(app, version)  # it documents what is registered
    admission.init_app(app)  # last, so that clients without a key cannot tell how busy the server is
    app.extensions["service"] = service.Service(app)
