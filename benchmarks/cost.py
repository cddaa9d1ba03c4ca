"""What a model of a given shape costs: operations, bytes, and the least time that they take."""

from typing import Any

# Bytes per weight, if not one.
BYTES = {"fp32": 4, "bf16": 2}


def weights(model: dict[str, Any]) -> int:
    """How many numbers the layers' matrices have; each is multiplied once per token."""
    width, inner = model["hidden_size"], model["intermediate_size"]
    return model["num_hidden_layers"] * (4 * width**2 + 2 * width * inner)


def gflop(model: dict[str, Any], run: dict[str, Any]) -> float:
    """Multiplications and additions in a run's matrix products, without padding."""
    attention = 4 * run["tokens_squared"] * model["num_hidden_layers"] * model["hidden_size"]
    return (2 * run["tokens"] * weights(model) + attention) / 1e9


def least_seconds(
    model: dict[str, Any], run: dict[str, Any], precision: str, limits: dict[str, Any]
) -> float | None:
    """The least time per text of a run, if each text is a call of its own; None if a limit is unknown.

    The weights are read from memory once while the products are computed; the slower of the two decides.
    """
    limit = limits["gflops"].get(precision)
    if not limit:
        return None
    reading = weights(model) * BYTES.get(precision, 1) / limits["memory_gb_per_s"] / 1e9
    return max(reading, gflop(model, run) / run["texts"] / limit)
