"""Limits libraries to an older instruction set than the processor has, as if it were an older processor.

Each library has its own variable, which it reads when the process starts:
- oneDNN (in PyTorch, OpenVINO and CTranslate2): ONEDNN_MAX_CPU_ISA. OpenVINO's generated kernels ask its
  oneDNN too, but its other choices follow OV_CPU_MAX_ISA: with only one of the two it does not compile.
- MKL (in PyTorch and CTranslate2): MKL_ENABLE_INSTRUCTIONS.
- PyTorch's own kernels: ATEN_CPU_CAPABILITY; FBGEMM's: FBGEMM_ENABLE_INSTRUCTIONS.
- CTranslate2's own kernels: CT2_FORCE_CPU_ISA.
- ONNX Runtime has none: its MLAS asks the processor itself, so it cannot be limited.
"""

HOLDS = {
    "avx2": {
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OV_CPU_MAX_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
        "CT2_FORCE_CPU_ISA": "AVX2",
        "EMBED_NATIVE_ISA": "avx2",
    },
    "sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "OV_CPU_MAX_ISA": "SSE41"},  # of oneDNN and OpenVINO only
}


def held(isa: str) -> dict[str, str]:
    """The variables for a child process; none if it is not to be limited."""
    return HOLDS[isa] if isa else {}
