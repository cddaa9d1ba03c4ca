"""The import rules of the house: they run one way."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "app/api": ("torch", "transformers", "tokenizers", "openvino", "app.cli", "app.engine", "app.server"),
    "app/engine": ("flask", "werkzeug", "marshmallow", "gunicorn", "app.api", "app.cli", "app.config"),
    "app/config.py": ("app", "flask", "numpy", "torch"),
    "app/server": ("app", "flask", "werkzeug", "prometheus_client.metrics"),
    "app/cli": ("app.api", "gunicorn"),
    "app/bulk": ("app.api", "app.cli", "app.config", "flask", "click", "gunicorn"),
}
ALLOWED = {
    "app/api": ("app.engine.errors", "app.engine.embeddings", "app.engine.encodings"),
    "app/server": ("app.server",),
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
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


def loaded(modules: str, names: tuple[str, ...]) -> list[str]:
    """Which of these names are loaded where a process imports the modules."""
    code = f"import sys, {modules}; print(*[name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_the_upper_floor_loads_no_engine_library():
    assert not loaded("app.api, wsgi", ("torch", "transformers", "openvino"))


def test_statuses_are_written_in_one_place():
    """Those of errors in the table; a protocol's own, such as 204, in its file."""
    for file in (ROOT / "app" / "api").rglob("*.py"):
        if file.name == "errors.py" or "protocols" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.keyword):
                assert node.arg != "status", f"{file.name} sets a status"
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") != "abort", f"{file.name} aborts"


def test_settings_are_read_in_one_place():
    """Some variables are libraries' own: one is mended, two are followed, one is set."""
    theirs = ("HF_ENDPOINT", "PROMETHEUS_MULTIPROC_DIR", "RAY_USAGE_STATS_ENABLED", "RAY_ADDRESS")
    for file in (ROOT / "app").rglob("*.py"):
        if file.name == "config.py":
            continue
        for line in file.read_text().splitlines():
            reads = "os.environ" in line or "getenv" in line
            assert not reads or any(name in line for name in theirs), (
                f"{file.name} reads the environment: {line}"
            )


def test_gunicorn_is_imported_by_one_room_only():
    users = {
        file.relative_to(ROOT)
        for file in (ROOT / "app").rglob("*.py")
        if any(under(name, ("gunicorn",)) for name in imports(file))
    }
    assert {file.parent for file in users} == {Path("app/server")}


def test_the_master_imports_neither_flask_nor_numpy():
    """It would hold them for nothing, and prometheus-client before its folder is known."""
    modules = "app.server.worker, app.server.counters, app.config, app.logs"
    assert not loaded(modules, ("flask", "numpy", "prometheus_client"))
