"""Describes the machine and versions of a measurement, and saves it."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from app.processors import cpu_budget
from benchmarks.isa import held
from benchmarks.services import ROOT, inherited

PACKAGES = ("torch", "openvino", "transformers", "tokenizers", "numpy", "flask", "gunicorn", "orjson")
RESULTS = ROOT / "benchmarks" / "results"
# The extensions that determine how fast a processor multiplies.
FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)
# For floats and for int8, the best first; a kind of processor is named after the first one that it has.
FLOATS = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd")
INTEGERS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")
VENDORS = {"AuthenticAMD": "amd", "GenuineIntel": "intel"}


def describe(held_to: str = "") -> dict[str, Any]:
    """Machine, versions and date; `held_to` is the instruction set that libraries were held to, if any."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu("model name") or platform.processor() or platform.machine(),
            "kind": kind() + (f"-held-to-{held_to}" if held_to else ""),
            "family": _cpu("cpu family") or _cpu("CPU architecture"),
            "model": _cpu("model") or _cpu("CPU part"),
            "flags": [flag for flag in FLAGS if flag in cpu_flags()],
            "cores": cpu_budget(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.platform(),
        },
        "versions": {"git": _git(), "python": platform.python_version()} | _packages(),
    }


def kind() -> str:
    """A folder's name for processors that measure alike: amd-avx512_bf16-avx512_vnni-25-17.

    Vendor, best extensions, then family and model, so that related ones are next to each other in a list.
    """
    flags = cpu_flags()
    vendor = _cpu("vendor_id") or _cpu("CPU implementer") or platform.machine()
    best = [next((name for name in names if name in flags), "") for names in (FLOATS, INTEGERS)]
    numbers = [_cpu("cpu family") or _cpu("CPU architecture"), _cpu("model") or _cpu("CPU part")]
    return "-".join(part for part in (VENDORS.get(vendor, vendor), *best, *numbers) if part)


def limits(held_to: str = "") -> dict[str, Any]:
    """What the processors multiply and read at most, measured in a separate process."""
    kinds = ["fp32", "int8"]
    if not held_to and {"amx_bf16", "avx512_bf16", "bf16"} & set(cpu_flags()):
        kinds.append("bf16")  # others emulate it with fp32, slowly
    command = [sys.executable, "-m", "benchmarks.limit", str(cpu_budget()), *kinds]
    environ = inherited() | held(held_to)
    done = subprocess.run(command, cwd=ROOT, env=environ, check=True, capture_output=True)
    found: dict[str, Any] = json.loads(done.stdout)
    found["gflops"]["w8a16"] = found["gflops"]["int8"] / 2  # upper and lower bytes one after the other
    return found


def better_limits(left: dict[str, Any], right: dict[str, Any]) -> dict[str, Any]:
    """The larger of each: a noisy neighbour may have slowed one of the two measurements."""
    return {
        "gflops": {kind: max(left["gflops"][kind], right["gflops"][kind]) for kind in left["gflops"]},
        "memory_gb_per_s": max(left["memory_gb_per_s"], right["memory_gb_per_s"]),
    }


def cpu_flags() -> list[str]:
    """Extensions of the processor, in the kernel's names."""
    return (_cpu("flags") or _cpu("Features")).split()


def conclude(report: dict[str, Any], name: str, keep: bool) -> NoReturn:
    """Print a report, save it if asked to, and exit with the promises that it found broken."""
    print(json.dumps(report, indent=1))
    if keep:
        save(report, name)
    sys.exit("; ".join(report["broken"]) or None)


def save(report: dict[str, Any], name: str) -> None:
    """Save a report with others from the same kind of processor, and say where."""
    file = RESULTS / report["machine"]["kind"] / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=1) + "\n")
    print(f"saved as {file.relative_to(ROOT)}", file=sys.stderr)


def _cpu(field: str) -> str:
    try:
        found = re.search(rf"^{field}\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return ""
    return found[1] if found else ""


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git() -> str | None:
    """The commit, with a mark if files differ from it."""
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()
