"""Finds and opens files and folders on any file system."""

import glob
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from fsspec.implementations.arrow import ArrowFSWrapper
from pyarrow import fs

from app.bulk.errors import BulkError
from app.bulk.formats import File


def open_place(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or of a URI such as s3://bucket/folder, and the path within it."""
    if "://" not in place:
        return fs.LocalFileSystem(), str(Path(place).absolute())
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(place)
        return found
    except (OSError, pa.ArrowException) as error:
        raise BulkError(f"{place} cannot be opened: {error}") from error


def find_files(files: fs.FileSystem, path: str, place: str) -> list[File]:
    """The files of a path, a folder or a glob, sorted by path; `place` is the name the user gave it."""
    base = path
    try:
        info = files.get_file_info(path)
        if info.type == fs.FileType.File:
            return [File(path, info.base_name, info.size, info.mtime_ns or 0)]
        if info.type == fs.FileType.NotFound and (marks := [place.index(m) for m in "*?[" if m in place]):
            literal = path.removesuffix(place)  # the current folder, whose name may look like a glob
            base = literal + place[: min(marks)].rpartition("/")[0]
            if "://" in place:
                literal, base = "", path[: min(path.index(m) for m in "*?[" if m in path)].rpartition("/")[0]
            pattern = glob.escape(literal) + path.removeprefix(literal)
            infos = files.get_file_info([str(name) for name in ArrowFSWrapper(files).glob(pattern)])
        else:
            infos = list(_walk(files, path))
        named = [
            File(info.path, info.path.removeprefix(base).lstrip("/"), info.size, info.mtime_ns or 0)
            for info in infos
            if info.type == fs.FileType.File
        ]
    except UnicodeDecodeError:
        raise BulkError(f"{place} holds a file or folder whose name is not UTF-8: rename it") from None
    except (OSError, pa.ArrowException) as error:
        raise BulkError(f"{place} cannot be opened: {error}") from error
    # By convention, names that begin with a dot or _ are not data.
    found = [file for file in named if not any(name.startswith((".", "_")) for name in file.name.split("/"))]
    if not found:
        raise BulkError(f"there is no file at {place}")
    return sorted(found, key=lambda file: file.path)


def _walk(files: fs.FileSystem, folder: str) -> Iterator[fs.FileInfo]:
    """All files below a folder. A link to a folder above it is not followed, as that would never end."""
    for info in files.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        if info.type != fs.FileType.Directory:
            yield info
        elif not (isinstance(files, fs.LocalFileSystem) and _leads_up(Path(info.path))):
            yield from _walk(files, info.path)


def _leads_up(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())
