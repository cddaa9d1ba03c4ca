"""What Xinference's client asks before it embeds by OpenAI's protocol."""

from typing import Any

from marshmallow import Schema, fields

from app.api.documented import documented
from app.api.protocol import Protocol


class ClusterAuth(Schema):
    auth = fields.Boolean(required=True, metadata={"description": "false: there is nobody to log in as."})


xinference = Protocol("xinference", __name__, open={"auth"})


@xinference.get("/v1/cluster/auth")
@documented("Whether one has to log in", responses={200: (ClusterAuth, "no")}, tag="Xinference")
def auth() -> dict[str, Any]:
    """Keys, where some are set, are brought with each request."""
    return {"auth": False}
