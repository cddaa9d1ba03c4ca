"""Fetch a model from the hub, verified, never half-made under its final name."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.cli.hub import RemoteFile, RemoteModel


class DownloadError(Exception):
    """The folder could not be completed; the message says what to do."""


def fetch(model: RemoteModel, folder: Path) -> None:
    """Make `folder` hold the files of `model`.

    Files arrive in a folder beside it, where an interrupted download goes on, and take the final
    name together once each has its known size and sha256. Raises DownloadError.
    """
    try:
        if folder.exists():
            for name, expected in model.files.items():
                if fault := _fault(folder / name, expected):
                    raise DownloadError(
                        f"{folder} is there already, but its {name} {fault}: move it away and run this again"
                    )
            return
        partial = folder.with_name(f".{folder.name}.partial")
        partial.mkdir(parents=True, exist_ok=True)
        with _claimed(partial):
            for name, expected in model.files.items():
                _transfer(model, name, partial / name)
                if fault := _fault(partial / name, expected):
                    (partial / name).unlink()
                    raise _refused(model, name, fault)
            for path in (partial, *partial.rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)  # another user may be the one who serves them
            os.replace(partial, folder)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be read or written: {error}") from error


def _transfer(model: RemoteModel, name: str, file: Path) -> None:
    """Get what `file` lacks.

    The library's own download into a folder starts a file from its first byte whenever it is run
    again, so this one keeps the bytes and asks for the rest.
    """
    if not os.environ.get("HF_ENDPOINT"):
        os.environ.pop("HF_ENDPOINT", None)  # an empty variable is how compose files say "not set"
    try:  # The library reads HF_ENDPOINT and HF_HUB_OFFLINE when it is imported.
        import httpx2
        from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers
    except ImportError as error:
        raise DownloadError(
            f"downloading needs {error.name}, which is not installed here: run flask model download "
            "with the full image or installation"
        ) from error

    expected = model.files[name]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as content:
        if content.tell() > expected.size:
            content.seek(content.truncate(0))
        if content.tell() == expected.size:
            return
        url = hf_hub_url(model.repository, name, revision=model.revision)
        # Compressed, a byte of the answer would not be a byte of the file.
        headers = build_hf_headers(headers={"Accept-Encoding": "identity"})
        try:
            # Asked first: fails at once where http_get tries again for long, and a page that answers
            # in the hub's place does not cost the bytes that are here.
            offered = get_hf_file_metadata(url, headers=headers)
            if offered.size not in (None, expected.size):
                raise _refused(model, name, f"has {offered.size} bytes instead of {expected.size}")
            http_get(url, content, resume_size=content.tell(), headers=headers, displayed_filename=name)
        except (httpx2.HTTPError, httpx2.InvalidURL, OfflineModeIsEnabled) as error:
            if isinstance(error, HfHubHTTPError):
                reason = f"it answered {error.response.status_code} {error.response.reason_phrase}"
            else:
                reason = " ".join(str(error).split()) or type(error).__name__
            raise DownloadError(
                f"{model.repository} could not be fetched from {constants.ENDPOINT}: set HF_ENDPOINT to "
                f"a mirror, or copy the folder by hand from a machine that has it ({reason})"
            ) from error
        content.flush()
        os.fsync(content.fileno())  # the folder's new name must not reach the disk before the bytes


def _refused(model: RemoteModel, name: str, fault: str) -> DownloadError:
    return DownloadError(
        f"{name} of {model.repository}, as the hub has it, {fault}: "
        "run this again, or set HF_ENDPOINT to another mirror"
    )


def _fault(file: Path, expected: RemoteFile) -> str:
    """What is wrong with a file, "" if nothing is."""
    if not file.is_file():
        return "is missing"
    if file.stat().st_size != expected.size:
        return f"has {file.stat().st_size} bytes instead of {expected.size}"
    with file.open("rb") as content:
        if hashlib.file_digest(content, "sha256").hexdigest() != expected.sha256:
            return f"has another sha256 than {expected.sha256}"
    return ""


@contextmanager
def _claimed(partial: Path) -> Iterator[None]:
    """Keep a second download from writing into the same files."""
    claim = os.open(partial, os.O_RDONLY)
    try:
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DownloadError(f"another download into {partial} is running") from None
        except OSError:
            pass  # a file system without locks; the sha256 still tells
        yield
    finally:
        os.close(claim)
