"""How many processors this process may use, and so how many threads: affinity, and what cgroups grant."""

import os
from pathlib import Path


def cpu_budget() -> int:
    """Processors this process may use: its affinity, and the cgroup's quota, floored, at least 1."""
    affinity = getattr(os, "sched_getaffinity", None)  # Linux only
    allowed = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cgroup_quota(Path("/proc/self/cgroup"), Path("/sys/fs/cgroup"))
    return max(1, int(min(allowed, quota)))


def thread_budget(workers: int) -> int:
    """Encoder threads of each of `workers` processes, so that together they fit the processors."""
    return max(1, cpu_budget() // max(1, workers))


def _cgroup_quota(membership: Path, root: Path) -> float:
    """Processors the cgroups grant, infinity if they set no limit.

    Version 2 keeps "quota period" in cpu.max of this group and of every group above it;
    version 1 keeps two files under the cpu controller.
    """
    try:
        lines = membership.read_text().splitlines()
    except OSError:
        return float("inf")
    quota = float("inf")
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / "cpu" if controllers else root
        group = top / path.lstrip("/")
        # Inside a container the path may be the host's, and then only the top is there.
        for folder in {top, group, *(up for up in group.parents if up.is_relative_to(top))}:
            quota = min(quota, _quota_of(folder))
    return quota


def _quota_of(folder: Path) -> float:
    try:
        limit, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return float("inf")
    if limit == "max" or int(limit) <= 0:
        return float("inf")
    return int(limit) / int(period)
