"""Loads the tokenizer and the engine of a model folder."""

from app.engine.backends import AskedEngine, AskedPrecision, Backend, Place, load_backend
from app.engine.checkpoint import Checkpoint
from app.engine.errors import ModelError
from app.engine.model import Model, Padding
from app.engine.tokenizer import Tokenizer

# A tokenizer must know at least this share of the word embeddings' rows, or it belongs to another model.
# It need not know all of them: some rows only make a round number, others are left from a larger tokenizer.
LEAST_KNOWN = 0.5


def load_tokenizer(checkpoint: Checkpoint, max_tokens: int) -> Tokenizer:
    """Load the checkpoint's tokenizer; raises ModelError if it is unreadable or another model's."""
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
    """Load the engine, and the model for the batcher; raises ModelError with the file at fault."""
    backend = load_backend(checkpoint, engine, precision, place)
    padding = Padding(checkpoint.width, backend.start_tokens)
    return backend, Model(backend.forward, backend.preempt, padding)
