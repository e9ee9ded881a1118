"""Outcome shares: denominators, intervals, and that the figure draws the table."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest
from synthetic import synthetic_trace

from brewlens.figures import outcome_table, plot_outcomes
from brewlens.tasks.item import ItemSet

mpl.use("agg")


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(40, ("computing", "loop"), n_layers=6)


def test_outcomes_are_shares_of_the_samples_with_an_fpcl(trace):
    table = outcome_table(trace)
    for family, rows in table.groupby("family"):
        here = np.isin(trace.lifecycle.families, [family] if family != "overall" else ["computing", "loop"])
        outcome = trace.lifecycle.outcome[here]
        brewed = rows[rows["denominator"] == "with_fpcl"]
        assert brewed["n"].eq((outcome != "no_brewing").sum()).all()
        assert brewed["count"].tolist() == [(outcome == o).sum() for o in brewed["outcome"]]
        assert brewed["share"].sum() == pytest.approx(1)
        beside = rows.set_index("outcome").loc[["no_brewing", "format_miss"]]
        assert beside["n"].eq(here.sum()).all()
        assert beside["count"].tolist() == [
            (outcome == "no_brewing").sum(),
            trace.lifecycle.format_miss[here].sum(),
        ]


@pytest.mark.parametrize("taxonomy", ["repaired", "paper"])
def test_intervals_are_clustered_by_shape(trace, taxonomy):
    """Never narrower than Wilson's of independent samples, and his where no two samples have one shape."""
    table = outcome_table(trace, taxonomy)
    for row in table.itertuples():
        interval = binomtest(row.count, row.n).proportion_ci(method="wilson")
        assert row.low <= interval.low + 1e-9 and row.high >= interval.high - 1e-9
        assert row.n_shapes <= row.n and 0 < row.detectable < 1
    apart = [replace(item, shape=item.id) for item in trace.items]
    single = replace(trace, items=ItemSet(tuple(apart), trace.items.partners))
    for row in outcome_table(single, taxonomy).itertuples():
        interval = binomtest(row.count, row.n).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((interval.low, interval.high))


def test_only_the_repaired_rule_knows_bypassed(trace):
    assert "bypassed" in set(outcome_table(trace)["outcome"])
    assert "bypassed" not in set(outcome_table(trace, "paper")["outcome"])
    paper = outcome_table(trace, "paper").set_index(["family", "outcome"])["count"]
    assert paper["overall", "unresolved"] == (trace.lifecycle.outcome_paper == "unresolved").sum()


@pytest.mark.parametrize("taxonomy", ["repaired", "paper"])
def test_the_figure_draws_the_table(trace, taxonomy):
    ax = Figure().add_subplot()
    assert plot_outcomes(trace, taxonomy=taxonomy, ax=ax) is ax
    lines = {line.get_gid(): line for line in ax.get_lines() if line.get_gid()}
    table = outcome_table(trace, taxonomy)
    drawn = table[table["outcome"] != "format_miss"]
    assert set(lines) == set(drawn["outcome"])
    bars = {
        tuple(np.round(s[:, 0], 9))
        for c in ax.collections
        if hasattr(c, "get_segments")
        for s in c.get_segments()
    }
    for outcome, rows in drawn.groupby("outcome"):
        assert np.allclose(lines[outcome].get_xdata(), rows["share"])
        assert {tuple(np.round(pair, 9)) for pair in rows[["low", "high"]].to_numpy()} <= bars
    names = [label.get_text() for label in ax.get_yticklabels()]
    brewed = drawn[drawn["outcome"] == "resolved"]["n"].tolist()
    assert names == [
        f"{family}\nn = {n} of {total}"
        for family, n, total in zip(("computing", "loop", "overall"), brewed, (40, 40, 80), strict=True)
    ]


def test_a_family_without_any_fpcl_has_missing_shares(trace):
    rows = [r for r, outcome in enumerate(trace.lifecycle.outcome) if outcome == "no_brewing"]
    table = outcome_table(trace.select(rows))
    assert table[table["denominator"] == "with_fpcl"]["share"].isna().all()
    plot_outcomes(trace.select(rows), ax=Figure().add_subplot()).figure.draw_without_rendering()


def test_an_unknown_taxonomy_is_refused(trace):
    with pytest.raises(ValueError, match=r"unknown taxonomy 'papers'.*repaired, paper"):
        outcome_table(trace, "papers")
