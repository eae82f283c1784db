"""Which instructions of an x86 CPU the libraries may use, so that machines agree.

ATen, oneDNN, MKL, NumPy and OpenBLAS each choose their kernels by what the CPU has; two kernels
differ in the last digits, and what is trained from these drifts apart. Each can be told not to look
beyond a set of instructions, by a variable that it reads when it is loaded: so `sims_core` sets
them before any module of it imports one of these libraries.
"""

from __future__ import annotations

import os
import sys

SETTING = "SIMS_CPU_ISA"
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": (
        "AVX512F,AVX512CD,AVX512_SKX,AVX512_CLX,AVX512_CNL,AVX512_ICL,AVX512_SPR"
    ),
}
"""Every x86 server and desktop since 2015 has AVX2 (Intel's Haswell, AMD's Zen)."""
SETS = {"avx2": AVX2}
READERS = ("numpy", "torch")
"""Modules that load the libraries."""


def pin_instructions() -> None:
    """Tells the libraries what SIMS_CPU_ISA says, in this process and those that it starts.

    Raises:
        ImportError: one of them is loaded already, and was not told.
    """
    wanted = SETS.get(os.environ.get(SETTING, "").lower(), {})
    if all(os.environ.get(name) == value for name, value in wanted.items()):
        return
    if loaded := [name for name in READERS if name in sys.modules]:
        raise ImportError(
            f"{SETTING} is set, and {loaded[0]} was imported before sims_core, so that it uses all "
            "instructions of this CPU: import sims_core first"
        )
    os.environ.update(wanted)
