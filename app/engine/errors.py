"""The engine's errors; each message is one sentence that a person can act on.

EngineError
├── ModelError        the model folder cannot be served as it is
├── NotLoaded         encode() before load() or after close()
├── TextTooLong       truncation was refused and a text is over the limit
├── MissingHead       the checkpoint has no weights for an output
├── ChunkOutOfRange   the size or the overlap of passages is out of range
├── LateNeedsMean     late chunking was asked for with another pooling
├── TooMuchOutput     the answer would hold too many numbers or tokens
├── Overloaded        too many tokens are queued already
├── TooLate           the call waited longer than allowed
├── Abandoned         the caller has gone away
└── NotFinite         the model produced NaN or infinity for a text
"""


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class ModelError(EngineError):
    """The model folder cannot be served; the message names the folder and the file."""


class NotExported(ModelError):
    """The model has no export, and none can be made here; the message says what makes one."""


class NotLoaded(EngineError):
    """The encoder has no weights in memory: not yet, or no longer."""


class TextTooLong(EngineError):
    """`truncate` is None and the text at `index` has `tokens` tokens, over `limit`; None: not counted.

    In a pair, the query is too long if `query`, otherwise the passage or both together.
    """

    def __init__(self, index: int, tokens: int | None, limit: int, query: bool = False) -> None:
        which = "the query of text" if query else "text"
        super().__init__(
            f"{which} {index} has {tokens or 'too many'} tokens, the limit is {limit}: "
            "shorten it, or leave truncate at true to have it cut"
        )
        self.index = index
        self.tokens = tokens
        self.limit = limit
        self.query = query


class MissingHead(EngineError):
    """The checkpoint came without the weights of `head`."""

    def __init__(self, head: str) -> None:
        names = {"sparse": "lexical weights", "colbert": "multi-vectors"}
        super().__init__(f"this model has no {names[head]}")
        self.head = head


class ChunkOutOfRange(EngineError):
    """The setting `name` (`tokens` or `overlap` of a passage) must be from `least` to `most`."""

    def __init__(self, name: str, least: int, most: int) -> None:
        why = "half of tokens" if name == "overlap" else "the model's limit"
        super().__init__(f"{name} must be a whole number from {least} to {most}, {why}")
        self.name = name
        self.least = least
        self.most = most


class LateNeedsMean(EngineError):
    """Late chunking averages the tokens of each passage, and `cls` is not a mean."""

    def __init__(self) -> None:
        super().__init__(
            "late chunking averages the tokens of each passage, so it needs mean pooling, not cls: "
            "ask for mean pooling, or leave late chunking out"
        )


class TooMuchOutput(EngineError):
    """The answer would hold `count` numbers or tokens, over `limit`; None: not counted."""

    def __init__(self, what: str, count: int | None, limit: int) -> None:
        super().__init__(
            f"these texts would give {count or 'too many'} {what}, the limit is {limit}: "
            "send fewer or shorter texts in one request"
        )
        self.what = what


class Overloaded(EngineError):
    """`waiting` tokens are queued, and the limit leaves no room for more."""

    def __init__(self, waiting: int, limit: int, seconds: int) -> None:
        super().__init__(f"{waiting} tokens are waiting, the limit is {limit}: try again in {seconds} s")
        self.waiting = waiting
        self.limit = limit
        self.seconds = seconds  # until the queue should be empty


class TooLate(EngineError):
    """The call's turn did not come in time; texts that had not started were not computed."""

    def __init__(self) -> None:
        super().__init__("the request waited too long for its turn, try again later")


class Abandoned(EngineError):
    """Nobody waits for this call any more; texts that had not started were not computed."""

    def __init__(self) -> None:
        super().__init__("the client went away before its answer")


class NotFinite(EngineError):
    """The vectors of the texts at `indices` hold NaN or infinity."""

    def __init__(self, indices: list[int]) -> None:
        super().__init__(f"the model gave no finite vector for text {indices[0]}")
        self.indices = indices
