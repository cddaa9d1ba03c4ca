"""Documentation: one OpenAPI document out of the schemas that validate, and two pages to show it."""

import copy
import functools
from pathlib import Path
from typing import Any, cast

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin
from flasgger import Swagger
from flask import Blueprint, Flask, current_app, make_response, render_template
from werkzeug.wrappers import Response

from app.api.auth import opens
from app.api.documented import View, described
from app.api.fields import OwnField
from app.api.protocol import UNAUTHORIZED, Protocol, told
from app.config import Settings

ROOM = Path(__file__).parent.parent
TITLE = "BGE-M3 embeddings"
# Our own endpoints in this order; the other protocols follow by name.
OURS = {
    "Embeddings": "Dense vectors, lexical weights, multi-vectors, and documents cut into passages.",
    "Ranking": "Scores of pairs, and documents in the order of a query.",
    "Health": "For monitors and load balancers.",
}
# How a key is sent, where the server has keys; the first is what every client can.
SCHEMES = {
    "Bearer": {"type": "http", "scheme": "bearer"},
    "X-API-Key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
# Scripts only from this server. Both pages add styles at run time, and ReDoc searches in a worker.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

bp = Blueprint("docs", __name__)


def init_app(app: Flask, version: str) -> None:
    """Serve /apidocs/, /redoc, /docs and the document; call it after all endpoints are registered."""
    app.register_blueprint(bp)
    Swagger(
        app,
        template=openapi(app, version),
        merge=True,
        config={
            "openapi": "3.0.3",
            "title": TITLE,
            # flasgger renders what it is given and adds nothing of its own, neither paths nor
            # its bundled pages, which are old and load fonts from elsewhere.
            "specs": [
                {
                    "endpoint": "apispec_1",
                    "route": "/apispec_1.json",
                    "rule_filter": lambda rule: False,
                    "model_filter": lambda tag: False,
                }
            ],
            "template_folder": str(ROOM / "templates"),
            "static_folder": str(ROOM / "static"),
            "static_url_path": "/assets",
        },
        decorators=[strict],
    )
    # flasgger redirects from /apidocs/index.html, by a view without a name.
    app.view_functions["flasgger.<lambda>"] = app.view_functions["flasgger.apidocs"]


def strict(view: View) -> View:
    """Send a Content-Security-Policy that allows only what these pages use, and no other host."""

    @functools.wraps(view)
    def page(*args: Any, **kwargs: Any) -> Response:
        response = make_response(view(*args, **kwargs))
        response.headers["Content-Security-Policy"] = CSP
        return response

    return cast(View, page)


def openapi(app: Flask, version: str) -> dict[str, Any]:
    """The document of every view that is `documented`, as OpenAPI 3.0.3."""
    settings: Settings = app.config["EMBED"]
    plugin = MarshmallowPlugin()
    locked = bool(app.extensions["keys"])
    spec = APISpec(
        TITLE,
        version,
        "3.0.3",
        plugins=[plugin],
        info={"description": "Turns texts into BGE-M3 embeddings on ordinary CPUs."},
        **({"security": [{name: []} for name in SCHEMES]} if locked else {}),
    )
    for name, scheme in SCHEMES.items() if locked else ():
        spec.components.security_scheme(name, scheme)

    def own_field(converter: Any, field: Any, **_: Any) -> dict[str, Any]:
        return field.openapi(settings.max_texts) if isinstance(field, OwnField) else {}

    plugin.converter.add_attribute_function(own_field)  # type: ignore[union-attr]
    for rule in sorted(app.url_map.iter_rules(), key=lambda rule: rule.rule):
        operation = getattr(app.view_functions[rule.endpoint], "__apispec_doc__", None)
        if operation:
            methods = (rule.methods or set()) - {"HEAD", "OPTIONS"}
            # apispec changes what it is given, and a view is shared by several applications.
            own = copy.deepcopy(operation)
            if locked:
                _lock(app, rule.endpoint, own)
            spec.path(rule.rule, operations={method.lower(): copy.deepcopy(own) for method in methods})
    found = spec.to_dict()
    found["tags"] = _tags(found["paths"])
    for schema in found["components"]["schemas"].values():
        # Required fields first: a class lists the fields it inherits before its own.
        required = schema.get("required", [])
        properties = schema.get("properties", {})
        schema["properties"] = dict(sorted(properties.items(), key=lambda entry: entry[0] not in required))
    return found


def _lock(app: Flask, endpoint: str, operation: dict[str, Any]) -> None:
    """Say of an operation that it needs a key, and what is answered without one."""
    if opens(app, endpoint):
        operation["security"] = []
        return
    spoken = app.blueprints.get(endpoint.rpartition(".")[0])
    shape = (spoken.error, spoken.schema) if isinstance(spoken, Protocol) else ()
    operation["responses"]["401"] = described(told(401, UNAUTHORIZED, *shape))


def _tags(paths: dict[str, Any]) -> list[dict[str, Any]]:
    """Our endpoints first; Swagger UI and ReDoc keep this order."""
    used = {tag for path in paths.values() for operation in path.values() for tag in operation["tags"]}
    ours = [{"name": name, "description": about} for name, about in OURS.items()]
    return ours + [{"name": name} for name in sorted(used - OURS.keys(), key=str.lower)]


@bp.get("/docs")
def docs() -> Response:
    """The same page without a redirect: that would need to know the path prefix a proxy removes."""
    return cast(Response, current_app.view_functions["flasgger.apidocs"]())


@bp.get("/redoc")
@strict
def redoc() -> str:
    return render_template("redoc.html", title=TITLE)
