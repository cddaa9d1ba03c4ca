"""GET /: the words Ollama's clients wait for, or for a browser the page that shows what vectors see."""

from pathlib import Path

from flask import Blueprint, Response, render_template, request

from app.api.docs import ROOM, TITLE
from app.api.documented import documented

FOLDER = ROOM / "static" / "page"
# The page holds no data: what it shows comes from the endpoints, with the reader's own key where one is set.
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

# Below flasgger's /assets, whose other files are documentation and may need a key.
bp = Blueprint("page", __name__, static_folder=FOLDER, static_url_path="/assets/page")


@bp.get("/")
@documented(
    "The words Ollama's clients wait for, or a page for a browser",
    responses={200: ({"type": "string", "example": "Ollama is running"}, "it is up")},
    media=("text/plain", "text/html"),
    tag="Ollama",
)
def home() -> Response:
    """Who prefers HTML gets a page to compare texts, see why they are near, and map many of them."""
    if request.accept_mimetypes.best_match(["text/plain", "text/html"]) != "text/html":
        return Response("Ollama is running", mimetype="text/plain")
    return Response(render_template("home.html", title=TITLE, modules=_modules(FOLDER)), mimetype="text/html")


@bp.after_request
def protect(response: Response) -> Response:
    """The page may run its own files and ask this server, nothing else; so may its workers."""
    response.headers["Content-Security-Policy"] = CSP
    response.vary.add("Accept")
    return response


def _modules(folder: Path) -> list[str]:
    """Every module, so that a browser fetches them at once and not one after the other's import."""
    return sorted(file.name for file in folder.glob("*.js") if file.name != "worker.js")
