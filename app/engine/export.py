"""Exports: a checkpoint's graph on disk in one precision, made once, remade when either side changes."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openvino as ov

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import Precision
from app.engine.errors import ModelError

log = logging.getLogger(__name__)

FORMAT = 2  # of the graph; raise it with every change of graph.py that changes vectors or inputs
GRAPH = "encoder.xml"
NOTES = "export.json"
# What one that is being made is called, before the machine that makes it; nothing takes longer than that.
PARTIAL = ".partial-"
PARTIAL_SECONDS = 7200


def find_export(checkpoint: Checkpoint, precision: Precision, cache: Path | None) -> Path | None:
    """The folder of an export that fits checkpoint and versions, None if there is none."""
    identity = _identity(checkpoint, precision)
    for folder in _places(checkpoint, precision, cache):
        if _fits(folder, identity):
            return folder
    return None


def _fits(folder: Path, identity: dict[str, Any]) -> bool:
    return read_notes(folder).get("identity") == identity and (folder / GRAPH).is_file()


def ensure_export(checkpoint: Checkpoint, precision: Precision, cache: Path | None) -> Path:
    """The graph's file, exported first if need be; whoever comes second waits and finds it.

    It goes into the model folder or, where that is read-only, into `cache`. ModelError if neither can
    be written or the disk is full.
    """
    if found := find_export(checkpoint, precision, cache):
        return found / GRAPH
    for folder in _places(checkpoint, precision, cache):
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with _lock(folder.parent):
                if found := find_export(checkpoint, precision, cache):
                    return found / GRAPH
                _sweep(folder.parent)
                _export(checkpoint, precision, folder)
            return folder / GRAPH
        except PermissionError:
            continue
        except OSError as error:
            if error.errno == errno.EROFS:
                continue
            if found := find_export(checkpoint, precision, cache):  # another's, who had no lock either
                return found / GRAPH
            raise ModelError(
                f"the {precision} export cannot be written to {folder}: {error.strerror}"
            ) from error
    raise ModelError(
        f"the {precision} export cannot be written to {checkpoint.path}: run flask model export where the "
        "folder is writable, or set EMBED_CACHE_DIR to a folder that is"
    )


def read_notes(folder: Path) -> dict[str, Any]:
    """What an export says of itself, {} if it says nothing that can be read."""
    try:
        notes = json.loads((folder / NOTES).read_text())
    except (OSError, ValueError):
        return {}
    return notes if isinstance(notes, dict) else {}


def _export(checkpoint: Checkpoint, precision: Precision, folder: Path) -> None:
    # Heavy and only needed here: torch reads the weights.
    from app.engine.graph import build_graph
    from app.engine.quantize import largest_inputs, measure
    from app.engine.weights import Weights

    start = time.monotonic()
    log.info("exporting %s in %s to %s, once", checkpoint.path, precision, folder)
    weights = Weights(checkpoint)
    partial = Path(tempfile.mkdtemp(prefix=_own_prefix(), dir=folder.parent))
    try:
        largest = largest_inputs(checkpoint, weights) if precision == "int8" else None
        graph = build_graph(checkpoint, weights, precision, largest)
        _save(graph, partial / GRAPH)
        notes = {"identity": _identity(checkpoint, precision)}
        if precision == "int8":
            del graph
            notes["quality"] = measure(checkpoint, weights, partial / GRAPH)
        (partial / NOTES).write_text(json.dumps(notes, indent=2) + "\n")
        partial.chmod(0o755)
        for file in partial.iterdir():
            file.chmod(0o644)
        if _fits(folder, notes["identity"]):
            return  # another's, who had no lock either
        if folder.exists():
            shutil.rmtree(folder)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    log.info("exported %s in %.0f s", folder, time.monotonic() - start)


def _save(graph: ov.Model, file: Path) -> None:
    try:
        ov.save_model(graph, file, compress_to_fp16=False)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        free = shutil.disk_usage(file.parent).free >> 20
        raise OSError(0, f"OpenVINO could not write it, {free} MiB are free there: {reason}") from error
    with file.with_suffix(".bin").open("rb") as written:
        os.fsync(written.fileno())


def _places(checkpoint: Checkpoint, precision: Precision, cache: Path | None) -> Iterator[Path]:
    yield checkpoint.path / "openvino" / precision
    if cache is not None:
        # By content, so that one cache serves several models and a replaced one is not confused.
        yield cache / f"{checkpoint.path.resolve().name}-{checkpoint.fingerprint[:12]}" / precision


def _identity(checkpoint: Checkpoint, precision: Precision) -> dict[str, Any]:
    return {
        "checkpoint": checkpoint.fingerprint,
        "precision": precision,
        "format": FORMAT,
        "openvino": ov.__version__,
    }


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """One export into a folder at a time, over processes and containers that share it.

    On a file system without locks several may make the same export.
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
    """Remove what exports that were killed have left. A lock may not hold for other machines."""
    for left in folder.glob(f"{PARTIAL}*"):
        with contextlib.suppress(OSError):
            if left.name.startswith(_own_prefix()) or left.stat().st_mtime < time.time() - PARTIAL_SECONDS:
                shutil.rmtree(left)
