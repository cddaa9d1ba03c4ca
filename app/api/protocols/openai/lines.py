"""Lines of a batch's input, answered as /v1/embeddings answers requests."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import orjson
from flask import Flask, current_app, g
from marshmallow import ValidationError

from app.api.answer import in_pieces
from app.api.ask import check_width, served_name, shaped
from app.api.context import encoder
from app.api.protocols.openai import EmbeddingsRequest, together, written
from app.api.request_log import request_id
from app.api.space import HEADER, check_space
from app.bulk.batches import Result
from app.engine.embeddings import Embeddings
from app.engine.errors import Abandoned, NotLoaded, Overloaded, TextTooLong, TooLate

ENDPOINT = "/v1/embeddings"
LATER = Overloaded, TooLate, NotLoaded, Abandoned  # say nothing of a line


class Answers:
    """Called by the runner of batches."""

    def __init__(self, app: Flask) -> None:
        self._app = app

    def __call__(self, lines: list[bytes], gone: Callable[[], bool], space: str) -> list[Result]:
        """A result for each line, in order; raises what Encoder.encode does where it may be asked again."""
        # A line is a request to that path, also for what shapes its errors.
        with self._app.test_request_context(ENDPOINT, method="POST", headers={HEADER: space}):
            requests = [_Line(line) for line in lines]
            for _, alike in itertools.groupby(requests, key=lambda one: one.alike):
                _encode(list(alike), gone)
            return [one.result() for one in requests]


class _Line:
    """A line of the input, checked; and what becomes of it."""

    def __init__(self, line: bytes) -> None:
        sent = orjson.loads(line)
        self._custom_id = sent["custom_id"]
        self._status, self._body = 200, b""
        self.asked: dict[str, Any] = {}
        try:
            self.asked = EmbeddingsRequest.checked(sent["body"])
            served_name(self.asked["model"])
            check_space(self.asked["pooling"])
            check_width(self.asked["dimensions"])
        except LATER:
            raise
        except Exception as error:
            self.fail(error)
        self._misspelt: dict[str, str] = g.pop("misspelt", {})

    @property
    def alike(self) -> Any:
        """Lines of which this is the same can be encoded in one call; None: this one has failed."""
        if self._status != 200:
            return None
        alone = id(self) if together(self.asked) else None
        return self.asked["pooling"], self.asked["truncate"], alone

    def fail(self, error: Exception) -> None:
        """Answer as where a view raised this."""
        response = current_app.make_response(current_app.handle_user_exception(error))
        self._status, self._body = response.status_code, response.get_data()

    def answer(self, found: Embeddings) -> None:
        """Write the vectors of its texts down."""
        try:
            found = shaped(found, self.asked["dimensions"], self.asked["normalized"])
            content = written(found, served_name(self.asked["model"]), self.asked)
            self._body = b"".join(in_pieces(content, encoder().give_way))
        except LATER:
            raise
        except Exception as error:
            self.fail(error)

    def result(self) -> Result:
        number = request_id("")
        told = {
            "id": f"batch_req_{number}",
            "custom_id": self._custom_id,
            "response": {
                "status_code": self._status,
                "request_id": number,
                "body": orjson.Fragment(self._body),
            },
            "error": None,
        }
        return Result(orjson.dumps(told), self._status != 200, self._misspelt)


def _encode(lines: list[_Line], gone: Callable[[], bool]) -> None:
    """Answer lines that go together, in one call; where a text of one cannot be, line by line."""
    if lines[0].alike is None:
        return
    pooling, truncate, _ = lines[0].alike
    texts = [text for line in lines for text in line.asked["input"]]
    try:
        found = encoder().encode(
            texts,
            pooling=pooling,
            truncate=truncate,
            priority="bulk",
            gone=gone,
            patient=True,
            chunk=together(lines[0].asked),
        )
    except LATER:
        raise
    except Exception as error:
        if len(lines) == 1:
            fault = ValidationError({"input": [str(error)]}) if isinstance(error, TextTooLong) else error
            lines[0].fail(fault)
            return
        for line in lines:
            _encode([line], gone)
        return
    if len(lines) == 1:
        lines[0].answer(found)
        return
    start = 0
    for line in lines:
        rows = slice(start, start := start + len(line.asked["input"]))
        line.answer(
            replace(
                found,
                dense=found.dense[rows],
                lengths=found.lengths[rows],
                token_counts=found.token_counts[rows],
            )
        )
