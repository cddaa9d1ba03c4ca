"""The page at /, tested without a browser: access, security policy, size, languages."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from app import create_app
from app.api.page import CSP, FOLDER

TEMPLATE = Path(__file__).parent.parent / "app" / "templates" / "home.html"
BROWSER = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
KEY = re.compile(r'^\s*"([\w.]+)": "(.*)",$', re.MULTILINE)
SCRIPTS = sorted(FOLDER.glob("*.js"))
TABLES = {"en.js", "zh.js"}


def table(name):
    content = (FOLDER / name).read_text(encoding="utf-8")
    found = dict(KEY.findall(content))
    assert len(found) == content.count("\n  "), f"{name} has a line that is no entry"
    return found


def test_only_who_prefers_html_gets_the_page(client):
    for accept in ("*/*", "application/json", "text/plain", "text/plain, text/html;q=0.5"):
        answer = client.get("/", headers={"Accept": accept})
        assert answer.text == "Ollama is running", accept
        assert "Accept" in answer.headers["Vary"]
    assert client.get("/").text == "Ollama is running"
    page = client.get("/", headers=BROWSER)
    assert page.mimetype == "text/html"
    assert "Accept" in page.headers["Vary"]


def test_its_policy_lets_it_run_its_own_files_and_nothing_else(client):
    for path in ("/", "/assets/page/main.js", "/assets/page/worker.js"):
        with client.get(path, headers=BROWSER) as answer:
            assert answer.headers["Content-Security-Policy"] == CSP, path
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
    directives = dict(part.strip().split(" ", 1) for part in CSP.split(";"))
    assert directives["default-src"] == directives["form-action"] == directives["base-uri"] == "'none'"
    for name in ("script-src", "style-src", "connect-src", "worker-src"):
        assert directives[name] == "'self'"


def test_it_needs_nothing_from_elsewhere_and_nothing_inline(client):
    page = client.get("/", headers=BROWSER).text
    assert "<style" not in page
    assert not re.search(r"<script(?![^>]* src=)", page)
    assert not re.search(r"\s(style|on\w+)=", page)
    for path in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert path.startswith("/"), path
        with client.get(path, follow_redirects=True) as answer:
            assert answer.status_code == 200, path
    for file in filter(Path.is_file, FOLDER.iterdir()):
        allowed = "http://www.w3.org/2000/svg"  # only a name: nothing is fetched
        assert "://" not in file.read_text(encoding="utf-8").replace(allowed, ""), file.name


def imported(*names):
    """These modules and what they import, without what is imported only once it is used."""
    found = set()
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += re.findall(r'from "\./([^"]+)"', (FOLDER / name).read_text(encoding="utf-8"))
    return found


def test_what_the_first_view_needs_is_fetched_at_once_and_nothing_else(client):
    page = client.get("/", headers=BROWSER).text
    fetched = re.findall(r'modulepreload" href="/assets/page/([^"]+)"', page)
    assert set(fetched) == imported("main.js")
    assert len(fetched) == len(set(fetched))
    later = {"similarity.js", "map.js", "en.js", "zh.js", "open.js", "carried.js", "recorded.js"}
    later.add("vendor/hyparquet/parquet.js")
    assert not later & set(fetched)
    for name in later:
        calls = [file.name for file in SCRIPTS if f'import("./{name}")' in file.read_text(encoding="utf-8")]
        assert len(calls) == 1, name


def test_it_is_small(client):
    """What a browser fetches on opening, and what each further view adds, without compression.

    Not counted is what is fetched only when it is used: what the first search needs, the reader of Parquet
    files, the recorded example, the other language.
    """
    sizes = {file.name: file.stat().st_size for file in FOLDER.iterdir() if file.is_file()}
    page = len(client.get("/", headers=BROWSER).data)
    own = imported("main.js")
    opening = {name: sizes[name] for name in own | {"page.css", "example.csv", "icon.svg"}}
    opening["language"] = max(sizes[name] for name in TABLES)
    assert page + sum(opening.values()) < 120 * 1024, opening
    for view in ("similarity.js", "map.js"):
        added = {name: sizes[name] for name in imported(view, "worker.js") - own}
        assert sum(added.values()) < 80 * 1024, added
    for file in SCRIPTS:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 250, file.name


def test_both_languages_say_everything():
    english, chinese = table("en.js"), table("zh.js")
    assert list(english) == list(chinese)
    for key, text in english.items():
        names = set(re.findall(r"\{\w+\}", text))
        assert set(re.findall(r"\{\w+\}", chinese[key])) == names, key


def test_every_string_that_is_used_is_there_and_the_other_way_round():
    english = table("en.js")
    used = set(re.findall(r'data-t(?:-label|-placeholder)?="([^"]+)"', TEMPLATE.read_text(encoding="utf-8")))
    for file in SCRIPTS:
        if file.name not in TABLES:
            code = file.read_text(encoding="utf-8")
            words = re.findall(r'"([\w.]+)"', code)
            used |= {word for word in words if word in english}
            asked = re.findall(r'\bt\("([\w.]+)"', code)
            assert set(asked) <= english.keys(), file.name
            # t(`score.${kind}`): every key that begins like this is used.
            for start in re.findall(r"\bt\(`([\w.]+)\$\{", code):
                used |= {key for key in english if key.startswith(start)}
    assert used == english.keys()


@pytest.mark.parametrize("opened", [("docs",), ()])
def test_it_opens_without_a_key_so_that_it_can_ask_for_one(settings, fake, opened):
    locked = create_app(replace(settings, api_keys=("a-key",), open_paths=opened), fake).test_client()
    assert locked.get("/", headers=BROWSER).status_code == 200
    for name in ("main.js", "page.css", "worker.js"):
        with locked.get(f"/assets/page/{name}") as answer:
            assert answer.status_code == 200
    with locked.get("/assets/docs.js") as answer:
        assert answer.status_code == (200 if opened else 401)
    assert locked.get("/info").status_code == 401
