"""What can go wrong in the engine; the message is always one sentence a person can act on.

EngineError
├── ModelError        the model folder cannot be served as it is
├── NotLoaded         encode() before load() or after close()
├── TextTooLong       truncation was refused and a text is over the limit
└── NotFinite         the model produced NaN or infinity for a text
"""


class EngineError(Exception):
    """Base of everything the engine raises on purpose."""


class ModelError(EngineError):
    """The model folder cannot be served; the message names the folder and the file."""


class NotLoaded(EngineError):
    """The encoder has no weights in memory, yet or any more."""


class TextTooLong(EngineError):
    """`truncate` is false and the text at `index` has `tokens` tokens, over `limit`."""

    def __init__(self, index: int, tokens: int, limit: int) -> None:
        super().__init__(
            f"text {index} has {tokens} tokens, the limit is {limit}: "
            "shorten it, or leave truncate at true to have it cut"
        )
        self.index = index
        self.tokens = tokens
        self.limit = limit


class NotFinite(EngineError):
    """The vector of the text at `index` holds NaN or infinity."""

    def __init__(self, index: int) -> None:
        super().__init__(f"the model gave no finite vector for text {index}")
        self.index = index
