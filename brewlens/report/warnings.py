"""What a reader must know before believing a run: one plain sentence each."""

from __future__ import annotations

from collections.abc import Mapping

SURFACE = 0.9
FORMAT_MISS = 0.01
BYPASSED = 0.1
SMALL = 100


def warnings_of(summary: Mapping) -> list[str]:
    """Sentences about what weakens a run's numbers; none where nothing does.

    A family whose text-only baseline reaches ``SURFACE``; format misses above ``FORMAT_MISS`` of a
    family; a ``bypassed`` share above ``BYPASSED``; a family of fewer than ``SMALL`` samples;
    configurations that gave fewer items than asked.

    Args:
        summary: The content of ``summary.json``.
    """
    found = []
    for name, family in summary["families"].items():
        surface, probe = family["surface"], family["probe_best"]
        if surface and surface["value"] >= SURFACE:
            found.append(
                f"{name}: a classifier that reads only the program's text gets {percent(surface['value'])} right "
                f"(the probe, at its best layer, {percent(probe['value'])}), so a probe that is right there may "
                "have found text and not reasoning."
            )
    for name, family in summary["families"].items():
        miss = family["format_miss"]
        if miss and miss["value"] > FORMAT_MISS:
            found.append(
                f"{name}: in {miss['count']} of {miss['n']} samples ({percent(miss['value'])}) the model's first "
                "choice is not an answer class at all; its answer is then the best of the classes, which it did "
                "not give."
            )
    for name, family in summary["families"].items():
        bypassed = family["outcomes"].get("bypassed")
        if bypassed and bypassed["value"] > BYPASSED:
            found.append(
                f"{name}: {percent(bypassed['value'])} of the samples with an FPCL are bypassed: the model answers "
                "rightly although the two decoders never agree on the answer, so they miss the way it takes."
            )
    for name, family in summary["families"].items():
        if family["n"] < SMALL:
            found.append(
                f"{name}: there are only {family['n']} samples, fewer than {SMALL}; its intervals are wide and "
                "its probes see little."
            )
    if short := summary["short"]:
        shown = ", ".join(f"{name} ({made})" for name, made in list(short.items())[:8])
        more = f", and {len(short) - 8} more" if len(short) > 8 else ""
        what = "1 configuration" if len(short) == 1 else f"{len(short)} configurations"
        found.append(f"{what} gave fewer distinct programs than asked: {shown}{more}.")
    return found


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal."""
    return f"{100 * value:.1f} %"
