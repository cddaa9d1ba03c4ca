"""One format for every line the server prints, ours and Gunicorn's."""

import logging
from typing import Any

TEXT = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s"
FIELDS = "%(asctime)s %(process)d %(levelname)s %(name)s %(message)s"
NAMES = {"asctime": "time", "process": "pid", "levelname": "level", "name": "logger"}


# What Gunicorn says of its own start, in the place of which `ready: ...` stands.
OWN_START = ("Starting gunicorn", "Listening at", "Using worker", "Booting worker")


def not_gunicorns_start(record: logging.LogRecord) -> bool:
    """A filter of log records."""
    return not str(record.msg).startswith(OWN_START)


def log_config(format: str) -> dict[str, Any]:
    """For logging.config.dictConfig: everything on standard error, `text` or `json` a line."""
    formatters = {
        "text": {"format": TEXT},
        "json": {
            "()": "pythonjsonlogger.json.JsonFormatter",
            "fmt": FIELDS,
            "rename_fields": NAMES,
            "json_ensure_ascii": False,
        },
    }
    handler = {"class": "logging.StreamHandler", "formatter": format, "stream": "ext://sys.stderr"}
    ours = {"level": "INFO", "handlers": ["stderr"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {format: formatters[format]},
        "filters": {"start": {"()": lambda: not_gunicorns_start}},
        "handlers": {"stderr": handler},
        "root": {"level": "WARNING", "handlers": ["stderr"]},
        "loggers": {"gunicorn.error": ours | {"filters": ["start"]}, "app": ours},
    }
