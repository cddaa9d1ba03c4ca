"""Makes the table of `benchmarks.bench` from the figures of every round."""

from statistics import median
from typing import Any

from benchmarks.cost import gflop


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """One row per profile, medians over the rounds; and how much of the encoder's speed HTTP keeps."""
    rows = {}
    for name in report["profiles"]:
        value = "p50_ms" if name == "query" else "tokens_per_second"
        plain, ours = (_values(report, name, of, value) for of in ("plain", "ours"))
        pairs = [(median(plain), median(ours)), *zip(plain, ours, strict=True)]
        # How many times as fast, even for figures where less is better.
        ratios = [left / right if value == "p50_ms" else right / left for left, right in pairs]
        rows[name] = {
            "unit": value,
            "plain": round(median(plain), 2),
            "ours": round(median(ours), 2),
            "ratio": round(ratios[0], 2),
            "ratio_range": [round(min(ratios[1:]), 2), round(max(ratios[1:]), 2)],
            "of_limit": _share_of_limit(report, name),
        }
    shares = [
        ours / alone
        for ours, alone in zip(
            _values(report, "batch", "ours", "tokens_per_second"),
            _values(report, "batch", "inprocess", "tokens_per_second"),
            strict=True,
        )
    ]
    dense = report["outputs"]["dense"]
    costs = {
        name: round(median(alone / speed for alone, speed in zip(dense, speeds, strict=True)), 3)
        for name, speeds in report["outputs"].items()
    }
    return {
        "rows": rows,
        "kept_over_http": round(median(shares), 3) if shares else None,
        "cost_of_outputs": costs,
    }


def table(report: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        f"{report['engine']} {report['precision']} beside plain transformers float32",
        f"{report['machine']['cpu']}, {report['machine']['cores']} cores: at most "
        + limits_line(report["limits"]),
        "",
        f"{'':<44}{'plain':>9}{'ours':>10}{'ratio':>8}{'rounds':>14}{'of limit':>10}",
    ]
    for name, row in report["summary"]["rows"].items():
        unit = "ms" if row["unit"] == "p50_ms" else "tokens/s"
        low, high = row["ratio_range"]
        share = f"{row['of_limit']:.0%}" if row["of_limit"] else "-"
        lines.append(
            f"{report['profiles'][name] + ', ' + unit:<44}{row['plain']:>9.1f}{row['ours']:>10.1f}"
            f"{row['ratio']:>8.2f}{f'{low:.2f}-{high:.2f}':>14}{share:>10}"
        )
    lines += ["", f"{'':<44}{'plain':>9}{'ours':>10}"]
    for label, *path in (
        ("ready after, s", "ready_seconds"),
        ("memory when ready, MiB", "ready_mib", "VmRSS"),
        ("memory after the longest text, MiB", "longest_text_mib", "VmRSS"),
        ("memory at most, MiB", "longest_text_mib", "VmHWM"),
    ):
        plain, ours = (_at(report["footprint"][of], path) for of in ("plain", "ours"))
        if plain is not None and ours is not None:
            lines.append(f"{label:<44}{plain:>9.1f}{ours:>10.1f}")
    if report["summary"]["kept_over_http"]:
        kept = report["summary"]["kept_over_http"]
        lines.append(f"{'of the encoder alone, kept over HTTP':<44}{'':>9}{kept:>10.1%}")
    costs = report["summary"]["cost_of_outputs"]
    lines.append(f"{'dense and sparse cost, of dense alone':<44}{'':>9}{costs['sparse']:>10.1%}")
    lines.append(f"{'all three outputs cost, of dense alone':<44}{'':>9}{costs['all']:>10.1%}")
    lines.append(f"{'lowest cosine between the two':<44}{'':>9}{report['lowest_cosine']:>10.5f}")
    return "\n".join(lines)


def limits_line(limits: dict[str, Any]) -> str:
    multiplied = (f"{limit:.0f} GFLOP/s in {kind}" for kind, limit in limits["gflops"].items())
    return ", ".join([*multiplied, f"{limits['memory_gb_per_s']:.1f} GB/s of memory"])


def _values(report: dict[str, Any], profile: str, of: str, value: str) -> list[float]:
    """One figure of every round, in order."""
    return [run[value] for run in report["runs"] if (run["profile"], run["of"]) == (profile, of)]


def _share_of_limit(report: dict[str, Any], profile: str) -> float | None:
    """The share of the processors' multiplications per second that ours reaches; None if not measured."""
    limit = report["limits"]["gflops"].get(report["precision"])
    if not limit:
        return None
    runs = [run for run in report["runs"] if (run["profile"], run["of"]) == (profile, "ours")]
    return round(median(gflop(report["model"], run) / run["seconds"] for run in runs) / limit, 3)


def _at(found: dict[str, Any], path: list[str]) -> float | None:
    for key in path:
        found = found.get(key, {})
    return found if isinstance(found, (int, float)) else None
