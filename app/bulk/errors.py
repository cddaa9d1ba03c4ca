"""Errors that stop the embedding of a corpus; each message is one sentence a person can act on."""


class BulkError(Exception):
    """The source, the destination, the cluster or a row cannot be used as asked."""


class Stopped(BulkError):
    """Somebody asked to stop; everything written so far is kept."""

    def __init__(self) -> None:
        super().__init__("stopped; run the same command again to continue")


class RowFault(BulkError):
    """The row at `index` of a part has no text that can be embedded."""

    def __init__(self, index: int, fault: str) -> None:
        super().__init__(f"row {index} is {fault}")
        self.index = index
        self.fault = fault
