"""Layer skipping: is an overprocessed answer saved by leaving out the layers after the FJC?

In the sample's own prompt, the state ``h[FJC]`` of the last token is written at a later layer, so that what
the layers between them did at this token is undone (arXiv 2606.17648, section 6). Written at the last layer,
the output is the unembedding of ``h[FJC]``. Four ways of writing: ``replace``; ``norm_match``, scaled to the
length of what it replaces; ``blend_0.3`` and ``blend_0.5``, mixed with it.

Net of the no-op, on all samples of the outcome that have an FJC. Overprocessed samples are wrong as they are,
so their net effect is the share that is rescued; resolved ones are right, so theirs is minus the share that
is harmed: what it costs to skip where nothing was wrong. A sample that is right before cannot be rescued.
What a policy that has to choose without knowing the outcome would win is :mod:`brewlens.intervention.rescue`.

Controls are those of :mod:`brewlens.intervention.earlier_state`. The doses say how much was changed at all: a
blend with a cosine of .999 to the un-edited state is no test (``nil``).

What it does not show: the FJC is found with the right answer in hand, and is a layer where a readout of this
very state gives it. A rescue says that the state was good, not that the model, or anyone without the answer,
could know when to stop.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from brewlens.intervention import effects
from brewlens.intervention.anchors import Landmarks, anchors
from brewlens.intervention.earlier_state import MODES, earlier_state_effects
from brewlens.intervention.edits import Edit
from brewlens.intervention.samples import draw_each, gather, layers_from_end
from brewlens.lifecycle.landmarks import NEVER

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel
    from brewlens.results import Trace

LAYERS = (-4, -3, -2, -1)
OFFSETS = (1, 2, 4)
OUTCOMES = ("overprocessed", "resolved")


def layer_skipping(
    model: HookedModel,
    trace: Trace,
    *,
    layers: Sequence[int] = LAYERS,
    offsets: Sequence[int] = OFFSETS,
    edits: Sequence[Edit] = MODES,
    landmarks: Landmarks = "first_hits",
    space: AnswerSpace | None = None,
    n: int | None = 400,
    least: int = effects.LEAST,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Write the state of the FJC at later layers of the same prompt.

    Args:
        model: The model of the trace.
        trace: With landmarks.
        layers: Layers that are written, -1 is the last; where they lie behind the FJC.
        offsets: Layers that are written besides, counted from the FJC; 1 at least.
        edits: How it is written.
        landmarks: The paper's first hits, or onsets.
        space: The answer classes; by default the trace's.
        n: Most samples of an outcome, drawn at random; None for all.
        least: Fewest samples of a row.
        seed: Of all that is drawn.
        progress: Show progress bars.

    Returns:
        Columns :data:`brewlens.intervention.effects.COLUMNS`, measure ``right``: ``aligned`` is ``layer`` or
        ``fjc``, ``edit`` the way of writing. Empty where no sample of the outcomes has an FJC.

    Raises:
        ValueError: If a layer is not in the model, an offset is below 1, or the trace is of another model.
    """
    if min(offsets, default=1) < 1 or len(set(offsets)) < len(offsets):
        raise ValueError(
            f"offsets lead from the FJC to later layers, 1 at least, each once; found {list(offsets)}"
        )
    absolute = layers_from_end(layers, trace.n_layers)
    found = anchors(trace, landmarks)
    rows = draw_each(found.outcome, OUTCOMES, found.fjc != NEVER, n, seed)
    if not len(rows):
        return effects.effect_table([], trace.shapes, "layer_skipping")
    samples = gather(model, trace, rows, found.outcome, space=space, progress=progress)
    places = {
        name: np.broadcast_to(np.array(where, dtype=int), (len(rows), len(where)))
        for name, where in (("layer", absolute), ("fjc", offsets))
    }
    return earlier_state_effects(
        *(model, samples, found.fjc[rows], places, edits, OUTCOMES, "layer_skipping"),
        least=least,
        seed=seed,
        progress=progress,
    )
