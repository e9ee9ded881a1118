"""loop_unrolled: the programs of the loop family with the body written out instead of looped over."""

from __future__ import annotations

import random

from brewlens.tasks import loop
from brewlens.tasks.draft import Sketch

FACTORS = loop.FACTORS


def sketch(rng: random.Random, **levels) -> Sketch:
    looped = loop.sketch(rng, **levels)
    return Sketch(looped.twin or "", looped.choices, looped.template, "loop")
