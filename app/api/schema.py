"""What all requests share: how they are checked, and what happens to unknown fields."""

import difflib
import re
from collections.abc import Mapping
from functools import cache
from itertools import islice
from typing import Any, ClassVar, Self, get_args

from flask import g
from marshmallow import EXCLUDE, Schema, ValidationError, post_load, pre_load

from app.api.fields import Choice, Truncate
from app.engine.embeddings import Pooling

LOOKED_AT = 16  # how many unknown fields of a request are checked for misspellings
ALIKE = 0.8  # difflib's ratio from which a name counts as misspelt
NAME_CHARACTERS = 64  # of a field's name, where an error or the log repeats it
PLAIN_NAME = re.compile(rf"[\w.-]{{1,{NAME_CHARACTERS}}}", re.ASCII)


class Request(Schema):
    """Unknown fields are ignored and null means "not given": clients send plenty of both."""

    synonyms: ClassVar[Mapping[str, str]] = {}  # other clients' names of fields

    class Meta:
        unknown = EXCLUDE

    @pre_load
    def prepare(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        given = {name: value for name, value in data.items() if value is not None}
        for name, known in self.synonyms.items():
            value = given.get(name)
            # Lists and objects may be nested too deeply to compare.
            if name in given and known in given and (isinstance(value, list | dict) or value != given[known]):
                raise ValidationError({name: [f"cannot be given together with {known}"]})
            given |= {known: value} if name in given else {}
        return given

    @classmethod
    def checked(cls, body: dict[str, Any]) -> dict[str, Any]:
        """What a body holds, checked; ValidationError. Misspelt names of fields are noted in `g.misspelt`."""
        schema = cls._instance()
        unknown = _unknown(body, {*schema.fields, *cls.synonyms})
        g.misspelt = {name: near for name, near in unknown.items() if near}
        found: dict[str, Any] = schema.load(body)
        if found.get("strict") and unknown:
            g.misspelt = {}  # they are not ignored
            raise ValidationError(
                {
                    name: ["is no field of this request" + (f": did you mean {near!r}?" if near else "")]
                    for name, near in unknown.items()
                }
            )
        return found

    @classmethod
    @cache  # to make one copies all of its fields
    def _instance(cls) -> Self:
        return cls()


def _unknown(body: dict[str, Any], known: set[str]) -> dict[str, str | None]:
    """Unknown fields, each with the known one that it resembles, if any."""
    names = islice((name for name in body if name not in known), LOOKED_AT)
    return {name[:NAME_CHARACTERS]: _closest(name, known) for name in names}


def _closest(name: str, known: set[str]) -> str | None:
    if not PLAIN_NAME.fullmatch(name):
        return None
    return next(iter(difflib.get_close_matches(name, known, 1, ALIKE)), None)


class TextsRequest(Request):
    """A request with texts, which may be too long, and are pooled."""

    truncate = Truncate(
        load_default="right",
        allow_none=True,
        metadata={
            "default": True,
            "description": "true, or `END`, cuts a text that is too long at its end, `START` at its "
            "beginning; false, or `NONE`, refuses it.",
        },
    )
    truncation_direction = Choice(
        "right",
        "left",
        load_default="right",
        metadata={"description": "Where a text is cut: `right`, at its end, or `left`, at its beginning."},
    )

    pooling = Choice(
        *get_args(Pooling),
        load_default=None,
        metadata={
            "description": "`mean` or `cls`; if left out the server's own (EMBED_POOLING), for scores that "
            "which the model was trained for."
        },
    )

    @post_load
    def join_direction(self, data: dict[str, Any], **_: Any) -> dict[str, Any]:
        if data.pop("truncation_direction") == "left" and data["truncate"]:
            data["truncate"] = "left"
        return data
