"""Fetch a pinned revision of a model from the hub, verified, never half-made under its final name."""

import hashlib
import os
import shutil
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
    """Make `folder` hold exactly the files of `model`.

    Files arrive in a folder beside it, where an interrupted download goes on, and take the final
    name together once each has its known size and sha256. Raises DownloadError.
    """
    if folder.exists():
        wrong = _first_wrong(model, folder)
        if wrong:
            raise DownloadError(
                f"{folder} is there already, but its {wrong}: move it away and run this again"
            )
        return
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _transfer(model, partial)
        wrong = _first_wrong(model, partial)
        if wrong:
            (partial / wrong.split()[0]).unlink(missing_ok=True)
            raise DownloadError(
                f"what the hub sent for {model.repository} is not the known file: its {wrong}; "
                "run this again, or use another mirror (HF_ENDPOINT)"
            )
        shutil.rmtree(partial / ".cache", ignore_errors=True)  # the hub library's own notes
        os.replace(partial, folder)
    except OSError as error:
        raise DownloadError(f"{folder} cannot be written: {error}") from error


def _transfer(model: RemoteModel, partial: Path) -> None:
    # The library reads HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE when it is imported.
    import httpx2
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:
        snapshot_download(
            model.repository,
            revision=model.revision,
            local_dir=partial,
            allow_patterns=list(model.files),
        )
    except (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        httpx2.HTTPError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise DownloadError(
            f"{model.repository} could not be fetched from {constants.ENDPOINT}: set HF_ENDPOINT to "
            f"a mirror, or copy the folder by hand from a machine that has it ({reason})"
        ) from error


def _first_wrong(model: RemoteModel, folder: Path) -> str:
    """What is wrong with the first file that is not as it should be, "" if all are."""
    for name, expected in model.files.items():
        file = folder / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != expected.size:
            return f"{name} has {file.stat().st_size} bytes instead of {expected.size}"
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != expected.sha256:
                return f"{name} has another sha256"
    return ""
