"""What clients speak: a file each, with its requests, views, answers, errors and examples.

A new one needs a file here and nothing elsewhere.
"""

import importlib
import pkgutil

from app.api.protocol import Protocol


def found() -> list[Protocol]:
    """The protocols of every module in this package."""
    modules = [
        importlib.import_module(one.name) for one in pkgutil.walk_packages(__path__, prefix=f"{__name__}.")
    ]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, Protocol) and value.import_name == module.__name__
    ]
