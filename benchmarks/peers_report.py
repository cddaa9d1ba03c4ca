"""Makes the tables of `benchmarks.peers` from the figures of every round."""

from collections.abc import Iterator
from statistics import median
from typing import Any

from benchmarks.cost import gflop, least_seconds
from benchmarks.entrants import OURS, PEERS, PROFILES
from benchmarks.report import limits_line

QUERY = "query"


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """The medians of each, ours compared with the best peer in every profile, and with the limits."""
    names = list(dict.fromkeys(run["of"] for run in report["runs"]))
    medians = {name: _medians(report["runs"], name) for name in names}
    return {
        "medians": medians,
        "verdicts": {name: _verdicts(report, medians, name) for name in OURS},
        "limits": {name: _beside_limits(report, name) for name in OURS},
    }


def _medians(runs: list[dict[str, Any]], name: str) -> dict[str, dict[str, float]]:
    """The medians over the rounds, for each profile at its best batch size."""
    found = {}
    for profile in PROFILES:
        mine = _runs(runs, name, profile.name)
        rows = [
            {"batch": batch}
            | {
                value: median(run[value] for run in mine if run["batch"] == batch)
                for value in ("tokens_per_second", "p50_ms")
            }
            for batch in sorted({run["batch"] for run in mine})
        ]
        found[profile.name] = max(rows, key=lambda row: row["tokens_per_second"])
    return found


def _verdicts(report: dict[str, Any], medians: dict[str, Any], name: str) -> dict[str, dict[str, Any]]:
    """For each profile the fastest peer of our class, and whether ours is ahead of it.

    Ahead means faster with a lowest cosine that is no lower; faster with a lower one is only less exact. A
    peer that could not be limited to the instruction set is not compared with those that were.
    """
    rivals = [
        rival
        for rival, peer in PEERS.items()
        if peer.int8 == OURS[name].int8 and rival not in report["not_held"]
    ]
    found = {}
    for profile in PROFILES:
        best = max(rivals, key=lambda rival: _speed(medians, rival, profile.name))
        ratio = _speed(medians, name, profile.name) / _speed(medians, best, profile.name)
        mine, theirs = (round(report["lowest_cosine"][of], 5) for of in (name, best))  # rounded as printed
        exact = round(mine - theirs, 5)
        found[profile.name] = {
            "peer": best,
            "ratio": round(ratio, 3),
            "cosine_less_peers": exact,
            "verdict": "behind" if ratio <= 1 else "less exact" if exact < 0 else "ahead",
        }
    return found


def _beside_limits(report: dict[str, Any], name: str) -> dict[str, float | None]:
    """The share of what the processors can multiply in its precision; None if that was not measured."""
    precision, model, limits = report["precisions"][name], report["model"], report["limits"]
    limit = limits["gflops"].get(precision)
    speed = {
        profile: median(gflop(model, run) / run["seconds"] for run in _runs(report["runs"], name, profile))
        for profile in ("passages", "documents")
    }
    waits = [
        run["p50_ms"] / 1e3 / least
        for run in _runs(report["runs"], name, QUERY)
        if (least := least_seconds(model, run, precision, limits))
    ]
    return {
        "passages_gflops": round(speed["passages"], 1),
        "passages_of_limit": round(speed["passages"] / limit, 3) if limit else None,
        "documents_of_passages": round(speed["documents"] / speed["passages"], 3),
        "query_of_bound": round(median(waits), 2) if waits else None,
    }


def table(report: dict[str, Any]) -> str:
    """The tables for people."""
    held = f", held to {report['held_to']}" if report["held_to"] else ""
    lines = [
        f"{report['machine']['cpu']}, {report['machine']['cores']} cores{held}",
        f"at most {limits_line(report['limits'])}",
        "",
        _row("tokens/s, the query in ms", [profile.name for profile in PROFILES], "lowest cosine"),
    ]
    for name, rows in report["summary"]["medians"].items():
        values = [
            f"{rows[profile.name]['p50_ms' if profile.name == QUERY else 'tokens_per_second']:.1f}"
            for profile in PROFILES
        ]
        lines.append(_row(_label(report, name), values, f"{report['lowest_cosine'][name]:.5f}"))
    lines += ["", _row("times as fast as the best peer", [profile.name for profile in PROFILES])]
    for name in OURS:
        lines += _verdict_lines(report, name)
    lines += [
        "",
        _row("ours and the limits", ["passages", "of limit", "documents", "query"]),
        _row("", ["GFLOP/s", "", "of passages", "of bound"]),
    ]
    for name, row in report["summary"]["limits"].items():
        share, times = row["passages_of_limit"], row["query_of_bound"]
        values = [
            f"{row['passages_gflops']:.1f}",
            f"{share:.0%}" if share else "-",
            f"{row['documents_of_passages']:.0%}",
            f"{times:.2f} x" if times else "-",
        ]
        lines.append(_row(_label(report, name), values))
    return "\n".join(lines)


def _verdict_lines(report: dict[str, Any], name: str) -> Iterator[str]:
    """For one of ours: the ratios, the peers they refer to, and how its lowest cosine compares."""
    cells = report["summary"]["verdicts"][name].values()
    yield _row(
        _label(report, name),
        [f"{cell['ratio']:.2f} {cell['verdict']}" for cell in cells],
    )
    yield _row("  the best peer", [cell["peer"] for cell in cells])
    yield _row("  lowest cosine, less the peer's", [f"{cell['cosine_less_peers']:+.5f}" for cell in cells])


def _label(report: dict[str, Any], name: str) -> str:
    label = PEERS[name].label if name in PEERS else f"ours, {report['precisions'][name]}"
    return label + (" (not held)" if name in report["not_held"] else "")


def _row(label: str, cells: list[str], last: str = "") -> str:
    return (f"{label:<48}" + "".join(f"{cell:>18}" for cell in cells) + f"{last:>15}").rstrip()


def _speed(medians: dict[str, Any], name: str, profile: str) -> float:
    """A figure where more is better, also for the query, which is measured by its latency."""
    row = medians[name][profile]
    return 1 / row["p50_ms"] if profile == QUERY else row["tokens_per_second"]


def _runs(runs: list[dict[str, Any]], name: str, profile: str) -> list[dict[str, Any]]:
    return [run for run in runs if (run["of"], run["profile"]) == (name, profile)]
