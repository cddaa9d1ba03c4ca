"""The processor's extensions that the choice of an engine depends on."""

from pathlib import Path


def cpu_features() -> frozenset[str]:
    """Instruction set extensions of the processor, by the kernel's names."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


# Extensions that multiply low-precision numbers, best first. Processors with the same best one compute alike.
KINDS = (
    *("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2"),
    *("i8mm", "bf16", "asimddp", "asimd"),
)


def kind_of(features: frozenset[str]) -> str:
    """The kind of a processor with these extensions, as exports and people name it: `avx512_bf16`."""
    return next((name for name in KINDS if name in features), "plain")
