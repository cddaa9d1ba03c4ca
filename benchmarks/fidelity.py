"""How close each engine and precision comes to torch in fp32, the reference: `python -m benchmarks.fidelity`.

Every row runs in a process of its own, on this processor or limited to an older instruction set. It embeds
the passages of app/engine/held_out.txt, which calibrate nothing, one at a time and all in one call. What this
processor cannot run has a row that says so.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from app.engine.processor import cpu_features
from app.engine.texts import HELD_OUT
from benchmarks import machine
from benchmarks.isa import held
from benchmarks.services import ROOT, InProcess, StartFailed, our_environ

DEMO = ROOT / "models" / "multilingual-e5-small"
NEAREST = 10


@dataclass(frozen=True)
class Row:
    """An engine in a precision; `isa` limits it, `needs` is the extension without which it does not run."""

    engine: str
    precision: str
    isa: str = ""
    needs: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.engine} {self.precision}" + (f", limited to {self.isa}" if self.isa else "")


BF16 = ("avx512_bf16", "amx_bf16")
NEWER = ("avx512f", "avx_vnni")  # than AVX2: else there is nothing to limit
REFERENCE = Row("torch", "fp32")
ROWS = [
    Row("native", "fp32"),
    Row("native", "bf16", needs=BF16[:1]),
    Row("native", "w8a16"),
    Row("native", "int8"),
    Row("openvino", "fp32"),
    Row("openvino", "bf16", needs=BF16),
    Row("openvino", "int8"),
    *(
        Row(engine, precision, "avx2", NEWER)
        for engine, precision in (
            ("native", "fp32"),
            ("native", "w8a16"),
            ("native", "int8"),
            ("openvino", "fp32"),
            ("openvino", "int8"),
        )
    ),
    Row("openvino", "fp32", "sse41"),
    Row("openvino", "int8", "sse41"),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--model", type=Path, default=DEMO, help="a model folder (%(default)s)")
    parser.add_argument("--save", action="store_true", help="keep the report in benchmarks/results")
    options = parser.parse_args()
    texts = HELD_OUT.read_text(encoding="utf-8").splitlines()
    exact, _ = embedded(options.model, REFERENCE, texts)
    rows = []
    for row in ROWS:
        print(f"{row.name} ...", file=sys.stderr)
        rows.append(asdict(row) | {"name": row.name} | measured(options.model, row, texts, exact))
    report = machine.describe() | {"model": options.model.name, "texts": len(texts), "rows": rows}
    print(table(report))
    if options.save:
        machine.save(report, "fidelity")


def measured(model: Path, row: Row, texts: list[str], exact: np.ndarray) -> dict[str, Any]:
    """A row's figures, or why there are none."""
    if row.needs and not set(row.needs) & cpu_features():
        return {"not_run": f"this processor has no {' or '.join(row.needs)}"}
    try:
        alone, together = embedded(model, row, texts)
    except StartFailed as error:
        return {"not_run": str(error).strip().splitlines()[-1]}
    cosine = (alone * exact).sum(axis=1)
    return {
        "cosine_mean": float(cosine.mean()),
        "cosine_min": float(cosine.min()),
        "alone_in_batch": float((alone * together).sum(axis=1).min()),
        **order_of_ten(alone, exact),
    }


def embedded(model: Path, row: Row, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of length 1, of texts that were alone in their call, and of texts in one call. (n, d) each"""
    environ = our_environ(model.resolve(), row.engine, row.precision) | held(row.isa)
    with InProcess(environ) as process:
        calls = ([[text] for text in texts], [texts])
        found = [np.array(process.tell({"calls": each, "vectors": True})["vectors"]) for each in calls]
        running = process.running()
    if running != (row.engine, row.precision):
        raise StartFailed(f"{row.name}: {running} ran in its place")
    alone, together = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in found)
    return alone, together


def order_of_ten(found: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """How much stays of each text's ten nearest others: the share that is still among them, and the share of
    their pairs that are still in the same order."""
    first, second = np.triu_indices(NEAREST, 1)
    kept, ordered = [], []
    for near, now in zip(*(_scores(rows) for rows in (exact, found)), strict=True):
        best = np.argsort(-near)[:NEAREST]
        kept.append(np.isin(best, np.argsort(-now)[:NEAREST]).mean())
        ordered.append((now[best[first]] >= now[best[second]]).mean())
    return {"ten_kept": float(np.mean(kept)), "order_kept": float(np.mean(ordered))}


def _scores(vectors: np.ndarray) -> np.ndarray:
    scores = vectors @ vectors.T
    np.fill_diagonal(scores, -2)
    return scores


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    lines = [
        "| engine and precision | mean cosine | lowest | alone / in a batch | ten nearest kept | in order |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        if "not_run" in row:
            lines.append(f"| {row['name']} | not run: {row['not_run']} | | | | |")
            continue
        cosines = " | ".join(f"{row[name]:.6f}" for name in ("cosine_mean", "cosine_min", "alone_in_batch"))
        shares = " | ".join(f"{row[name]:.1%}" for name in ("ten_kept", "order_kept"))
        lines.append(f"| {row['name']} | {cosines} | {shares} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
