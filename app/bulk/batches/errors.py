"""What can go wrong with files and batches; each message is one sentence a person can act on."""

from typing import Any

from app.bulk.errors import BulkError

SHOWN = 80  # characters of a client's id in a message


class Unknown(BulkError):
    """There is no `kind` ("file" or "batch") with this id, or its record is damaged."""

    def __init__(self, kind: str, id: str) -> None:
        super().__init__(f"there is no {kind} {id[:SHOWN]!r}")
        self.kind = kind
        self.id = id


class InUse(BulkError):
    """The file is read or written by a batch that is not finished."""

    def __init__(self, id: str, batch_id: str) -> None:
        super().__init__(f"{id} is in use by {batch_id}: cancel that, or wait until it is finished")
        self.batch_id = batch_id


class FileTooLarge(BulkError):
    """The file has more than `most` bytes."""

    def __init__(self, most: int) -> None:
        super().__init__(f"the file is larger than {most} bytes: split it")
        self.most = most


class BatchFault(BulkError):
    """The batch cannot go on; `code` is for programs, the message for people, `param` the field at fault."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param

    def listed(self, line: int | None = None) -> dict[str, Any]:
        """This fault as OpenAI lists it in a batch."""
        return fault(self.code, str(self), self.param, line)


def fault(code: str, message: str, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    """An entry of a batch's list of errors; lines count from 1."""
    return {"code": code, "message": message, "param": param, "line": line}
