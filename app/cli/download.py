"""Fetch a pinned revision of a model from the hub, verified, never half-made under its final name."""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class DownloadError(Exception):
    """The folder could not be completed; the message says what to do."""


@dataclass(frozen=True)
class RemoteFile:
    size: int
    sha256: str


@dataclass(frozen=True)
class RemoteModel:
    """A repository on the hub at one commit, and the files of it that serving needs."""

    repository: str
    revision: str
    files: dict[str, RemoteFile]


BGE_M3 = RemoteModel(
    repository="BAAI/bge-m3",
    revision="5617a9f61b028005a4858fdac845db406aefb181",
    files={
        "config.json": RemoteFile(687, "26159e7ad065073448460117eb24b7a4572f6f4e78eadff65dc0a11c052449fa"),
        "pytorch_model.bin": RemoteFile(
            2271145830, "b5e0ce3470abf5ef3831aa1bd5553b486803e83251590ab7ff35a117cf6aad38"
        ),
        "tokenizer.json": RemoteFile(
            17098108, "21106b6d7dab2952c1d496fb21d5dc9db75c28ed361a05f5020bbba27810dd08"
        ),
        "tokenizer_config.json": RemoteFile(
            444, "a62b2b6784f990259fddef5f16388693a8043be4f69179e6a5257eeb3f9abac4"
        ),
        "special_tokens_map.json": RemoteFile(
            964, "8c785abebea9ae3257b61681b4e6fd8365ceafde980c21970d001e834cf10835"
        ),
        "modules.json": RemoteFile(349, "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
        "1_Pooling/config.json": RemoteFile(
            191, "e54c164a07274f2eb45bb724f54a79d1efcc90c41573887cd9a29aeee0597352"
        ),
        "sentence_bert_config.json": RemoteFile(
            54, "eb9b44b13c0f52a3b3685c3b1cbdea1ba8b04bea123b98f61610048940776eb1"
        ),
        "sparse_linear.pt": RemoteFile(
            3516, "45c93804d2142b8f6d7ec6914ae23a1eee9c6a1d27d83d908a20d2afb3595ad9"
        ),
        "colbert_linear.pt": RemoteFile(
            2100674, "19bfbae397c2b7524158c919d0e9b19393c5639d098f0a66932c91ed8f5f9abb"
        ),
    },
)


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
    # The library reads HF_ENDPOINT and HF_HUB_OFFLINE when it is imported.
    import httpx2
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

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
