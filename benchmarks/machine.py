"""Where and of what a measurement was taken."""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from app.config import cpu_budget
from benchmarks.services import ROOT

PACKAGES = ("torch", "openvino", "transformers", "tokenizers", "numpy", "flask", "gunicorn", "orjson")
# What decides how fast a processor multiplies.
FLAGS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_tile", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "bf16", "i8mm", "sve", "sve2"),
)


def describe() -> dict[str, Any]:
    """Machine, versions and date."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": {
            "cpu": _cpu("model name") or platform.processor() or platform.machine(),
            "flags": [flag for flag in FLAGS if flag in (_cpu("flags") or _cpu("Features")).split()],
            "cores": cpu_budget(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "system": platform.platform(),
        },
        "versions": {"git": _git(), "python": platform.python_version()} | _packages(),
    }


def matmul_limit() -> dict[str, float]:
    """GFLOP/s of a large matrix product in fp32 and bf16, measured in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.limit", str(cpu_budget())]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


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
    """The commit, marked if files differ from it."""
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
