"""Response to factors: means by level, trends as in the claims, and none where nothing depends on them."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens.figures import save, theme
from brewlens.figures.difficulty import (
    difficulty_alt,
    difficulty_size,
    difficulty_table,
    factor_levels,
    plot_difficulty,
    plot_difficulty_grid,
)
from brewlens.lifecycle import NEVER
from brewlens.lifecycle.onsets import Onsets
from brewlens.stats import benjamini_hochberg
from brewlens.tasks.item import ItemSet

mpl.use("agg")
LAYERS = 8


@pytest.fixture(scope="module")
def trace():
    made = synthetic_trace(108, ("computing", "conditional"), n_layers=LAYERS)

    def certain(layer):
        return Onsets(LAYERS, np.eye(LAYERS + 1)[np.where(layer == NEVER, LAYERS, layer)])

    marks = made.lifecycle.landmarks
    return replace(made, onsets={"available": certain(marks.fpcl), "ready": certain(marks.fcc)})


def planted(trace, chance):
    """The same items, resolved with a chance that depends on the item, else unresolved."""
    rng = np.random.default_rng(0)
    hit = rng.uniform(size=len(trace)) < [chance(item) for item in trace.items]
    outcome = np.where(hit, "resolved", "unresolved")
    return replace(trace, lifecycle=replace(trace.lifecycle, outcome=outcome))


def level_rows(trace, row):
    return [
        r
        for r, item in enumerate(trace.items)
        if item.family == row.family and item.factors.get(row.factor) == row.level
    ]


@pytest.mark.parametrize("quantity", ["resolved", "no_brewing", "right"])
def test_shares_are_means_over_the_level(trace, quantity):
    table = difficulty_table(trace, quantity=quantity)
    assert len(table) == 2 * 9
    life = trace.lifecycle
    hits = life.output_correct if quantity == "right" else life.outcome == quantity
    for row in table.itertuples():
        here = level_rows(trace, row)
        assert row.n == len(here) == 36
        assert row.value == pytest.approx(np.mean([hits[r] for r in here]))
        assert row.n_shapes == len({trace.shapes[r] for r in here})
        assert row.low <= row.value <= row.high


def test_onsets_are_shares_of_the_depth(trace):
    table = difficulty_table(trace, quantity=("available_from", "ready_from_median"))
    marks = trace.lifecycle.landmarks
    for row in table.itertuples():
        here = level_rows(trace, row)
        if row.quantity == "available_from":
            layers = [marks.fpcl[r] if marks.fpcl[r] != NEVER else LAYERS for r in here]
            assert row.value == pytest.approx(np.mean(layers) / LAYERS)
        else:
            layers = sorted(marks.fcc[r] if marks.fcc[r] != NEVER else LAYERS for r in here)
            middle = layers[(len(layers) - 1) // 2]
            assert np.isnan(row.value) if middle == LAYERS else row.value == pytest.approx(middle / LAYERS)
            assert np.isnan(row.p)
        assert np.isnan(row.value) or row.low <= row.value <= row.high


def test_slopes_of_onsets_are_shares_of_the_depth_per_level(trace):
    table = difficulty_table(trace, "conditional", quantity="available_from")
    row = table[table["factor"] == "depth"].iloc[0]
    items = [item for item in trace.items if item.family == "conditional"]
    layers = [trace.lifecycle.landmarks.fpcl[trace.items.row(item.id)] for item in items]
    value = [(layer if layer != NEVER else LAYERS) / LAYERS for layer in layers]
    others = [(item.factors["branch_type"], item.factors["condition_type"]) for item in items]
    columns = [[item.factors["depth"] for item in items]]
    columns += [[own == other for own in others] for other in set(others)]
    slope = np.linalg.lstsq(np.array(columns, dtype=float).T, np.array(value), rcond=None)[0][0]
    assert row["slope"] == pytest.approx(slope) and row["slope_low"] < slope < row["slope_high"]


def test_trends_are_those_of_the_claims(trace):
    table = difficulty_table(trace).drop_duplicates(["family", "factor"])
    claims = trace.tables["claims"]
    claims = claims[claims["statement"].str.startswith("harder")].set_index("scope")
    tested = table[table["p"].notna()]
    assert {f"{r.family}, {r.factor}" for r in tested.itertuples()} == set(claims.index)
    for row in tested.itertuples():
        claim = claims.loc[f"{row.family}, {row.factor}"]
        assert (-row.slope, -row.slope_high, -row.slope_low, row.p) == pytest.approx(
            (claim["effect"], claim["low"], claim["high"], claim["p"])
        )
    assert tested["p_adjusted"].to_numpy() == pytest.approx(benjamini_hochberg(tested["p"].to_numpy()))
    named = table[table["factor"].isin(["structure", "branch_type", "condition_type"])]
    assert named["rank"].isna().all() and named["slope"].isna().all()


def test_a_planted_trend_is_found_and_noise_has_none(trace):
    """Resolved ever more rarely with more steps, and of conditionals at random."""
    seen = planted(trace, lambda item: {2: 0.9, 3: 0.5, 4: 0.1}.get(item.factors.get("steps"), 0.5))
    table = difficulty_table(seen).drop_duplicates(["family", "factor"]).set_index(["family", "factor"])
    steps = table.loc[("computing", "steps")]
    assert steps["p_adjusted"] < 1e-6 and steps["slope_low"] < -0.4 < steps["slope_high"]
    others = table.drop(index=("computing", "steps"))["p_adjusted"].dropna()
    assert len(others) == 2 and (others > 0.05).all()
    axes = plot_difficulty_grid(seen, figure=theme.blank(*difficulty_size(2))).axes
    told = {text.get_gid(): text.get_text() for text in axes[0].texts if text.get_gid()}
    assert told["trend-steps"] == f"{100 * steps['slope']:+.1f} per level".replace("-", "−")
    assert told["trend-operators"] == "no clear trend" and told["trend-structure"] == ""
    both = plot_difficulty(
        seen, family="computing", quantity=("no_brewing", "resolved"), ax=Figure().add_subplot()
    )
    slope = told["trend-steps"].removesuffix(" per level")
    assert f"n.s. / {slope}" in [text.get_text() for text in both.texts]
    assert both.get_legend().get_title().get_text() == "above: points per level, no brewing / resolved"


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_difficulty(trace, family="conditional", quantity=("resolved", "right"), ax=ax) is ax
    table = difficulty_table(trace, "conditional", quantity=("resolved", "right"))
    lines = {line.get_gid(): line for line in ax.get_lines() if line.get_gid()}
    ends = {tuple(np.round(s[:, 1], 9)) for c in ax.collections if hasattr(c, "get_segments")
            for s in c.get_segments()}  # fmt: skip
    for (quantity, factor), rows in table.groupby(["quantity", "factor"], sort=False):
        line = lines[f"{quantity}-{factor}"]
        assert np.allclose(line.get_ydata(), rows["value"])
        assert (line.get_linestyle() == "-") == (factor == "depth")
        assert {tuple(np.round(pair, 9)) for pair in rows[["low", "high"]].to_numpy()} <= ends
    assert len(lines) == 6
    named = [label.get_text() for label in ax.get_xticklabels()]
    assert named == [str(level).replace("_", " ") for level in table["level"].iloc[:9]]
    assert ax.get_title(loc="left") == "conditional  (n = 108)"


def test_levels_are_in_order(trace):
    loops = factor_levels(item for item in trace.items if item.family == "computing")
    assert list(loops) == ["structure", "steps", "operators"] and loops["operators"] == [
        "add",
        "add_sub",
        "add_mul",
    ]
    own = [replace(item, family="mine", factors={"size": s, "kind": k}) for item, s, k in
           zip(trace.items, (10, 9, 11), "cab", strict=False)]  # fmt: skip
    assert factor_levels(own) == {"size": [9, 10, 11], "kind": ["c", "a", "b"]}


def test_many_levels_stay_readable(trace):
    items = tuple(replace(item, factors={"size": row % 60, "kind": "ab"[row % 2]}) for row, item in
                  enumerate(trace.items))  # fmt: skip
    ax = Figure().add_subplot()
    plot_difficulty(replace(trace, items=ItemSet(items)), family="computing", ax=ax)
    named = [label.get_text() for label in ax.get_xticklabels()]
    assert named == ["0", "8", "16", "24", "32", "40", "48", "56", "a", "b"]
    line = next(line for line in ax.get_lines() if line.get_gid() == "resolved-size")
    assert len(line.get_xdata()) == 60 and line.get_xdata().max() == 7


def test_same_bytes(trace, tmp_path):
    table = difficulty_table(trace)
    made = []
    for name in ("a", "b"):
        figure = plot_difficulty_grid(trace, table=table, figure=theme.blank(*difficulty_size(2)))
        made.append([p.read_bytes() for p in save(figure, tmp_path / name, table)])
    assert made[0] == made[1]
    assert "computing, resolved: structure func_arithmetic" in difficulty_alt(table)


def test_what_cannot_be_drawn_is_refused(trace):
    with pytest.raises(ValueError, match=r"unknown quantity 'solved'; choose of resolved"):
        difficulty_table(trace, quantity="solved")
    with pytest.raises(ValueError, match=r"found resolved, ready_from: draw them apart"):
        plot_difficulty(
            trace, family="computing", quantity=("resolved", "ready_from"), ax=Figure().add_subplot()
        )
    with pytest.raises(ValueError, match=r"needs the onset ready; found none: trace the items anew"):
        difficulty_table(replace(trace, onsets={}), quantity="ready_from")
    bare = ItemSet(tuple(replace(item, factors={}) for item in trace.items))
    with pytest.raises(
        ValueError, match=r"needs items with factors; those of computing, conditional have none"
    ):
        difficulty_table(replace(trace, items=bare))
    with pytest.raises(ValueError, match=r"asked for family 'looop'"):
        difficulty_table(trace, "looop")
