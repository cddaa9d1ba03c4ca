"""The name of an embedding space: vectors whose spaces have equal names can be compared."""

from functools import cache

from app.engine.embeddings import Pooling, Precision
from app.engine.processor import cpu_features, kind_of

# Raise a precision's number with a change after which its vectors have a cosine below 0.9999 to those of
# before: another rounding, another calibration, another OpenVINO. tests/test_vectors.py fails until you do.
NUMERICS: dict[Precision, int] = {"fp32": 1, "bf16": 1, "int8": 1, "w8a16": 1}
DIGEST_CHARACTERS = 12  # of the weights' digest


def space_name(digest: str, pooling: Pooling, engine: str, precision: Precision, max_tokens: int) -> str:
    """Name the space of a model's dense vectors, such as `ddaf993d106a.mean.int8-native.512.1`.

    The parts are the weights' digest, the pooling, the precision, the most tokens of a text, and the version
    of our numerics. A prefix before each text, if there were one, would follow as a sixth part. Equal names
    promise a cosine of at least 0.9999 between vectors of the same text. Different names promise nothing.

    What a call chooses for its own texts is not in the name: which end of a text is cut, passages, fewer
    dimensions, an encoding. Lexical weights and multi-vectors do not depend on the pooling.
    """
    numbers = _numbers(engine, precision)
    return f"{digest[:DIGEST_CHARACTERS]}.{pooling}.{numbers}.{max_tokens}.{NUMERICS[precision]}"


@cache
def _numbers(engine: str, precision: Precision) -> str:
    """The precision, and what else decides how numbers are rounded: nothing in fp32, where all engines agree.

    The native engine computes the same on every processor. OpenVINO does not: without VNNI, int8 overflows.
    """
    if precision == "fp32":
        return precision
    return f"{precision}-{engine}" + (f"-{kind_of(cpu_features())}" if engine == "openvino" else "")
