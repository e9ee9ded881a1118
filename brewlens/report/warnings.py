"""What a reader must know before believing a run: one plain sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from brewlens.decoding.surface import DECODABLE
from brewlens.lifecycle.claims import CONTRADICTED, ORDER

FORMAT_MISS = 0.01
BYPASSED = 0.1
SMALL = 100
MISCALIBRATED = 0.1
_SHOWN = 8


def warnings_of(summary: Mapping) -> list[str]:
    """Sentences about what weakens a run's numbers; none where nothing does.

    Families whose text-only baseline reaches ``DECODABLE``; format misses above ``FORMAT_MISS`` of a
    family; a ``bypassed`` share above ``BYPASSED``; families of fewer than ``SMALL`` samples or of few
    shapes; readiness before what the probe reads; a target prompt whose prior favours some answers; a probe
    whose probabilities are off by more than ``MISCALIBRATED``; configurations that gave fewer items than
    asked.

    Args:
        summary: The content of ``summary.json``.
    """
    families = summary["families"].items()
    checks = (_surface, _format_miss, _bypassed, _small)
    found = [f"{name}: {text}" for check in checks for name, family in families for text in check(family)]
    return [
        *found,
        *_few_shapes(summary.get("few_shapes") or {}),
        *_late_probe(summary.get("claims") or []),
        *_biased(summary.get("checks") or {}),
        *_short(summary["short"]),
    ]


def _surface(family: Mapping) -> Iterator[str]:
    surface, probe = family["surface"], family["probe_best"]
    if surface and surface["value"] >= DECODABLE:
        yield (
            f"a classifier that reads only the program’s text gets {percent(surface['value'])} right (the "
            f"probe, at its best layer, {percent(probe['value'])}), so a probe that is right there may have "
            "found text and not reasoning."
        )


def _format_miss(family: Mapping) -> Iterator[str]:
    miss = family["format_miss"]
    if miss and miss["value"] > FORMAT_MISS:
        yield (
            f"in {miss['count']} of {miss['n']} samples ({percent(miss['value'])}) the model’s first choice "
            "is no answer class at all; what counts as its answer is then the best of the classes, which it "
            "did not give."
        )


def _bypassed(family: Mapping) -> Iterator[str]:
    bypassed = family["outcomes"].get("bypassed")
    if bypassed and bypassed["value"] > BYPASSED:
        yield (
            f"{percent(bypassed['value'])} of the samples with an FPCL are bypassed: the model answers "
            "rightly although the two decoders are right together at no layer, so they miss the way it takes."
        )


def _small(family: Mapping) -> Iterator[str]:
    if family["n"] < SMALL:
        n = "is only 1 sample" if family["n"] == 1 else f"are only {family['n']} samples"
        yield f"there {n}, fewer than {SMALL}, so its intervals are wide and its probes see little."


def _few_shapes(shapes: Mapping[str, int]) -> Iterator[str]:
    for family, count in shapes.items():
        are = "is 1 shape" if count == 1 else f"are {count} shapes"
        yield (
            f"{family}: there {are} of program only, so intervals are about programs of "
            f"{'this shape' if count == 1 else 'these shapes'} and take samples as independent."
        )


def _late_probe(claims: Sequence[Mapping]) -> Iterator[str]:
    if any(claim["statement"] == ORDER and claim["verdict"] == CONTRADICTED for claim in claims):
        yield (
            "The claims table says that answers are ready before this probe reads them. A probe is a bound: "
            "with more samples to learn from it may read earlier. Run more items, or another kind of probe, "
            "before saying so of the model."
        )


def _biased(checks: Mapping) -> Iterator[str]:
    priors = (checks.get("bias") or {}).get("priors", [])
    for prior in priors:
        if prior["flagged"] and prior["prompt"] == "own":
            yield (
                f"The question alone, without the program, favours the answer {prior['favoured']} "
                f"({percent(prior['favoured_share'])} of the mass, Cohen’s w {prior['w']:.2f}, n "
                f"{prior['n']}); context-stripped decoding subtracts this, which is right at early layers "
                "and bends the last ones the other way: compare the raw readout there."
            )
    if uneven := [p["prompt"] for p in priors if p["flagged"] and p["prompt"] != "own"]:
        yield (
            f"Of the other target prompts, {', '.join(uneven)} favour some answers before any residual is "
            "put in; their share in the pooled readout is to be read with care."
        )
    probe = checks.get("calibration")
    if probe and probe["ece_debiased"] > MISCALIBRATED:
        yield (
            f"The probe’s probabilities at its best layer are off by {percent(probe['ece_debiased'])} on "
            f"average (ECE, n {probe['n']}); its arg max is what landmarks use."
        )


def _short(short: Mapping[str, str]) -> Iterator[str]:
    if short:
        shown = ", ".join(f"{name} ({made})" for name, made in list(short.items())[:_SHOWN])
        more = f", and {len(short) - _SHOWN} more" if len(short) > _SHOWN else ""
        what = "1 configuration" if len(short) == 1 else f"{len(short)} configurations"
        yield f"{what} gave fewer distinct programs than asked: {shown}{more}."


def percent(value: float) -> str:
    """A fraction as a percentage with one decimal; it does not break before the sign."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
