"""Exports: a checkpoint on disk in an engine's format, made once, and again when either of them changes."""

import contextlib
import errno
import fcntl
import importlib.util
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError, NotExported
from app.engine.heads import ScoringHead

if TYPE_CHECKING:  # it imports torch
    from app.engine.weights import Weights

log = logging.getLogger(__name__)

NOTES = "export.json"
# The results of fp32 on the held-out texts, to measure the export by: mean states (texts, d), or a
# cross-encoder's scores (pairs, 1).
HELD_OUT = "held_out.npy"
HELD_OUT_CLS = "held_out_cls.npy"  # the states of their first tokens (texts, d)
SCORING = "scoring."  # prefix of the files of a cross-encoder's head
# Prefix of an unfinished export, followed by the host's name; after PARTIAL_SECONDS it counts as abandoned.
PARTIAL = ".partial-"
PARTIAL_SECONDS = 7200
TOLD_SECONDS = 5.0  # between two lines that say how far an export is


class Exporter(Protocol):
    """Writes a checkpoint in an engine's format."""

    engine: str  # also the folder's name

    def stored(self, precision: Precision) -> str:
        """The name of the export for a precision; one export may serve several."""

    def identity(self) -> dict[str, Any]:
        """The versions that an export must have been made with to be valid."""

    def write(self, checkpoint: Checkpoint, weights: "Weights", stored: str, folder: Path) -> None:
        """Write the files; raises OSError if the disk is full."""


def find_export(
    checkpoint: Checkpoint, exporter: Exporter, precision: Precision, cache: Path | None
) -> Path | None:
    """The folder of an export that matches the checkpoint and versions; None if there is none."""
    stored = exporter.stored(precision)
    identity = _identity(checkpoint, exporter, stored)
    for folder in _places(checkpoint, exporter, stored, cache):
        if _fits(folder, identity):
            return folder
    return None


def ensure_export(
    checkpoint: Checkpoint, exporter: Exporter, precision: Precision, cache: Path | None
) -> Path:
    """The folder of an export, which is made if necessary; a second caller waits until it is made.

    It goes into the model folder, or into `cache` if that is read-only. Raises ModelError if neither can
    be written, if the disk is full, or if torch, which reads the weights, is not installed.
    """
    if found := find_export(checkpoint, exporter, precision, cache):
        return found
    stored = exporter.stored(precision)
    if not importlib.util.find_spec("torch"):
        raise NotExported(
            f"{checkpoint.path} has no {exporter.engine}/{stored} export that can be used, and torch, which "
            f"makes one, is not installed here: run EMBED_ENGINE={exporter.engine} flask model export "
            f"{checkpoint.path} --precision {precision} with the full image or installation"
        )
    for folder in _places(checkpoint, exporter, stored, cache):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with lock(folder.parent):
                if found := find_export(checkpoint, exporter, precision, cache):
                    return found
                _sweep(folder.parent)
                _export(checkpoint, exporter, stored, folder)
            return folder
        except PermissionError:
            continue
        except OSError as error:
            if error.errno == errno.EROFS:
                continue
            if found := find_export(
                checkpoint, exporter, precision, cache
            ):  # another process made it, without a lock
                return found
            there = next(parent for parent in folder.parents if parent.exists())
            free = shutil.disk_usage(there).free >> 20
            raise ModelError(
                f"the {stored} export cannot be written to {folder}, {free} MiB are free there: "
                f"{error.strerror or error}"
            ) from error
    raise ModelError(
        f"the {stored} export cannot be written to {checkpoint.path}: run flask model export where the "
        "folder is writable, or set EMBED_CACHE_DIR to a folder that is"
    )


def layers(checkpoint: Checkpoint) -> Iterator[int]:
    """The numbers of the layers, for an export to work through; the log says now and then how far it is."""
    told = time.monotonic()
    for layer in range(checkpoint.layers):
        yield layer
        if time.monotonic() > told + TOLD_SECONDS:
            told = time.monotonic()
            log.info("exporting: %d of %d layers are done", layer + 1, checkpoint.layers)


def find_kept(checkpoint: Checkpoint, name: str, cache: Path | None) -> Path | None:
    """A file that an export of the checkpoint has, whichever engine made it; None if none has it."""
    for place in _homes(checkpoint, cache):
        for file in sorted(place.glob(f"*/*/{name}")):
            identity = read_json(file.parent / NOTES).get("identity")
            made_of = identity.get("checkpoint") if isinstance(identity, dict) else None
            if made_of == checkpoint.fingerprint and _fits(file.parent, identity):
                return file
    return None


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file; {} if there is none that can be read."""
    try:
        notes = json.loads(file.read_text())
    except (OSError, ValueError, RecursionError):  # RecursionError: nested absurdly deep
        return {}
    return notes if isinstance(notes, dict) else {}


def read_array(file: Path, mapped: bool = False) -> NDArray[Any]:
    """Read an array of an export; raises ModelError with its file."""
    try:
        return np.asarray(np.load(file, mmap_mode="r" if mapped else None))
    except Exception as error:  # a damaged header can make numpy raise anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise ModelError(
            f"{file} cannot be read ({reason}): remove {file.parent}, and it is made again"
        ) from error


def read_scoring_head(folder: Path) -> ScoringHead:
    """Read a cross-encoder's head from its export; raises ModelError with the file at fault."""
    return ScoringHead(*(read_array(folder / f"{SCORING}{name}.npy") for name in ScoringHead._fields))


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Replace a file atomically; raises OSError if its folder is read-only."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(content, indent=2) + "\n")
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def _export(checkpoint: Checkpoint, exporter: Exporter, stored: str, folder: Path) -> None:
    from app.engine.weights import Weights  # slow to import, and only needed here: torch reads the weights

    start = time.monotonic()
    log.info("exporting %s in %s to %s, once: this may take minutes", checkpoint.path, stored, folder)
    partial = Path(tempfile.mkdtemp(prefix=_own_prefix(), dir=folder.parent))
    identity = _identity(checkpoint, exporter, stored)
    try:
        weights = Weights(checkpoint)
        if checkpoint.labels:
            for name, array in weights.scoring_head()._asdict().items():
                np.save(partial / f"{SCORING}{name}.npy", array)
        exporter.write(checkpoint, weights, stored, partial)
        sizes = {file.name: file.stat().st_size for file in sorted(partial.iterdir())}
        write_json(partial / NOTES, {"identity": identity, "files": sizes})
        partial.chmod(0o755)
        for file in partial.iterdir():
            file.chmod(0o644)
            with file.open("rb") as written:
                os.fsync(written.fileno())
        if _fits(folder, identity):
            return  # another process made it, without a lock
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("exported %s in %.0f s", folder, time.monotonic() - start)


def _fits(folder: Path, identity: Any) -> bool:
    """Whether the folder holds a complete export with this identity."""
    notes = read_json(folder / NOTES)
    sizes = notes.get("files")
    if notes.get("identity") != identity or not isinstance(sizes, dict) or not sizes:
        return False
    with contextlib.suppress(OSError, ValueError):  # ValueError: a name that no file can have
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    return False


def _places(checkpoint: Checkpoint, exporter: Exporter, stored: str, cache: Path | None) -> Iterator[Path]:
    for home in _homes(checkpoint, cache):
        yield home / exporter.engine / stored


def _homes(checkpoint: Checkpoint, cache: Path | None) -> Iterator[Path]:
    """Folders that hold exports of the checkpoint, by engine."""
    yield checkpoint.path
    if cache is not None:
        # Named by content, so that one cache can serve several models, and also one that was replaced.
        yield cache / f"{checkpoint.path.resolve().name}-{checkpoint.fingerprint[:12]}"


def _identity(checkpoint: Checkpoint, exporter: Exporter, stored: str) -> dict[str, Any]:
    return {"checkpoint": checkpoint.fingerprint, "precision": stored} | exporter.identity()


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Allow one export into a folder at a time, across the processes and containers that share it.

    On a file system without locks, several may make the same export.
    """
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process exports into %s: waiting for it", folder)
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            log.info("%s is on a file system without locks", folder)
        yield


def _own_prefix() -> str:
    return f"{PARTIAL}{platform.node()}-"


def _sweep(folder: Path) -> None:
    """Remove what killed exports have left: other hosts' only if old, as our lock may not exclude them."""
    for left in folder.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if left.name.startswith(_own_prefix()) or left.stat().st_mtime < time.time() - PARTIAL_SECONDS:
                shutil.rmtree(left)
