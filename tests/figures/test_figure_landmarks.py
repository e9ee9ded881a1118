"""Landmarks over the layers: what is drawn, what chance makes of it answer by answer, and what onsets say."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens.figures import theme
from brewlens.figures.landmarks import (
    LANDMARKS,
    landmark_alt,
    landmark_table,
    landmarks_by_chance,
    landmarks_size,
    plot_landmarks,
    plot_landmarks_grid,
)
from brewlens.lifecycle import NEVER
from brewlens.lifecycle.nulls import strata
from brewlens.lifecycle.onsets import Onsets
from brewlens.study.analysis import analyse

mpl.use("agg")
LAYERS = 8


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(54, ("computing", "loop"), n_layers=LAYERS)


@pytest.fixture(scope="module")
def table(trace):
    return landmark_table(trace)


def drawn(figure):
    """Its bytes as SVG."""
    file = BytesIO()
    with theme.context():
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def slow_marks(available, ready):
    """First hits of one sample, layer by layer; None for never."""
    fpcl = next((layer for layer, a in enumerate(available) if a), None)
    fcc = next((layer for layer, r in enumerate(ready) if r), None)
    both = [layer for layer in range(len(ready)) if available[layer] and ready[layer]]
    fjc = both[0] if both else None
    return {"fpcl": fpcl, "fcc": fcc, "fjc": fjc, "brewing": None if fjc is None else fjc - fpcl}


def slow_chance(available, ready, answer, cells):
    """One sample after the other, with the answer of each other sample of its cell in turn."""
    n, layers = available.shape
    found = {name: np.full((n, layers + 1), np.nan) for name in LANDMARKS}
    for s in range(n):
        others = [o for o in range(n) if cells[o] == cells[s] and o != s]
        for name in LANDMARKS if others else ():
            found[name][s] = 0
            for o in others:
                mark = slow_marks(available[s] == answer[o], ready[s] == answer[o])[name]
                found[name][s, layers if mark is None else mark] += 1 / len(others)
    return found


def test_chance_agrees_with_the_slow_way():
    rng = np.random.default_rng(1)
    available, ready = rng.integers(0, 4, (2, 40, 6))
    answer, cells = rng.integers(0, 4, 40), np.r_[rng.integers(0, 6, 39), 99]
    fast = landmarks_by_chance(available, ready, answer, cells, 5)
    slow = slow_chance(available, ready, answer, cells)
    for name in LANDMARKS:
        assert np.allclose(fast[name], slow[name], equal_nan=True)
        assert np.isnan(fast[name][39]).all()
        assert np.allclose(fast[name][:39].sum(axis=1), 1)


def test_the_table_holds_the_samples_and_their_chance(trace, table):
    probe, stripped = trace.readouts["probe"], trace.readouts["context_stripped"]
    answer, cells = probe.target_index(trace.items.answers), strata(trace.items, trace.folds)
    slow = slow_chance(probe.predicted, stripped.predicted, answer, cells)
    paired = np.isfinite(slow["fjc"][:, 0])
    for family in (*trace.items.families, "overall"):
        rows = paired & (np.array(trace.lifecycle.families) == family if family != "overall" else True)
        for name in LANDMARKS:
            here = table[(table["family"] == family) & (table["landmark"] == name)]
            hit = getattr(trace.lifecycle.landmarks, name)[rows]
            seen, chance = (here[here["curve"] == curve] for curve in ("observed", "chance"))
            counts = [(hit == layer).sum() for layer in (*range(LAYERS), NEVER)]
            assert seen["share"].to_numpy() == pytest.approx(np.array(counts) / rows.sum())
            assert chance["share"].to_numpy() == pytest.approx(slow[name][rows].mean(axis=0))
            assert seen["layer"].tolist()[:-1] == list(range(LAYERS)) and seen["layer"].isna().iloc[-1]
            assert here["n"].eq(rows.sum()).all() and here["n_shapes"].le(rows.sum()).all()
            assert (seen["low"] <= seen["share"]).all() and (seen["share"] <= seen["high"]).all()
            assert chance["low"].isna().all()


def test_means_and_excess_are_those_of_the_nulls(trace, table):
    nulls = trace.tables["nulls"].query("null == 'answers permuted'").set_index(["family", "statistic"])
    for (family, name), rows in table.groupby(["family", "landmark"]):
        row = nulls.loc["all" if family == "overall" else family, name]
        mean = rows.groupby("curve")["mean"].first()
        assert (mean["observed"], mean["chance"]) == pytest.approx((row["observed"], row["null_mean"]))
        seen = rows[rows["curve"] == "observed"].iloc[0]
        assert tuple(seen[["excess", "excess_low", "excess_high", "p_adjusted"]]) == pytest.approx(
            tuple(row[["excess", "low", "high", "p_adjusted"]]), nan_ok=True
        )
        assert rows[rows["curve"] != "observed"]["excess"].isna().all()


def test_what_is_there_stands_out_and_noise_does_not(trace, table):
    seen = table[(table["family"] == "overall") & (table["curve"] == "observed")]
    assert seen.set_index("landmark")["excess_high"]["fjc"].max() < -0.1
    rng = np.random.default_rng(3)
    noise = {n: replace(r, logits=rng.standard_normal(r.logits.shape)) for n, r in trace.readouts.items()}
    from brewlens.lifecycle import lifecycle

    life = lifecycle(
        *(noise["probe"], noise["context_stripped"]),
        families=trace.lifecycle.families,
        answers=trace.items.answers,
        output=rng.integers(0, 10, len(trace)),
        format_miss=np.zeros(len(trace), dtype=bool),
    )
    nothing = landmark_table(
        analyse(replace(trace, readouts=noise, lifecycle=life), resamples=99), family="overall"
    )
    shares = nothing.pivot_table(
        index=["landmark", "layer"], columns="curve", values="share", dropna=False, observed=True
    )
    assert (shares["observed"] - shares["chance"]).abs().max() < 0.12
    found = nothing[nothing["curve"] == "observed"].groupby("landmark").first()
    assert ((found["excess_low"] < 0) & (found["excess_high"] > 0)).sum() >= 3


def test_onsets_of_joint_landmarks_agree_with_the_slow_way(trace):
    rng = np.random.default_rng(2)
    posteriors = [rng.dirichlet(np.ones(LAYERS + 1), len(trace)) for _ in range(2)]
    onsets = {
        name: Onsets(LAYERS, posterior)
        for name, posterior in zip(("available", "ready"), posteriors, strict=True)
    }
    table = landmark_table(replace(trace, onsets=onsets), "loop")
    cells = strata(trace.items, trace.folds)
    rows = [r for r, i in enumerate(trace.items) if i.family == "loop" and (cells == cells[r]).sum() > 1]
    slow = {name: np.zeros(LAYERS + 1) for name in LANDMARKS}
    for r in rows:
        for a in range(LAYERS + 1):
            slow["fpcl"][a] += posteriors[0][r, a]
            slow["fcc"][a] += posteriors[1][r, a]
            for b in range(LAYERS + 1):
                never, p = LAYERS in (a, b), posteriors[0][r, a] * posteriors[1][r, b]
                slow["fjc"][LAYERS if never else max(a, b)] += p
                slow["brewing"][LAYERS if never else max(a, b) - a] += p
    for name in LANDMARKS:
        here = table[(table["landmark"] == name) & (table["curve"] == "onset")]
        assert here["share"].to_numpy() == pytest.approx(slow[name] / len(rows))


def test_the_figure_draws_the_table(trace, table):
    ax = Figure().add_subplot()
    assert plot_landmarks(trace, family="loop", ax=ax) is ax
    rows = table[table["family"] == "loop"].set_index(["landmark", "curve"]).sort_index(kind="stable")
    bars = {}
    for patch in ax.patches:
        bars.setdefault(patch.get_gid(), []).append(patch)
    lines = {line.get_gid(): line for line in ax.get_lines()}
    for name in LANDMARKS:
        seen, chance, onset = (rows.loc[(name, curve), "share"] for curve in ("observed", "chance", "onset"))
        heights = np.array([bar.get_height() for bar in bars[name]])
        unit = heights[:-1].max() / seen[:-1].max()
        assert heights[:-1] == pytest.approx(seen[:-1].to_numpy() * unit)
        scale = heights[-1] / seen.iloc[-1]  # of never, another one
        base = bars[name][0].get_y()
        stairs = bars[f"chance-{name}"][0].get_data()
        assert (stairs.values - base) == pytest.approx(chance[:-1].to_numpy() * unit)
        last = bars[f"chance-{name}-never"][0].get_data()
        assert last.values - base == pytest.approx(chance.iloc[-1] * scale)
        dots = lines[f"onset-{name}"].get_ydata() - base
        assert dots == pytest.approx(onset.to_numpy() * np.r_[np.full(LAYERS, unit), scale])
    named = {text.get_gid(): text.get_text() for text in ax.texts}
    row = rows.loc[("fjc", "observed")].iloc[0]
    assert f"excess {row['excess']:+.2f}".replace("-", "−").replace("0.", ".") in named["summary-fjc"]
    assert named["never-fjc"] == f"{100 * rows.loc[('fjc', 'observed'), 'share'].iloc[-1]:.0f} %"
    assert [t.get_text() for t in ax.get_xticklabels()][-1] == "never"


def test_without_tables_and_onsets_there_is_still_chance(trace):
    bare = replace(trace, tables={}, onsets={})
    table = landmark_table(bare, "loop")
    assert set(table["curve"]) == {"observed", "chance"}
    assert table["excess"].isna().all() and table["mean"].notna().any()
    texts = [t.get_text() for t in plot_landmarks(bare, family="loop", ax=Figure().add_subplot()).texts]
    assert any("by chance" in text for text in texts) and not any("excess" in text for text in texts)


def test_a_few_samples_that_never_hit(trace):
    few = trace.select(np.flatnonzero(trace.lifecycle.outcome == "no_brewing")[:1])
    table = landmark_table(few)
    assert table[table["curve"] == "observed"].set_index("landmark")["share"]["fjc"].iloc[-1] == 1
    ax = plot_landmarks(few, ax=Figure().add_subplot())
    assert "no sample has it" in " ".join(t.get_text() for t in ax.texts)


def test_the_same_bytes_twice_and_words_for_all(trace, table):
    figures = [
        plot_landmarks_grid(trace, table=table, figure=theme.blank(*landmarks_size(trace))) for _ in "ab"
    ]
    assert drawn(figures[0]) == drawn(figures[1])
    assert [ax.get_title(loc="left").split()[0] for ax in figures[0].axes] == ["computing", "loop"]
    told = landmark_alt(table)
    never = table[(table["family"] == "loop") & (table["landmark"] == "fjc") & (table["curve"] == "observed")]
    assert f"never {100 * never['share'].iloc[-1]:.0f} %" in told.split("loop: ")[1]


def test_an_unknown_family_is_refused(trace):
    with pytest.raises(ValueError, match=r"asked for family 'looop'.*computing"):
        plot_landmarks(trace, family="looop", ax=Figure().add_subplot())
