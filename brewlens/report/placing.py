"""Placing: the section of the page that each figure belongs to, and what its caption says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

MORE = "more"
"""Section of figures that have no place of their own."""

_95 = "95\N{NO-BREAK SPACE}%"


@dataclass(frozen=True)
class Place:
    """Where a figure stands.

    Attributes:
        section: Of the page.
        caption: What it shows; its text alternative where empty.
        folded: Heading under which it is folded away, empty for one that is open.
    """

    section: str
    caption: str
    folded: str = ""


_PLACES = {
    "outcomes": Place(
        "outcomes",
        f"Outcome shares by the repaired rule: the dot is the share, the line its {_95} interval. The "
        "hollow mark is a share of all samples.",
    ),
    "outcomes_paper": Place(
        "outcomes",
        "Outcome shares by the paper’s rule.",
        folded="The same by the paper’s rule",
    ),
    "flow": Place(
        "outcomes",
        "From families to outcomes, by the repaired rule: all samples, those without an FPCL too, so "
        f"that flows add up to n. At the outcomes stand their shares with {_95} intervals, clustered "
        "by shape.",
    ),
    "flow_*": Place(
        "outcomes",
        "From families to outcomes: all samples.",
        folded="From families to outcomes, {rest}",
    ),
    "loop_pairs": Place(
        "outcomes",
        "Every loop beside its exact unrolled twin, the same computation and answer written in two "
        f"ways: how the pairs end, and their paired differences with {_95} intervals, clustered by "
        "shape.",
    ),
    "trajectories": Place(
        "samples",
        f"Probability of the right answer by layer, averaged within each outcome, with {_95} bands, "
        "clustered by shape. Outcomes are told from these same readouts: look at when they part, not "
        "at that they do.",
    ),
    "ridges": Place(
        "samples",
        "Typical samples of every outcome, the ones nearest to its middle; none was picked by eye. A "
        "strip per decoder: layers upwards, answers across.",
    ),
    "ridges_*": Place(
        "samples",
        "The samples nearest to the middle of their outcome; none was picked by eye.",
        folded="More typical samples: {rest}",
    ),
    "accuracy": Place(
        "layers",
        f"Share of samples that each decoder gets right, by layer, with {_95} bands, clustered by "
        "shape; the star is the model’s own answer.",
    ),
    "surface_control": Place(
        "control",
        f"Probe minus text-only baseline at every layer, paired by sample, with {_95} bands clustered "
        "by shape.",
    ),
    "landmarks": Place(
        "landmarks",
        "Where first hits fall, beside what the same readouts give when answers change places within "
        "configurations and folds, in exact expectation, and beside the onsets.",
    ),
    "landmarks_*": Place(
        "landmarks",
        "First hits by layer, beside their null.",
        folded="First hits, {rest}",
    ),
    "onsets": Place(
        "onsets",
        "Share of samples whose answer is available, and ready, from that layer or an earlier one on, "
        f"with {_95} bands clustered by shape; dashed, the first hits.",
    ),
    "causal_verdicts": Place(
        "verdicts",
        f"Effect of each edit, mean over the brewing stretch, with its {_95} interval clustered by "
        "shape; below it, light, the strongest of its placebos. Between the dotted lines an effect is "
        "too small to matter.",
    ),
    "causal_use_*": Place(
        "causal",
        "",
    ),
    "contributions": Place(
        "components",
        "What attention and MLP of each layer add to the logit of the right answer, less that of the "
        f"wrong one (what the model said instead, or the strongest other class), with {_95} intervals "
        "clustered by shape. The dashed line is where the wrong answer overtakes most often. Direct "
        "effects only.",
    ),
    "contributions_*": Place(
        "components",
        "",
    ),
    "components*": Place(
        "components",
        "",
    ),
    "heads*": Place(
        "components",
        "",
    ),
    "reliability": Place(
        "audit",
        f"How often a decoder is right where it is so sure, at its best layer, with {_95} intervals "
        "clustered by shape; and by how much each is off, by layer (ECE, debiased).",
    ),
    "calibration*": Place(
        "audit",
        "",
    ),
    "bias*": Place(
        "audit",
        "",
    ),
    "signals": Place(
        "signals",
        "Signals that need no answer key, by outcome, and how well each tells right outputs from "
        "wrong ones, beside the model’s confidence in its output (area under the ROC curve; below one "
        "half it misleads). The last layer is among the layers that they are made of: an area is no "
        "forecast.",
    ),
    "signals_*": Place(
        "signals",
        "",
        folded="Signals, {rest}",
    ),
    "difficulty": Place(
        "configurations",
        f"Share of right answers and of resolved samples by the level of each factor, with {_95} "
        "intervals, clustered by shape. Trends hold the other factors fixed, and their p is adjusted "
        "over all of them.",
    ),
    "difficulty_*": Place(
        "configurations",
        "By the level of each factor.",
        folded="By the level of each factor: {rest}",
    ),
    "configurations": Place(
        "configurations",
        "Share of samples that are resolved, in every combination of a family’s factors; cells of few "
        "samples are hatched, and the intervals are in the numbers.",
    ),
    "configurations_*": Place(
        "configurations",
        "By configuration, the third factor across.",
        folded="By configuration: {rest}",
    ),
    "lifecycle_*": Place(
        "typical",
        "",
    ),
}


@dataclass(frozen=True)
class Placed:
    """A figure where it stands; ``caption`` is empty for one whose section writes its own."""

    name: str
    caption: str
    folded: str


def placed(names: Iterable[str]) -> dict[str, list[Placed]]:
    """Section -> its figures, in the order given; what has no place of its own is in ``MORE``.

    Args:
        names: Of the figures.
    """
    found: dict[str, list[Placed]] = {place.section: [] for place in _PLACES.values()} | {MORE: []}
    for name in names:
        pattern = name if name in _PLACES else next((p for p in _PLACES if fnmatchcase(name, p)), "")
        place = _PLACES.get(pattern, Place(MORE, ""))
        rest = name.removeprefix(pattern.rstrip("*")).replace("_", " ")
        found[place.section].append(Placed(name, place.caption, place.folded.format(rest=rest)))
    return found
