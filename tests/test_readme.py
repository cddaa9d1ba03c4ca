"""README and docs: the README is short, every link leads somewhere, and the programs in them run."""

import contextlib
import io
import itertools
import re
import sys
import types
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import fs

from app import create_app
from app.api import protocols
from app.api.protocols.embed import EmbedRequest
from app.bulk.formats import File
from app.config import Settings
from tests.conftest import ROOT

READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")],
    key=lambda page: page.relative_to(ROOT).as_posix(),
)
SCREENSHOT = ROOT / "docs" / "page.png"
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
PICTURE = re.compile(r"!\[([^\]]*)\]\(([^)\s]+)\)")


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Those that GitHub gives a page's headings."""
    found: set[str] = set()
    for title in re.findall(r"^#+ (.*)", prose(page), re.MULTILINE):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).lower()
        anchor = re.sub(r"[^\w\- ]", "", text).strip().replace(" ", "-")
        numbered = itertools.chain([anchor], (f"{anchor}-{number}" for number in itertools.count(1)))
        found.add(next(name for name in numbered if name not in found))
    return found


def section(page: str, heading: str) -> str:
    """What stands under a heading of a page."""
    return (ROOT / page).read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]


def python(page: str, heading: str) -> str:
    """The only program under a heading of a page."""
    (found,) = re.findall(r"```python\n(.*?)```", section(page, heading), re.DOTALL)
    return found


def commands(page: str, start: str) -> list[str]:
    """The commands of a page that begin so, whole over their lines."""
    text = (ROOT / page).read_text(encoding="utf-8")
    shells = "\n".join(re.findall(r"```bash\n(.*?)```", text, re.DOTALL))
    quoted = r"(?:'[^']*'|\\\n|[^'\n])*"  # a line goes on within quotes, and after a backslash
    return re.findall(rf"^{re.escape(start)}{quoted}", shells, re.MULTILINE)


def module(name: str, code: str) -> types.ModuleType:
    made = types.ModuleType(name)
    exec(compile(code, name, "exec"), made.__dict__)
    return made


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_the_readme_is_short(readme):
    lines = readme.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    for number, line in enumerate(lines, 1):
        assert len(line) <= 160, f"{readme.name}, line {number}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = unquote(link).partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_pictures_are_small_and_described(page):
    for words, link in PICTURE.findall(prose(page)):
        picture = (page.parent / link).resolve()
        assert words
        assert picture.is_file(), link
        assert picture.stat().st_size <= 200 * 1024, link


def test_every_page_can_be_reached_from_the_readme():
    reached, coming = set(), [ROOT / "README.md"]
    while coming:
        page = coming.pop()
        if page in reached:
            continue
        reached.add(page)
        links = (unquote(link).partition("#")[0] for link in LINK.findall(prose(page)))
        targets = ((page.parent / link).resolve() for link in links if link.endswith(".md"))
        coming += [target for target in targets if target.is_file()]
    assert set(PAGES) - reached == set()


def test_the_protocol_of_the_guide_is_served(tmp_path, monkeypatch, fake):
    (tmp_path / "echo.py").write_text(python("CONTRIBUTING.md", "Add a protocol"))
    monkeypatch.setattr(protocols, "__path__", [*protocols.__path__, str(tmp_path)])
    try:
        client = create_app(Settings(model_name="fake"), fake).test_client()
    finally:
        sys.modules.pop("app.api.protocols.echo", None)
    assert len(client.post("/echo/vector", json={"said": "a"}).json["vector"]) == fake.width
    refused = client.post("/echo/vector", json={})
    assert (refused.status_code, refused.json) == (422, {"fault": "said: is required: a string"})
    assert "/echo/vector" in client.get("/apispec_1.json").json["paths"]


def test_the_engine_of_the_guide_has_what_a_backend_has():
    from app.engine.backends import Backend

    backend = module("constant", python("CONTRIBUTING.md", "Add an engine")).ConstantBackend()
    for member in {*Backend.__annotations__, "preempt", "forward"}:
        assert hasattr(backend, member), member
    found = backend.forward([np.array([0, 5, 2]), np.array([0, 2])], [(0, "mean"), (1, "cls")])
    assert [vector.shape for vector in found] == [(16,), (16,)]


def test_the_format_of_the_guide_reads_in_parts(tmp_path):
    paragraphs = module("paragraphs", python("CONTRIBUTING.md", "Add a source format")).Paragraphs()
    (file := tmp_path / "a.para").write_text("one\n\nzwei\nZeilen\n\n三")
    local, found = fs.LocalFileSystem(), [File(str(file), file.name, file.stat().st_size, 0)]
    schema = paragraphs.columns(local, found)
    parts = list(paragraphs.parts(local, found, 2, 1 << 20))
    rows = [paragraphs.read(local, found, part, "text", schema) for part in parts]
    assert [row.texts for row in rows] == [["one", "zwei\nZeilen"], ["三"]]
    assert pa.concat_tables(row.table for row in rows)["text"].to_pylist() == ["one", "zwei\nZeilen", "三"]


def test_the_docs_have_every_field_endpoint_and_metric(tmp_path, fake, reranker):
    fields = set(re.findall(r"^\| `(\w+)` \|", section("docs/api.md", "Fields"), re.MULTILINE))
    # These are other clients': described in a field's row, or ignored.
    assert fields == set(EmbedRequest().fields) - {"truncation_direction", "options", "keep_alive"}

    client = create_app(Settings(model_name="fake", batch_dir=tmp_path), fake, reranker).test_client()
    specified = client.get("/apispec_1.json").json["paths"]
    paths = {re.sub(r"<(?:\w+:)?(\w+)>", lambda found: found[1].upper(), path) for path in specified}
    named = set(re.findall(r"(?<=[` ])/[\w./-]*(?=`)", section("docs/api.md", "Endpoints")))
    assert paths - named == set()
    assert named - paths == {"/apidocs/", "/docs", "/redoc", "/apispec_1.json"}

    assert client.post("/api/embed", json={"input": "a"}).status_code == 200
    kinds = re.findall(r"^# TYPE (embed_\w+)", client.get("/metrics").text, re.MULTILINE)
    metrics = set(re.findall(r"`(embed_\w+)`", section("docs/operations.md", "Metrics")))
    assert metrics == {name for name in kinds if not name.endswith("_created")}


def shown(code: str, url: str) -> str:
    """What a program prints with a server of ours in place of the one it names."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        module("shown", code.replace("http://127.0.0.1:8000", url))
    return printed.getvalue()
