"""The tables of interventions with a truth that is known: used in one family, unused in another; no model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pandas as pd
from scipy.stats import norm

from brewlens.decoding.surface_control import OVERALL
from brewlens.results import Trace
from brewlens.stats import benjamini_hochberg

COLUMNS = (
    *("experiment", "family", "outcome", "edit", "donor", "control", "site", "aligned", "at", "measure", "n"),
    *("n_shapes", "before", "after", "net", "low", "high", "p", "p_adjusted", "detectable"),
    *("cosine", "change", "kl", "nil"),
)
STRENGTH = {"whole": 1.0, "probe_subspace": 0.55, "learned_subspace": 0.8, "erase": 0.6}
TREATMENTS = {"erase": ("mean", "resampled")}
PLACEBOS = ("same_answer", "noise", "random_subspace")
MODES = ("replace", "norm_match", "blend_0.3", "blend_0.5")
MARGIN = 0.1


def heights_of(families: Sequence[str]) -> dict[str, float]:
    """How many outputs follow the twin at most, by family: many in the first one, none in the last one."""
    return dict(zip(families, np.linspace(0.45, 0.0, len(families)), strict=True)) | {OVERALL: 0.25}


def with_effects(trace: Trace, seed: int = 0) -> Trace:
    """The trace with all tables of interventions."""
    return replace(trace, tables={**trace.tables, **synthetic_effects(trace, seed)})


def synthetic_effects(trace: Trace, seed: int = 0) -> dict[str, pd.DataFrame]:
    """``effects``, ``causal_verdicts``, ``components``, ``overtakes`` and ``rescue``."""
    rng = np.random.default_rng(seed)
    families = list(trace.items.families)
    names = [*families, *([OVERALL] if len(families) > 1 else [])]
    size = {name: len(trace) if name == OVERALL else len(trace) // len(families) for name in names}
    whole, everyone = names[-1], size[names[-1]]
    rows = [*use_rows(names, size, trace.n_layers), *published_rows(whole, everyone // 5, trace.n_layers)]
    return {
        "effects": measured(pd.DataFrame(rows), rng),
        "causal_verdicts": verdict_rows(names, size),
        "components": component_rows(whole, trace.n_layers, rng),
        "overtakes": overtake_rows(whole, trace.n_layers),
        "rescue": rescue_rows(),
    }


def use_rows(names: Sequence[str], size: dict[str, int], n_layers: int) -> Iterator[dict]:
    """Exchange of brewed answers: family x outcome x edit x donor x place x measure."""
    heights = heights_of([name for name in names if name != OVERALL])
    spans = {"fpcl": range(-3, 9), "fjc": range(-6, 5), "layer": range(n_layers)}
    places = [("stretch", pd.NA), *((aligned, at) for aligned, span in spans.items() for at in span)]
    for family, outcome, edit in product(names, ("all", "overprocessed"), STRENGTH):
        arms = [(donor, False) for donor in TREATMENTS.get(edit, ("counterfactual",))]
        arms += [(donor, True) for donor in PLACEBOS]
        measures = ("unchanged", "right") if edit == "erase" else ("follows", "unchanged", "logit_difference")
        for (donor, control), (aligned, at), measure in product(arms, places, measures):
            reach = 1.0 if aligned in ("stretch", "layer") else np.exp(-abs(at) / 2.6)
            effect = 0.0 if control else heights[family] * STRENGTH[edit] * _shape(aligned, at, n_layers)
            yield {
                "experiment": "causal_use",
                **{"family": family, "outcome": outcome, "edit": edit, "donor": donor, "control": control},
                **{"site": "resid_post", "aligned": aligned, "at": at, "measure": measure},
                "n": max(2, int(reach * size[family] / (1 if outcome == "all" else 5))),
                "before": {"unchanged": 1.0, "right": 0.7}.get(measure, 0.02),
                "effect": effect * {"unchanged": -1, "right": -0.8}.get(measure, 1),
                "nil": edit == "probe_subspace" and aligned == "fpcl" and at < -1,
            }


def _shape(aligned: str, at: int, n_layers: int) -> float:
    """Nothing before the answer is available, everything from then on, less once it is ready."""
    if aligned == "stretch":
        return 0.8
    rise = {"fpcl": at, "fjc": at + 4, "layer": at - 0.25 * n_layers}[aligned]
    return float(1 / (1 + np.exp(-2 * rise)) * np.exp(-max(0, rise - 4) / 3))


def published_rows(family: str, n: int, n_layers: int) -> Iterator[dict]:
    """The experiments of the paper, and the transplant."""
    late = [("layer", layer) for layer in range(n_layers - 4, n_layers)]
    around = [("fjc", offset) for offset in (-8, -4, -2, 0, 2, 4)]
    earlier = ("own_other_layer", "shuffled", "noise")
    cells = {
        ("fjc_patching", "own", "right", ("other_landmark", "shuffled", "noise")): product(
            ("all",), ("into_neutral", "into_twin"), around
        ),
        ("layer_skipping", "own_earlier", "right", earlier): product(
            ("overprocessed", "resolved"), MODES, [*late, ("fjc", 1), ("fjc", 2)]
        ),
        ("reinjection", "own_earlier", "right", earlier): product(("unresolved",), MODES, late[:-1]),
        ("transplant", "twin", "right", ("other_layer", "other_pair")): product(
            ("all",), ("into_twin",), [("layer", layer) for layer in range(n_layers)]
        ),
    }
    strength = {"fjc_patching": 0.3, "layer_skipping": 0.12}
    for (experiment, treatment, measure, placebos), places in cells.items():
        for (outcome, edit, (aligned, at)), donor in product(places, (treatment, *placebos)):
            nil, control = edit == "blend_0.3", donor != treatment
            effect = 0.0 if control or nil or at < 0 else strength.get(experiment, 0.0)
            yield {
                **{"experiment": experiment, "family": family, "outcome": outcome, "edit": edit},
                **{"donor": donor, "control": control, "aligned": aligned, "at": at, "measure": measure},
                **{"site": "mlp_out" if experiment == "transplant" else "resid_post", "n": n, "nil": nil},
                "before": {"resolved": 1.0, "all": 0.1}.get(outcome, 0.0),
                "effect": -effect if outcome == "resolved" else effect,
            }


def measured(rows: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Noise, intervals, p-values and doses for rows that say what the effect is."""
    error = 0.5 / np.sqrt(rows["n"])
    noise = np.where(rows["nil"], 0.0, 0.5 * error * rng.normal(size=len(rows)))
    rows["net"] = (rows["effect"] + noise).clip(-rows["before"], 1 - rows["before"])
    half = norm.ppf(0.975) * error
    rows = rows.assign(low=rows["net"] - half, high=rows["net"] + half, after=rows["before"] + rows["net"])
    rows["n_shapes"], rows["detectable"] = (rows["n"] // 3).clip(2), 2.8 * error
    rows["p"], rows["p_adjusted"] = 2 * norm.sf(np.abs(rows["net"] / error)), np.nan
    for _, part in rows[~rows["control"]].groupby("experiment"):
        rows.loc[part.index, "p_adjusted"] = benjamini_hochberg(part["p"].to_numpy())
    rows["cosine"] = np.where(rows["nil"], 0.9995, rng.uniform(0.3, 0.9, len(rows)))
    rows["change"] = np.sqrt(2 - 2 * rows["cosine"])
    rows["kl"] = rows["change"] ** 2
    return rows.astype({"at": "Int64", "nil": bool})[list(COLUMNS)]


def verdict_rows(names: Sequence[str], size: dict[str, int]) -> pd.DataFrame:
    """Used where the effect is large, not used in the last family, else there are too few samples."""
    heights = heights_of([name for name in names if name != OVERALL])
    records = []
    for family, outcome, edit in product(names, ("all", "overprocessed"), STRENGTH):
        n = size[family] // (1 if outcome == "all" else 8)
        effect, half = 0.9 * heights[family] * STRENGTH[edit], 1.4 / np.sqrt(n)
        if heights[family] == 0 and outcome == "all":
            half = 0.03
        used, sign = effect > half + 0.02, -1 if edit == "erase" else 1
        low, high = sorted((sign * (effect - half), sign * (effect + half)))
        placebo_low, placebo_high = sorted((sign * (0.01 - half / 2), sign * (0.01 + half / 2)))
        p = 2 * norm.sf(1.96 * effect / half)
        starts = {"": 3, "_low": 2, "_fpcl": 1, "_fjc": -4}
        records.append(
            {
                **{"family": family, "outcome": outcome, "edit": edit},
                **{"measure": "unchanged" if sign < 0 else "follows", "n": n, "n_shapes": n // 3},
                **{"net": sign * effect, "low": low, "high": high, "p": p, "p_adjusted": min(1, 2 * p)},
                **{"placebo": "same_answer", "placebo_net": sign * 0.01},
                **{"placebo_low": placebo_low, "placebo_high": placebo_high, "beyond": effect - 0.01},
                **{"beyond_low": effect - 0.01 - half, "beyond_high": effect - 0.01 + half},
                **{f"used_from{end}": at if used else pd.NA for end, at in starts.items()},
                **{"logit_difference": effect, "logit_low": effect - half, "logit_high": effect + half},
                **{"cosine": 0.6, "nil": False, "margin": MARGIN, "logit_margin": 0.25},
                "verdict": "used" if used else "not used" if effect + half < MARGIN else "cannot tell",
            }
        )
    return pd.DataFrame(records).astype({f"used_from{end}": "Int64" for end in starts})


def component_rows(family: str, n_layers: int, rng: np.random.Generator) -> pd.DataFrame:
    """The third MLP from the end writes the right answer, the next a wrong one where overprocessed."""
    parts = [("embed", pd.NA), ("bias", pd.NA), *product(("attn", "mlp"), range(n_layers))]
    records = []
    for (outcome, n), (component, layer) in product(
        {"all": 390, "resolved": 300, "overprocessed": 60, "unresolved": 30}.items(), parts
    ):
        written = {n_layers - 3: 3.0, n_layers - 2: -4.0 if outcome == "overprocessed" else 0.0}
        value = 0.1 * rng.normal() + (written.get(layer, 0.0) if component == "mlp" else 0.0)
        half = 6 / np.sqrt(n)
        records.append(
            {
                **{"family": family, "outcome": outcome, "component": component, "layer": layer},
                **{"head": pd.NA, "n": n, "n_shapes": n // 3, "value": value},
                **{"low": value - half, "high": value + half, "detectable": 1.4 * half},
            }
        )
    head = {**records[2], "head": 1}
    return pd.DataFrame([*records, head]).astype({"layer": "Int64", "head": "Int64"})


def overtake_rows(family: str, n_layers: int) -> pd.DataFrame:
    """The MLP of the last layer but one overtakes in most overprocessed samples."""
    rows = [
        (family, "overprocessed", "mlp", n_layers - 2, 42, 60, 0.7, 0.57, 0.8),
        (family, "overprocessed", "attn", n_layers - 1, 6, 60, 0.1, 0.05, 0.2),
        (family, "unresolved", "attn", 1, 3, 30, 0.1, 0.03, 0.26),
    ]
    columns = ["family", "outcome", "component", "layer", "count", "n", "share", "low", "high"]
    return pd.DataFrame(rows, columns=columns).astype({"layer": "Int64"})


def rescue_rows() -> pd.DataFrame:
    """A policy that helps and needs the answer, some that harm, and no edit."""
    policies = [
        ("overprocessed", "layer 8 at layer 10, blend_0.5", False, "8", 10, "blend_0.5", 90, 0.2, -0.01),
        ("overprocessed", "the FJC at layer 11, replace", True, "fjc", 11, "replace", 90, 0.82, 0.11),
        ("misresolved", "no edit", False, None, pd.NA, None, 40, 0.0, 0.0),
        ("unresolved", "layer 3 at layer 9, norm_match | no edit", False, None, pd.NA, None, 80, 0.05, -0.05),
        ("all", "layer 10 at layer 11, replace", False, "10", 11, "replace", 210, 0.03, 0.004),
    ]
    records = []
    for outcome, policy, oracle, source, layer, mode, n, repaired, net in policies:
        half, broken = (0.0, 0.0) if policy == "no edit" else (1 / np.sqrt(n), 0.0 if oracle else 0.08)
        records.append(
            {
                **{"outcome": outcome, "policy": policy, "oracle": oracle, "source": source},
                **{"layer": layer, "mode": mode, "chosen_by": "repaired", "candidates": 264},
                **{"n_fail": n, "n_shapes": n // 3, "chosen_on": 1.2 * repaired, "repaired": repaired},
                **{"repaired_low": max(0, repaired - half), "repaired_high": min(1, repaired + half)},
                **{"placebo_repaired": 0.02, "placebo_low": 0.0, "placebo_high": 0.05},
                **{"cosine": 0.8, "change": 0.6, "n_resolved": 300, "broken": broken},
                **{"broken_low": max(0, broken - half / 5), "broken_high": broken + half / 5},
                **{"n_all": 600, "net_accuracy": net, "low": net - half / 5, "high": net + half / 5},
                **{"detectable": 0.03, "every": 1},
            }
        )
    return pd.DataFrame(records).astype({"layer": "Int64"})
