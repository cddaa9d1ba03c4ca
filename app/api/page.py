"""GET /: the words Ollama's clients wait for, or for a browser the page to search, compare and map texts."""

import functools
import re
from pathlib import Path

from flask import Blueprint, Response, render_template, request

from app.api.context import settings
from app.api.docs import ROOM
from app.api.documented import documented

FOLDER = ROOM / "static" / "page"
IMPORT = re.compile(r'^(?:import|export) .*from "\./([^"]+)"', re.MULTILINE)
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
    """Clients that prefer HTML get a page to search, compare and map texts."""
    if request.accept_mimetypes.best_match(["text/plain", "text/html"]) != "text/html":
        return Response("Ollama is running", mimetype="text/plain")
    title = f"{settings().served_name} embeddings"
    return Response(render_template("home.html", title=title, modules=_modules(FOLDER)), mimetype="text/html")


@bp.after_request
def protect(response: Response) -> Response:
    """The page may run its own files and ask this server, nothing else; so may its workers."""
    response.headers["Content-Security-Policy"] = CSP
    response.vary.add("Accept")
    return response


@functools.cache
def _modules(folder: Path) -> list[str]:
    """What main.js imports before anything is clicked: a browser fetches it at once, not import by import."""
    found: set[str] = set()
    waiting = ["main.js"]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += IMPORT.findall((folder / name).read_text(encoding="utf-8"))
    return sorted(found)
