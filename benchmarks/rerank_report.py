"""The report of `benchmarks.rerank`: the ratios, the promises about them, and the table."""

from statistics import median
from typing import Any

OPENVINO = ("openvino", "openvino-int8")
# The OpenVINO models that each of our precisions must beat: those with as many bits or more.
RIVALS = {
    "fp32": ("openvino",),
    "bf16": ("openvino",),
    "w8a16": ("openvino",),
    "int8": OPENVINO,
}
TIMES_TORCH = 2.0
MEMORY_MIB = 2560  # both models in int8
TOLERANCE = 1e-3  # for scores that were computed in fp32


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """A row for each of our precisions, in process and over HTTP: ratios of the medians and of the rounds."""
    seconds: dict[str, list[float]] = {}
    for run in report["runs"]:
        seconds.setdefault(run["of"], []).append(run["seconds"])
    rows = {}
    for precision in report["precisions"]:
        for name in (precision, f"{precision} over HTTP"):
            if name in seconds:
                rows[name] = {
                    "seconds": round(median(seconds[name]), 2),
                    "times_torch": _times(seconds["torch"], seconds[name]),
                    "times_openvino": {
                        rival: _times(seconds[rival], seconds[name]) for rival in RIVALS[precision]
                    },
                }
    peers = {name: round(median(seconds[name]), 2) for name in ("torch", *OPENVINO)}
    return {"rows": rows, "peers_seconds": peers}


def _times(theirs: list[float], ours: list[float]) -> dict[str, float]:
    """How many times as fast ours is."""
    rounds = [left / right for left, right in zip(theirs, ours, strict=True)]
    return {
        "median": round(median(theirs) / median(ours), 2),
        "least": round(min(rounds), 2),
        "most": round(max(rounds), 2),
    }


def broken(report: dict[str, Any]) -> list[str]:
    """The promises that the figures break."""
    found = []
    for name in exact(report):
        difference = report["scores"][name]["largest_difference"]
        if difference > TOLERANCE:
            found.append(f"the scores of {name} differ from torch's by {difference}")
    for name, row in report["summary"]["rows"].items():
        found += _missed(name, row)
    if "int8" in report["memory"]:
        taken = resident(report["memory"]["int8"])
        if taken > MEMORY_MIB:
            found.append(f"both models in int8 take {taken} MiB")
    return found


def exact(report: dict[str, Any]) -> list[str]:
    """Which ones compute in fp32, besides torch. OpenVINO uses bf16 by default if the processor has it."""
    ours = [name for name in report["scores"] if name.startswith("fp32")]
    has_bf16 = any("bf16" in flag for flag in report["machine"]["flags"])
    return ours if has_bf16 else [*ours, "openvino"]


def resident(memory: dict[str, Any]) -> int:
    """MiB: the larger of the figures after loading and after a call."""
    return max(memory["loaded"]["VmRSS"], memory["after"]["VmRSS"])


def _missed(name: str, row: dict[str, Any]) -> list[str]:
    found = []
    if row["times_torch"]["median"] < TIMES_TORCH:
        found.append(f"{name}: {row['times_torch']['median']} times as fast as torch")
    for rival, times in row["times_openvino"].items():
        if times["median"] <= 1:
            found.append(f"{name}: {times['median']} times as fast as {rival}")
    return found


def table(report: dict[str, Any]) -> str:
    """The table for people."""
    machine, result = report["machine"], report["summary"]
    lines = [
        f"{report['passages']} passages of about 100 tokens and one query; "
        f"{machine['cpu']}, {machine['cores']} cores",
        "CrossEncoder: "
        + ", ".join(f"{name} {seconds} s" for name, seconds in result["peers_seconds"].items()),
        "",
        f"{'ours':<18}{'seconds':>9}{'x torch':>9}{'rounds':>14}  x OpenVINO",
    ]
    for name, row in result["rows"].items():
        torch = row["times_torch"]
        rivals = ", ".join(f"{rival} {times['median']}" for rival, times in row["times_openvino"].items())
        lines.append(
            f"{name:<18}{row['seconds']:>9}{torch['median']:>9}{torch['least']:>7} - {torch['most']:<4}"
            f"  {rivals:<38}{'missed' if _missed(name, row) else 'kept'}"
        )
    lines += ["", "scores beside torch's: correlation, largest difference"]
    for name, row in report["scores"].items():
        lines.append(f"{name:<18}{row['correlation']:>9}{row['largest_difference']:>10}")
    lines += ["", "MiB of a process with both models: loaded, after a call, at most"]
    for name, row in report["memory"].items():
        after = row["after"]
        lines.append(f"{name:<18}{row['loaded']['VmRSS']:>9}{after['VmRSS']:>9}{after['VmHWM']:>9}")
    for name, row in report["two_stages"].items():
        seconds = row["seconds"]
        lines.append(
            f"{report['staged']} passages in {name}: all by cross-encoder {seconds['all']} s, "
            f"the best {report['top']} after the hybrid score {seconds['two_stages']} s "
            f"({row['times_as_fast']} times as fast), these alone {seconds['second_stage']} s"
        )
    if "quality" in report:
        lines += ["", f"on real weights, {report['quality']['model']}", *_quality(report["quality"])]
    return "\n".join(lines)


def _quality(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{name}: correlation with fp32 {row['correlation']} over {row['pairs']} pairs, "
        f"order kept {row['order_kept']}, ten best kept {row['top10_kept']}, "
        f"largest difference {row['largest_difference']}"
        for name, row in found["precisions"].items()
    ]
    lines += [f"its export, {name}: {row}" for name, row in found["measured"].items()]
    stages = found["two_stages"]
    lines.append(
        f"two stages, {stages['passages']} passages and {stages['top']} read: {stages['top10_kept']} "
        f"of the ten best of all"
    )
    return lines
