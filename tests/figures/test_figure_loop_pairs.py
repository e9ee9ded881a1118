"""Loops against their unrolled twins: pairs as the items link them, counts by hand, signs the right way."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest
from synthetic import synthetic_trace

from brewlens.figures import save, theme
from brewlens.figures.loop_pairs import (
    CELLS,
    has_twin_pairs,
    loop_pairs_alt,
    loop_pairs_size,
    loop_pairs_table,
    plot_loop_pairs,
    twin_pairs,
)
from brewlens.lifecycle.onsets import Onsets
from brewlens.stats import benjamini_hochberg

mpl.use("agg")
LAYERS = 6


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(54, ("computing", "loop", "loop_unrolled"), n_layers=LAYERS)


def pairs(trace):
    """By the name of the families and the twins' own link back, one item after the other."""
    ids = list(trace.items.ids)
    return [
        (ids.index(item.twins["loop"]), row)
        for row, item in enumerate(trace.items)
        if item.family == "loop_unrolled"
    ]


def certain(layers):
    return Onsets(LAYERS, np.eye(LAYERS + 1)[np.asarray(layers)])


def part(table, name):
    return table[table["part"] == name].set_index("name")


def test_pairs_are_linked_twins(trace):
    loops, unrolled = twin_pairs(trace)
    assert sorted(zip(loops.tolist(), unrolled.tolist(), strict=True)) == sorted(pairs(trace))
    assert {trace.items[int(r)].family for r in loops} == {"loop"}


def test_counts_by_hand(trace):
    table, outcome = loop_pairs_table(trace), trace.lifecycle.outcome
    found = [(outcome[a], outcome[b]) for a, b in pairs(trace)]
    outcomes = part(table, "outcomes")
    assert outcomes["count"].sum() == len(found) == 54
    for row in outcomes.itertuples():
        assert row.count == found.count((row.loop_outcome, row.unrolled_outcome))
    cells = part(table, "resolved")["count"]
    solved = [(a == "resolved", b == "resolved") for a, b in found]
    assert cells.to_dict() == {
        "both": solved.count((True, True)),
        "only_loop": solved.count((True, False)),
        "only_unrolled": solved.count((False, True)),
        "neither": solved.count((False, False)),
    }
    up, down = cells["only_loop"], cells["only_unrolled"]
    row = part(table, "differences").loc["resolved"]
    assert row["value"] == pytest.approx((up - down) / 54) and row["low"] <= row["value"] <= row["high"]
    assert row["p_mcnemar"] == pytest.approx(binomtest(int(up), int(up + down)).pvalue)


def test_the_difference_is_that_of_the_claims(trace):
    claims = trace.tables["claims"]
    claim = claims[claims["statement"].str.startswith("a loop is resolved")].iloc[0]
    row = part(loop_pairs_table(trace), "differences").loc["resolved"]
    for ours, theirs in (("value", "effect"), ("low", "low"), ("high", "high"), ("p", "p"), ("n", "n")):
        assert row[ours] == pytest.approx(claim[theirs])


def test_onsets_are_compared_pair_by_pair(trace):
    """Loops two layers later than their twins, and a few never: they count as the last."""
    rng = np.random.default_rng(0)
    later = rng.integers(0, LAYERS - 2, len(trace))
    shifted = later.copy()
    for loop, unrolled in pairs(trace):
        shifted[loop] = LAYERS if loop % 9 == 0 else later[unrolled] + 2
    onsets = {"available": certain(shifted), "ready": certain(np.full(len(trace), 3))}
    rows = part(loop_pairs_table(replace(trace, onsets=onsets)), "differences")
    expected = np.mean([shifted[a] - shifted[b] for a, b in pairs(trace)]) / LAYERS
    row = rows.loc["available_from"]
    assert row["value"] == pytest.approx(expected) == pytest.approx(row["loop"] - row["unrolled"])
    assert row["low"] > 0 and row["p_adjusted"] < 1e-3
    assert rows.loc["ready_from", "value"] == 0
    assert rows["p_adjusted"].to_numpy() == pytest.approx(benjamini_hochberg(rows["p"].to_numpy()))
    assert list(part(loop_pairs_table(replace(trace, onsets={})), "differences").index) == [
        "resolved",
        "right",
    ]


def test_twins_that_end_alike_do_not_differ(trace):
    outcome = np.full(len(trace), "resolved", dtype=object)
    for number, (loop, unrolled) in enumerate(pairs(trace)):
        outcome[[loop, unrolled]] = "resolved" if number % 3 else "unresolved"
    alike = replace(trace, lifecycle=replace(trace.lifecycle, outcome=outcome))
    row = part(loop_pairs_table(alike), "differences").loc["resolved"]
    assert row["value"] == 0 and row["p_mcnemar"] == 1 and row["low"] < 0 < row["high"]
    for loop, _ in pairs(trace):
        outcome[loop] = "misresolved"
    none = replace(trace, lifecycle=replace(trace.lifecycle, outcome=outcome))
    row = part(loop_pairs_table(none), "differences").loc["resolved"]
    assert row["high"] < 0 and row["p_adjusted"] < 1e-3


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_loop_pairs(trace, ax=ax) is ax
    bar, matrix, forest = ax.child_axes
    table = loop_pairs_table(trace)
    cells = part(table, "resolved")
    drawn = {patch.get_gid(): patch for patch in bar.patches}
    assert set(drawn) == {f"cell-{name}" for name in CELLS}
    for name in CELLS:
        assert drawn[f"cell-{name}"].get_width() == pytest.approx(cells.loc[name, "value"])
    told = {text.get_gid(): text.get_text() for text in bar.texts}
    row = cells.loc["neither"]
    assert told["label-neither"] == f"{100 * row.value:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"
    counts = {text.get_gid(): int(text.get_text()) for text in matrix.texts}
    seen = part(table, "outcomes").query("count > 0")
    assert counts == {f"count-{name}": count for name, count in seen["count"].items()}
    rows, columns = ([label.get_text() for label in axis] for axis in
                     (matrix.get_yticklabels(), matrix.get_xticklabels()))  # fmt: skip
    assert len(rows) == len(columns)
    name = seen[seen["loop_outcome"] != seen["unrolled_outcome"]].iloc[0].name
    x, y = next(t for t in matrix.texts if t.get_gid() == f"count-{name}").get_position()
    assert rows[int(y)] == theme.OUTCOME_NAMES[seen.loc[name, "loop_outcome"]]
    assert rows[int(x)] == theme.OUTCOME_NAMES[seen.loc[name, "unrolled_outcome"]]
    marks = {line.get_gid(): line for line in forest.get_lines() if line.get_gid()}
    for name, row in part(table, "differences").iterrows():
        assert marks[f"difference-{name}"].get_xdata()[0] == pytest.approx(100 * row["value"])


def test_same_bytes(trace, tmp_path):
    made = []
    for name in ("a", "b"):
        figure = theme.blank(*loop_pairs_size())
        with theme.context():
            ax = figure.add_subplot()
        plot_loop_pairs(trace, ax=ax)
        made.append([p.read_bytes() for p in save(figure, tmp_path / name, loop_pairs_table(trace))])
    assert made[0] == made[1]
    cells = part(loop_pairs_table(trace), "resolved")["count"]
    assert f"54 pairs: both resolved {cells['both']}, only the loop" in loop_pairs_alt(
        loop_pairs_table(trace)
    )


def test_a_single_pair_has_no_interval(trace):
    one = trace.select(next((a, b) for a, b in pairs(trace)))
    table = loop_pairs_table(one)
    differences = part(table, "differences")
    assert differences["n"].eq(1).all() and differences[["low", "high", "p"]].isna().all(axis=None)
    assert "nan" not in loop_pairs_alt(table)
    plot_loop_pairs(one, ax=Figure().add_subplot()).figure.draw_without_rendering()


def test_without_twins_there_are_no_pairs(trace):
    alone = trace.select([r for r, item in enumerate(trace.items) if item.family != "loop_unrolled"])
    assert has_twin_pairs(trace) and not has_twin_pairs(alone)
    with pytest.raises(ValueError, match=r"no such pair in families computing, loop: run both"):
        plot_loop_pairs(alone, ax=Figure().add_subplot())
