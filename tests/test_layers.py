"""The import rules between packages: imports run one way."""

import ast
import subprocess
import sys
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from app import create_app
from app.api import protocols
from app.config import Settings

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "app/api": ("torch", "transformers", "tokenizers", "openvino", "app.cli", "app.engine", "app.server"),
    "app/engine": ("flask", "werkzeug", "marshmallow", "gunicorn", "app.api", "app.cli", "app.config"),
    "app/config.py": ("app", "flask", "numpy", "torch"),
    "app/processors.py": ("app", "flask", "numpy", "torch"),
    "app/server": ("app", "flask", "werkzeug", "prometheus_client.metrics"),
    "app/cli": ("app.api", "gunicorn"),
    "app/bulk": ("app.api", "app.cli", "app.config", "flask", "click", "gunicorn"),
    "app/evaluation": ("app.api", "app.bulk", "app.cli", "app.config", "flask", "click", "gunicorn"),
}
ALLOWED = {
    "app/api": ("app.engine.errors", "app.engine.embeddings", "app.engine.encodings"),
    "app/server": ("app.server",),
    "app/evaluation": ("app.bulk.progress",),
}


def whole(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, read: Callable[[Path], ast.Module] = whole) -> Iterator[str]:
    for node in ast.walk(read(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: absolute imports only"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, packages: tuple[str, ...]) -> bool:
    return any(f"{name}.".startswith(f"{package}.") for package in packages)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_imports_run_one_way(room):
    place = ROOT / room
    files = [place] if place.is_file() else list(place.rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in files
        for name in imports(file)
        if under(name, FORBIDDEN[room]) and not under(name, ALLOWED.get(room, ()))
    ]
    assert not wrong


def modules(room: str) -> dict[str, Path]:
    """The files of a package, by the names under which they are imported."""
    found = {}
    for file in (ROOT / room).rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def at_the_top(path: Path) -> ast.Module:
    """The code that runs when a file is imported: not its functions, nor what only a type checker reads."""
    tree = ast.parse(path.read_text())
    tree.body = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    return tree


@pytest.mark.parametrize("room", ["app/api", "app/engine", "app/bulk", "app/evaluation", "app/server"])
def test_no_imports_run_in_a_circle(room):
    files = modules(room)
    graph: dict[str, set[str]] = {}
    for name, file in files.items():
        wanted = {one if one in files else one.rpartition(".")[0] for one in imports(file, at_the_top)}
        graph[name] = wanted & set(files) - {name, room.replace("/", ".")}  # its __init__ imports them all
    with_circle = None
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        with_circle = error.args[1]
    assert not with_circle


TOY = """
from marshmallow import Schema, fields

from app.api.answer import answer
from app.api.ask import encode
from app.api.body import read_json
from app.api.documented import documented
from app.api.fields import Text, required
from app.api.schema import Request
from app.api.protocol import Protocol


class Said(Request):
    said = Text(**required("a string"))


class Fault(Schema):
    fault = fields.String(required=True)


toy = Protocol(
    "toy", __name__, error=lambda status, sentence, details: {"fault": sentence}, schema=Fault,
    statuses={422: 418}, prefix="/toy/", quick={"nothing"}, open={"ready"},
)


@toy.post("/toy/vector")
@documented("A toy", request=Said, responses={200: (Schema, "a vector"), **toy.refusals()}, tag="Toy")
def vector():
    found = encode([Said.checked(read_json())["said"]], field="said")
    return answer({"vector": found.dense[0]}, found)


@toy.post("/toy/nothing")
@documented("Nothing", responses={200: (Schema, "nothing")}, tag="Toy")
def nothing():
    return {}


@toy.get("/toy/ready")
@documented("Is it there", responses={200: (Schema, "it is")}, tag="Toy")
def ready():
    return {}
"""


def test_a_protocol_is_one_file(tmp_path, monkeypatch, fake):
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(protocols, "__path__", [*protocols.__path__, str(tmp_path)])
    try:
        client = create_app(Settings(model_name="fake", api_keys=("key",)), fake).test_client()
    finally:
        sys.modules.pop("app.api.protocols.toy", None)
    assert client.get("/toy/ready").status_code == 200
    assert client.post("/toy/vector", json={"said": "a"}).json == {
        "fault": "API key missing or invalid: send it as Authorization: Bearer <key>"
    }
    key = {"X-API-Key": "key"}
    assert len(client.post("/toy/vector", json={"said": "a"}, headers=key).json["vector"]) == 16
    refused = client.post("/toy/vector", json={}, headers=key)
    assert (refused.status_code, refused.json) == (418, {"fault": "said: is required: a string"})
    assert set(client.get("/toy/vector", headers=key).json) == {"fault"}
    assert set(client.get("/toy/elsewhere", headers=key).json) == {"fault"}
    described = client.get("/apispec_1.json").json["paths"]["/toy/vector"]["post"]
    assert "418" in described["responses"]
    fake.turns(full=frozenset({"interactive", "bulk"}))
    assert set(client.post("/toy/vector", json={"said": "a"}, headers=key).json) == {"fault"}
    assert client.post("/toy/nothing", json={}, headers=key).status_code == 200


def loaded(modules: str, names: tuple[str, ...]) -> list[str]:
    """Which of these names are loaded in a process that imports the modules."""
    code = f"import sys, {modules}; print(*[name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_upper_floor_loads_no_engine_library():
    assert not loaded("app.api, wsgi", ("torch", "transformers", "openvino"))


def test_statuses_are_written_in_one_place():
    """Statuses of errors are in the table; a protocol's own, such as 204, are in its file."""
    for file in (ROOT / "app" / "api").rglob("*.py"):
        if file.name == "errors.py" or "protocols" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword):
                assert node.arg != "status", f"{file.name} sets a status"
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") != "abort", f"{file.name} aborts"


def test_settings_are_read_in_one_place():
    """Some variables are others' own: of a library, of whoever hands down sockets, of the desktop."""
    theirs = (
        "INHERITED",
        "HF_ENDPOINT",
        "PROMETHEUS_MULTIPROC_DIR",
        "RAY_USAGE_STATS_ENABLED",
        "RAY_ADDRESS",
    )
    for file in (ROOT / "app").rglob("*.py"):
        if file.name in ("config.py", "folders.py"):  # the latter follows XDG's
            continue
        for line in file.read_text().splitlines():
            reads = "os.environ" in line or "getenv" in line
            assert not reads or any(name in line for name in theirs), (
                f"{file.name} reads the environment: {line}"
            )


def test_gunicorn_is_imported_by_one_room_only():
    users = {
        file.relative_to(ROOT)
        for file in (*(ROOT / "app").rglob("*.py"), ROOT / "gunicorn.conf.py", ROOT / "wsgi.py")
        if any(under(name, ("gunicorn",)) for name in imports(file))
    }
    assert {file.parent for file in users} == {Path("app/server")}


def test_the_master_imports_neither_flask_nor_numpy():
    """It does not need them, and prometheus-client must not be imported before its folder is known."""
    modules = "app.server.worker, app.server.counters, app.config, app.logs"
    assert not loaded(modules, ("flask", "numpy", "prometheus_client"))
