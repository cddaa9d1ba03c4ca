"""How the program was installed, and where models and caches are kept then."""

import os
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

PACKAGE = "bge-m3-server"
ROOT = Path(__file__).parent.parent
# In a clone everything is made by make; in an image neither is there, and the commands are Flask's.
IN_CLONE = (ROOT / "Makefile").is_file()
ENCODER, DEMO = "bge-m3", "multilingual-e5-small"


def _is_installed() -> bool:
    try:
        return bool(version(PACKAGE))
    except PackageNotFoundError:
        return False


COMMAND = "bge-m3" if not IN_CLONE and _is_installed() else "flask"
EVALUATION_DATA = Path(".venv/evaluation")  # where make puts it
GET_MODEL = "make model" if IN_CLONE else f"{COMMAND} model download"


def requirements(extra: str) -> str:
    """What to type to install what is optional."""
    if COMMAND == "flask":
        return f"pip install -r requirements-{extra}.txt"
    named = (entry.partition(";") for entry in requires(PACKAGE) or [])
    wanted = [name.strip() for name, _, marker in named if f"extra == '{extra}'" in marker.replace('"', "'")]
    return f"pip install {' '.join(wanted)}"


def no_model(folder: Path) -> str:
    """That a model folder does not exist, and how to get one."""
    if IN_CLONE:
        demo = "`make run` serves"
    else:
        demo = "`bge-m3 serve` serves" if COMMAND == "bge-m3" else "`flask model demo` makes"
    return (
        f"there is no model folder {folder}. {demo} a small demo model, {DEMO}; "
        f"`{GET_MODEL}` downloads BGE-M3 (2.3 GB), and EMBED_MODEL_PATH names another folder"
    )


def no_data(folder: Path) -> str:
    """That a folder of evaluation data does not exist, and how to get one."""
    if folder != EVALUATION_DATA:
        return f"there is no folder {folder}"
    where = "" if IN_CLONE else ", in a clone of the project,"
    return (
        f"there are no texts to evaluate with: `make evaluation-data`{where} fetches them, --data names yours"
    )


def models_folder() -> Path:
    """`models` in the current folder where it is there or this is no installed package, else the user's."""
    here = Path("models")
    if here.is_dir() or COMMAND == "flask":
        return here
    return _of_user("XDG_DATA_HOME", ".local/share") / "models"


def find_model() -> Path | None:
    """The folder to serve where none is named: BGE-M3 where it is, else the demo model."""
    there = (models_folder() / name for name in (ENCODER, DEMO))
    return next((folder for folder in there if (folder / "config.json").is_file()), None)


def cache_folder() -> Path:
    """The user's, for exports and compiled code where theirs cannot be written."""
    return _of_user("XDG_CACHE_HOME", ".cache")


def _of_user(variable: str, usual: str) -> Path:
    return Path(os.environ.get(variable) or Path.home() / usual) / "bge-m3"
