"""Passages of our own in many languages: half to calibrate 8-bit weights with, half to measure them by."""

from pathlib import Path

from app.engine.checkpoint import Checkpoint
from app.engine.embeddings import IntArray
from app.engine.tokenizer import Tokenizer

TEXTS = Path(__file__).with_name("calibration.txt")
LONGEST = 512  # tokens


def calibration_sequences(checkpoint: Checkpoint, held_out: bool) -> list[IntArray]:
    """Token ids of the odd lines, which calibrate, or of the even ones, which are held out."""
    texts = TEXTS.read_text(encoding="utf-8").splitlines()[int(held_out) :: 2]
    return Tokenizer(checkpoint.tokenizer, min(LONGEST, checkpoint.max_tokens)).encode(texts).sequences
