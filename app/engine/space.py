"""The name of an embedding space: vectors whose spaces have equal names can be compared."""

from pathlib import Path
from typing import cast

from app.engine.backends import Engine, exporter_for
from app.engine.checkpoint import Checkpoint, fingerprint
from app.engine.embeddings import Pooling, Precision
from app.engine.export import HELD_OUT, HELD_OUT_CLS, NOTES, find_export
from app.engine.measure import MEASURED
from app.engine.processor import cpu_features, kind_of

# Raise a precision's number with a change after which its vectors have a cosine below 0.9999 to those of
# before: another rounding, another calibration, another OpenVINO. tests/test_vectors.py fails until you do.
NUMERICS: dict[Precision, int] = {"fp32": 1, "bf16": 1, "int8": 2, "w8a16": 2}
DIGEST_CHARACTERS = 12  # of the model's digest
EXPORT_CHARACTERS = 6  # of an export's


def space_name(digest: str, pooling: Pooling, precision: Precision, rounding: str, max_tokens: int) -> str:
    """Name the space of a model's dense vectors, such as `f48d4534a7d8.mean.int8-native-5f0c27.512.1`.

    The parts are the model's digest, the pooling, the precision with its `rounding`, the most tokens of a
    text, and the version of our numerics. A prefix before each text, if there were one, would follow as a
    sixth part. Equal names promise a cosine of at least 0.9999 between vectors of the same text. Different
    names promise nothing.

    What a call chooses for its own texts is not in the name: which end of a text is cut, passages, fewer
    dimensions, an encoding. Lexical weights and multi-vectors do not depend on the pooling.
    """
    return f"{digest[:DIGEST_CHARACTERS]}.{pooling}.{precision}{rounding}.{max_tokens}.{NUMERICS[precision]}"


def rounding(checkpoint: Checkpoint, engine: str, precision: Precision, cache: Path | None) -> str:
    """What else decides how numbers are rounded, as the name has it; "" in fp32, where all engines agree.

    The native engine rounds alike on every processor; OpenVINO does not, and without VNNI its int8 overflows.
    With 8-bit weights it matters too where the export was made: other libraries round a few weights to their
    other neighbour, and a cosine between two exports was 0.9997.
    """
    if precision == "fp32":
        return ""
    parts = ["", engine]
    if engine == "openvino":
        parts.append(kind_of(cpu_features()))
    if precision in ("int8", "w8a16"):
        export = find_export(checkpoint, exporter_for(cast(Engine, engine)), precision, cache)
        parts.append(_digest(export)[:EXPORT_CHARACTERS] if export else "not-exported")
    return "-".join(parts)


def _digest(export: Path) -> str:
    """A digest of the weights in an export, without what was measured with them."""
    apart = (NOTES, MEASURED, HELD_OUT, HELD_OUT_CLS)
    return fingerprint(sorted(file for file in export.iterdir() if file.is_file() and file.name not in apart))
