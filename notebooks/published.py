"""The numbers of arXiv 2606.17648 that the reproduction stands beside, in one place.

Shares in percent, depths as shares of L. Of Qwen2.5-Coder-7B with 810 items per family, where not said
otherwise. Sections are those of the paper.
"""

from __future__ import annotations

import pandas as pd

FAMILIES = ("value_tracking", "computing", "conditional", "function_call", "loop", "loop_unrolled")

BY_FAMILY = pd.DataFrame(
    {
        "accuracy": (77.2, 31.4, 62.5, 30.9, 41.7, 34.6),  # of the output; needs no probe
        "resolved": (70.8, 26.2, 59.2, 27.7, 35.5, 28.0),
        "overprocessed": (13.8, 35.6, 22.7, 28.9, 31.1, 26.7),
        "misresolved": (5.4, 11.5, 10.1, 3.8, 9.5, 10.4),
        "unresolved": (9.9, 26.7, 8.0, 39.6, 23.8, 34.9),
        "fpcl": (0.074, 0.179, 0.163, 0.179, 0.102, 0.148),  # section 3
        "fjc": (0.555, 0.469, 0.560, 0.515, 0.429, 0.486),  # section 3
    },
    index=pd.Index(FAMILIES, name="family"),
)

BREWING = (0.24, 0.42)
"""(FJC - FPCL) / L, least and greatest of sixteen models of 0.5B to 14B (section 3)."""

RESOLVED_BY_DEPTH = {1: 61.1, 2: 17.1, 3: 2.5}
"""function_call, by the depth of the calls."""

PATCHED_AT_FJC, PATCHED_BEFORE = (20, 44), (3, 18)
"""Outputs flipped by a patch of the state at the FJC and before it, least and greatest (section 6)."""

RIGHT_WITHOUT_FJC = 17.7
"""Of the samples without an FJC, those whose output is right. From the published data."""

TEXT_ONLY = (98, 39, 47, 37, 83, 82)
"""What 1- to 3-grams reach on the published programs, by family. Measured on them, not published."""

NOISE = {"accuracy": 20, "no_brewing": 1, "fpcl": 0.14}
"""What the published probe recipe gives on pure noise. Measured, not published."""
