"""What a model costs by its shape: operations, bytes, and the time they take at least."""

from typing import Any

# Bytes of a weight, where they are not one.
BYTES = {"fp32": 4, "bf16": 2}


def weights(model: dict[str, Any]) -> int:
    """Numbers in the layers' matrices, each of which multiplies every token once."""
    width, inner = model["hidden_size"], model["intermediate_size"]
    return model["num_hidden_layers"] * (4 * width**2 + 2 * width * inner)


def gflop(model: dict[str, Any], run: dict[str, Any]) -> float:
    """Multiplications and additions of a run's matrix products, padding not counted."""
    attention = 4 * run["tokens_squared"] * model["num_hidden_layers"] * model["hidden_size"]
    return (2 * run["tokens"] * weights(model) + attention) / 1e9


def least_seconds(
    model: dict[str, Any], run: dict[str, Any], precision: str, limits: dict[str, Any]
) -> float | None:
    """How long a text of a run takes at least, if each is a call of its own; None if a limit is not known.

    The weights must come from memory once, and meanwhile the products must be made: the slower decides.
    """
    limit = limits["gflops"].get(precision)
    if not limit:
        return None
    reading = weights(model) * BYTES.get(precision, 1) / limits["memory_gb_per_s"] / 1e9
    return max(reading, gflop(model, run) / run["texts"] / limit)
