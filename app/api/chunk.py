"""How a request says that its texts are to be cut into passages, and how an answer says where."""

from collections.abc import Mapping
from typing import Any

from marshmallow import ValidationError

from app.api.context import encoder
from app.api.fields import OwnField, json_name
from app.engine.embeddings import LEAST_CHUNK_TOKENS, Chunking, Passage
from app.engine.errors import ChunkOutOfRange


class Chunk(OwnField[Chunking | None]):
    """true, false, or an object that says how."""

    def openapi(self, most: int) -> dict[str, Any]:
        how = {
            "type": "object",
            "properties": {
                "tokens": {"type": "integer", "minimum": LEAST_CHUNK_TOKENS, "nullable": True},
                "overlap": {"type": "integer", "minimum": 0, "nullable": True},
                "late": {"type": "boolean", "nullable": True},
            },
            "additionalProperties": False,
        }
        return {"oneOf": [{"type": "boolean"}, how]}

    def _deserialize(
        self, value: Any, attr: str | None, data: Mapping[str, Any] | None, **_: Any
    ) -> Chunking | None:
        if value is False:
            return None
        asked = {} if value is True else value
        if not isinstance(asked, dict):
            raise ValidationError(
                'must be true, false, or an object with "tokens", "overlap" and "late", '
                f"not {json_name(value)}"
            )
        for name in asked:
            if name not in ("tokens", "overlap", "late"):
                raise ValidationError(f'{name[:64]!r} is none of "tokens", "overlap" and "late"')
        given = {name: part for name, part in asked.items() if part is not None}
        late = given.get("late", False)
        if not isinstance(late, bool):
            raise ValidationError(f"late must be true or false, not {json_name(late)}")
        try:
            return Chunking.of(encoder().info.max_tokens, **given)
        except ChunkOutOfRange as error:
            raise ValidationError(str(error)) from None


def chunks(passages: list[Passage]) -> list[dict[str, int]]:
    """Where each passage is: of which text, and its characters."""
    return [
        {"input": one.text, "start": one.start, "end": one.stop, "tokens": one.tokens} for one in passages
    ]
