"""A model folder made ready to compute."""

from app.engine.backends import AskedEngine, AskedPrecision, Backend, Place, load_backend
from app.engine.checkpoint import Checkpoint
from app.engine.errors import ModelError
from app.engine.model import Model, Padding
from app.engine.tokenizer import Tokenizer

# Of its weights' rows a tokenizer knows this share at least, or it is another model's: some are there to
# make a round number, and some are left from a larger tokenizer.
LEAST_KNOWN = 0.5


def load_tokenizer(checkpoint: Checkpoint, max_tokens: int) -> Tokenizer:
    """The checkpoint's own; ModelError where it cannot be read, or is another model's."""
    tokenizer = Tokenizer(checkpoint.tokenizer, max_tokens)
    if not LEAST_KNOWN * checkpoint.vocabulary <= tokenizer.vocabulary <= checkpoint.vocabulary:
        raise ModelError(
            f"{checkpoint.tokenizer} has {tokenizer.vocabulary} token ids, "
            f"the weights of {checkpoint.path} have {checkpoint.vocabulary}: it is another model's tokenizer"
        )
    return tokenizer


def load_model(
    checkpoint: Checkpoint, engine: AskedEngine, precision: AskedPrecision, place: Place
) -> tuple[Backend, Model]:
    """The engine for what was asked, and the same for the batcher; ModelError names the file at fault."""
    backend = load_backend(checkpoint, engine, precision, place)
    padding = Padding(checkpoint.width, backend.start_tokens)
    return backend, Model(backend.forward, backend.preempt, padding)
