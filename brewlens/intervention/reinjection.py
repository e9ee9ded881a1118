"""Re-injection: is an unresolved answer saved by showing the last layers the state in which it was available?

In the sample's own prompt, the state ``h[FPCL]`` of the last token is written at one of the last layers
(arXiv 2606.17648, section 6). The published form, a blend of 0.3 at layer L - 4, is
``reinjection(model, trace, layers=(-4,), edits=(blend(0.3),))``.

The FPCL of the paper is an oracle: the first layer at which the probe is right, chosen with the right answer
in hand, and by chance alone nearly every sample has one. No rule without labels has this layer.

Net of the no-op, on all samples of the outcome that have an FPCL before the layer written. Unresolved samples
are wrong as they are, so their net effect is the share that is rescued; resolved ones are right, so theirs is
minus the share that is harmed. Read the dose first: early states are short, and 0.3 of a short state in a
long one changes nothing (``nil``), so that no effect of it says nothing.

Controls are those of :mod:`brewlens.intervention.earlier_state`. An unresolved sample is rescued by luck too:
an edit that breaks the output says the right digit in one case of ten; compare with the placebos, not with
zero.
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

LAYERS = (-4, -3, -2)
OUTCOMES = ("unresolved", "resolved")


def reinjection(
    model: HookedModel,
    trace: Trace,
    *,
    layers: Sequence[int] = LAYERS,
    edits: Sequence[Edit] = MODES,
    landmarks: Landmarks = "first_hits",
    space: AnswerSpace | None = None,
    n: int | None = 400,
    least: int = effects.LEAST,
    seed: int = 0,
    progress: bool = True,
) -> pd.DataFrame:
    """Write the state of the FPCL at the last layers of the same prompt.

    Args:
        model: The model of the trace.
        trace: With landmarks.
        layers: Layers that are written, -1 is the last; where they lie behind the FPCL.
        edits: How it is written.
        landmarks: The paper's first hits, or onsets.
        space: The answer classes; by default the trace's.
        n: Most samples of an outcome, drawn at random; None for all.
        least: Fewest samples of a row.
        seed: Of all that is drawn.
        progress: Show progress bars.

    Returns:
        Columns :data:`brewlens.intervention.effects.COLUMNS`, measure ``right``: ``aligned`` is ``layer``,
        ``edit`` the way of writing. Empty where no sample of the outcomes has an FPCL.

    Raises:
        ValueError: If a layer is not in the model, or the trace is of another model.
    """
    absolute = layers_from_end(layers, trace.n_layers)
    found = anchors(trace, landmarks)
    rows = draw_each(found.outcome, OUTCOMES, found.fpcl != NEVER, n, seed)
    if not len(rows):
        return effects.effect_table([], trace.shapes, "reinjection")
    samples = gather(model, trace, rows, found.outcome, space=space, progress=progress)
    at = np.broadcast_to(absolute, (len(rows), len(absolute)))
    return earlier_state_effects(
        *(model, samples, found.fpcl[rows], {"layer": at}, edits, OUTCOMES, "reinjection"),
        least=least,
        seed=seed,
        progress=progress,
    )
