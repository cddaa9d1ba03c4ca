"""`flask model download` with the real hub library, against a stand-in for the hub."""

import hashlib
import json
import os
import pty
import random
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from stat import S_IMODE
from typing import Any

import pytest

from app.cli.hub import BGE_M3, BGE_RERANKER
from tests.hub import Hub

ROOT = Path(__file__).parent.parent
REPOSITORY, REVISION = "somebody/a-model", "0123456789abcdef0123456789abcdef01234567"
# The revisions on the hub. They stand here a second time because no test can reach it: a slip in the code
# would show only on the day that somebody downloads the model.
PUBLISHED = {
    "BAAI/bge-m3": "5617a9f61b028005a4858fdac845db406aefb181",
    "BAAI/bge-reranker-v2-m3": "953dc6f6f85a1b2dbfca4c34a2796e7dde08d41e",
}
MB = 2**20
BIG = "pytorch_model.bin"  # larger than the 10 MB that the library writes at a time
FILES = {
    "config.json": b'{"hidden_size": 4}',
    "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
    BIG: random.Random(0).randbytes(12 * MB),
    "tokenizer.json": b'{"model": {}}',
}
UNNEEDED = {"README.md": b"# A model", "onnx/model.onnx": b"another format"}

# HF_ENDPOINT is read when the library is imported, so every download is a process of its own.
FETCH = """
import json, sys
from pathlib import Path
from app.cli.download import DownloadError, fetch
from app.cli.hub import RemoteFile, RemoteModel

repository, revision, files, folder = json.loads(sys.argv[1])
try:
    fetch(RemoteModel(repository, revision, {n: RemoteFile(*f) for n, f in files.items()}), Path(folder))
except DownloadError as error:
    sys.exit(f"Error: {error}")
"""


class Download:
    """Runs downloads of FILES from `hub` into `folder`."""

    def __init__(self, hub: Hub, home: Path) -> None:
        self.hub = hub
        self.folder = home / "models" / "a-model"
        self.partial = home / "models" / ".a-model.partial"
        self.started: list[subprocess.Popen[str]] = []
        self.env = {"HF_HOME": str(home / "hf"), "HF_ENDPOINT": hub.url, "PATH": "/usr/bin:/bin"}

    def start(self, *, prefix: tuple[str, ...] = (), **options: Any) -> subprocess.Popen[str]:
        files = {name: (len(content), hashlib.sha256(content).hexdigest()) for name, content in FILES.items()}
        what = json.dumps([REPOSITORY, REVISION, files, str(self.folder)])
        return self._popen([*prefix, sys.executable, "-c", FETCH, what], **options)

    def run(self, **options: Any) -> subprocess.CompletedProcess[str]:
        return _finish(self.start(**options))

    def command(self, *name: str) -> subprocess.CompletedProcess[str]:
        """The real command, which knows two models."""
        flask = [sys.executable, "-m", "flask", "--app", "wsgi", "model", "download", *name, str(self.folder)]
        return _finish(self._popen(flask))

    def _popen(self, command: list[str], **options: Any) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, env=self.env, text=True, **{**pipes, **options})
        self.started.append(process)
        return process

    def is_complete(self) -> bool:
        """Whether the folder holds exactly FILES, and nothing is left next to it."""
        found = {
            str(file.relative_to(self.folder)): file.read_bytes()
            for file in self.folder.rglob("*")
            if not file.is_dir()
        }
        return found == FILES and list(self.folder.parent.iterdir()) == [self.folder]


@pytest.fixture
def download(tmp_path: Path) -> Iterator[Download]:
    with Hub(REPOSITORY, REVISION, FILES | UNNEEDED) as hub:
        download = Download(hub, tmp_path)
        yield download
        for process in download.started:
            with process:
                process.kill()


def _finish(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    out, err = process.communicate(timeout=15)  # the library itself retries a dead hub for 24 seconds
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _sentence(result: subprocess.CompletedProcess[str]) -> str:
    """The error of a failed run, which must be one line without a traceback."""
    assert result.returncode == 1
    [line] = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def test_it_fetches_the_listed_files_at_the_pinned_revision(download):
    result = download.run()

    assert (result.returncode, result.stderr) == (0, "")
    assert download.is_complete()
    assert download.hub.asked() == list(FILES)
    assert download.hub.asked("HEAD") == list(FILES)


def test_another_user_can_read_the_folder_whatever_the_umask(download):
    assert download.run(umask=0o077).returncode == 0

    paths = [download.folder, *download.folder.rglob("*")]
    assert {S_IMODE(p.stat().st_mode) for p in paths if p.is_dir()} == {0o755}
    assert {S_IMODE(p.stat().st_mode) for p in paths if p.is_file()} == {0o644}


def test_a_terminal_shows_progress(download):
    terminal, stderr = pty.openpty()
    termios.tcsetwinsize(stderr, (24, 100))
    assert download.run(stderr=stderr).returncode == 0
    os.close(stderr)
    shown = os.read(terminal, 2**16).decode()
    os.close(terminal)

    assert f"{BIG}: 100%" in shown


def test_the_token_goes_to_the_hub_and_not_where_the_hub_points(download):
    download.env["HF_TOKEN"] = "hf_secret"
    with Hub(REPOSITORY, REVISION, FILES) as elsewhere:
        download.hub.redirect_to = elsewhere.url
        assert download.run().returncode == 0

    assert download.is_complete()
    assert {r.headers["Authorization"] for r in download.hub.requests} == {"Bearer hf_secret"}
    assert elsewhere.asked() == list(FILES)
    assert {r.headers["Authorization"] for r in elsewhere.requests} == {None}


def test_a_dropped_connection_is_taken_up_again_by_itself(download):
    download.hub.stop_at = 11 * MB

    assert download.run().returncode == 0
    assert download.hub.ranges(BIG) == [None, f"bytes={10 * MB}-"]
    assert download.is_complete()


def test_a_download_goes_on_where_the_hub_went_down(download):
    hub = download.hub
    hub.stop_at, hub.at_stop = 11 * MB, lambda: setattr(hub, "status", 503)
    result = download.run()
    assert result.returncode == 1
    assert "503" in result.stderr.splitlines()[-1]
    assert not download.folder.exists()

    hub.status = 200
    hub.requests.clear()
    assert download.run().returncode == 0
    assert download.is_complete()
    assert hub.asked() == [BIG, "tokenizer.json"]
    assert hub.ranges(BIG) == [f"bytes={10 * MB}-"]
    assert {r.headers["Accept-Encoding"] for r in hub.requests} == {"identity"}


def test_a_download_goes_on_where_it_was_killed(download):
    hub, gone = download.hub, threading.Event()
    hub.stop_at, hub.at_stop = 11 * MB, gone.wait
    process = download.start()
    _wait_for_bytes(download.partial / BIG)
    process.kill()
    process.wait()
    gone.set()
    assert not download.folder.exists()

    hub.requests.clear()
    assert download.run().returncode == 0
    assert download.is_complete()
    assert hub.ranges(BIG) == [f"bytes={10 * MB}-"]


def test_a_second_download_leaves_the_first_alone(download):
    hub, told = download.hub, threading.Event()
    hub.stop_at, hub.at_stop = 11 * MB, told.wait
    first = download.start()
    _wait_for_bytes(download.partial / BIG)

    assert "another download" in _sentence(download.run())
    told.set()
    assert _finish(first).returncode == 0
    assert download.is_complete()


def test_a_mirror_that_knows_no_ranges_starts_the_file_again(download):
    download.hub.knows_ranges = False
    _left_behind(download, BIG, FILES[BIG][: 5 * MB])

    assert download.run().returncode == 0
    assert download.hub.ranges(BIG) == [f"bytes={5 * MB}-"]
    assert download.is_complete()


def test_more_bytes_than_the_file_has_start_it_again(download):
    _left_behind(download, BIG, FILES[BIG] + b"more")

    assert download.run().returncode == 0
    assert download.is_complete()


def test_wrong_bytes_are_refused_and_fetched_anew(download):
    hub = download.hub
    hub.files[BIG] = bytes(12 * MB)
    refusal = _sentence(download.run())
    assert BIG in refusal
    assert "sha256" in refusal
    assert not download.folder.exists()

    hub.files[BIG] = FILES[BIG]
    hub.requests.clear()
    assert download.run().returncode == 0
    assert download.is_complete()
    assert hub.ranges(BIG) == [None]


def test_a_file_of_another_size_is_refused_before_it_is_sent(download):
    hub = download.hub
    _left_behind(download, BIG, FILES[BIG][: 5 * MB])
    hub.files[BIG] = b"<html>please log in to this network</html>"
    refusal = _sentence(download.run())
    assert f"{BIG} of {REPOSITORY}" in refusal
    assert f"has 42 bytes instead of {12 * MB}" in refusal
    assert BIG not in hub.asked()

    hub.files[BIG] = FILES[BIG]
    assert download.run().returncode == 0
    assert hub.ranges(BIG) == [f"bytes={5 * MB}-"]
    assert download.is_complete()


def test_a_complete_folder_asks_for_nothing(download):
    _write(download.folder, FILES)

    assert download.run().returncode == 0
    assert download.hub.requests == []


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda file: file.write_bytes(b"?" * len(FILES["1_Pooling/config.json"])), "sha256"),
        (lambda file: file.unlink(), "missing"),
    ],
    ids=["other bytes", "missing"],
)
def test_a_folder_with_a_damaged_file_is_left_as_it_is(download, damage, fault):
    _write(download.folder, FILES)
    damage(download.folder / "1_Pooling/config.json")

    refusal = _sentence(download.run())
    assert "1_Pooling/config.json" in refusal
    assert fault in refusal
    assert download.hub.requests == []


@pytest.mark.parametrize("status", [401, 404, 500])
def test_a_hub_that_refuses_is_one_sentence_with_the_ways_out(download, status):
    download.hub.status = status
    _assert_names_both_ways_out(_sentence(download.command()), f"it answered {status}")
    assert not download.folder.exists()


def test_a_hub_out_of_reach_is_one_sentence_with_the_ways_out(download):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        download.env["HF_ENDPOINT"] = f"http://127.0.0.1:{closed.getsockname()[1]}"
        sentence = _sentence(download.command())

    _assert_names_both_ways_out(sentence, download.env["HF_ENDPOINT"])
    assert not download.folder.exists()


def test_a_hub_out_of_reach_leaves_what_has_arrived(download):
    _left_behind(download, BIG, FILES[BIG][: 5 * MB])
    download.hub.status = 503
    _assert_names_both_ways_out(_sentence(download.run()), "503")

    assert (download.partial / BIG).stat().st_size == 5 * MB


def test_a_mirror_without_a_scheme_is_one_sentence(download):
    download.env["HF_ENDPOINT"] = "127.0.0.1:1"
    _assert_names_both_ways_out(_sentence(download.command()), "http://")


@pytest.mark.parametrize(
    "endpoint", ["http://127.0.0.1:1", ""], ids=["mirror", "empty, as compose leaves it"]
)
def test_offline_mode_is_named(download, endpoint):
    download.env |= {"HF_HUB_OFFLINE": "1", "HF_ENDPOINT": endpoint}
    sentence = _sentence(download.command())

    _assert_names_both_ways_out(sentence, "HF_HUB_OFFLINE")
    assert (endpoint or "https://huggingface.co") in sentence


@pytest.mark.parametrize(
    ("words", "model"),
    [
        ([], BGE_M3),
        (["bge-m3"], BGE_M3),
        (["reranker"], BGE_RERANKER),
        (["bge-reranker-v2-m3"], BGE_RERANKER),
    ],
)
def test_the_command_verifies_what_it_fetches(download, words, model):
    name, expected = next(iter(model.files.items()))
    with Hub(model.repository, PUBLISHED[model.repository], {name: bytes(expected.size)}) as hub:
        download.env["HF_ENDPOINT"] = hub.url
        refusal = _sentence(download.command(*words))

    assert f"{name} of {model.repository}" in refusal
    assert expected.sha256 in refusal
    assert hub.asked() == [name]
    assert not download.folder.exists()


def test_a_folder_that_cannot_be_made_is_one_sentence(download):
    download.folder.parent.write_text("a file where a folder should be")

    assert f"{download.folder} cannot be" in _sentence(download.run())
    assert download.hub.requests == []


def test_a_full_disk_is_one_sentence(download):
    limit = ("sh", "-c", 'ulimit -f 1024 && exec "$@"', "sh")

    assert f"{download.folder} cannot be" in _sentence(download.run(prefix=limit))
    assert not download.folder.exists()


def _assert_names_both_ways_out(sentence: str, reason: str) -> None:
    assert "HF_ENDPOINT to a mirror, or copy the folder by hand" in sentence
    assert reason in sentence


def _left_behind(download: Download, name: str, content: bytes) -> None:
    _write(download.partial, {name: content})


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _wait_for_bytes(file: Path) -> None:
    deadline = time.monotonic() + 15
    while not file.exists() or file.stat().st_size < 10 * MB:
        assert time.monotonic() < deadline, f"nothing arrived in {file}"
        time.sleep(0.01)
