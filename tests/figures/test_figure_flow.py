"""Flows from families to outcomes: they add up, ribbons are as wide as their counts, labels keep apart."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest
from synthetic import synthetic_trace

from brewlens.figures import save, theme
from brewlens.figures.flow import flow_alt, flow_size, flow_table, plot_flow, spread
from brewlens.tasks.item import ItemSet

mpl.use("agg")


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(40, ("computing", "conditional", "loop"), n_layers=6)


def with_outcomes(trace, outcome):
    return replace(trace, lifecycle=replace(trace.lifecycle, outcome=np.asarray(outcome)))


def patches(ax):
    return {patch.get_gid(): patch for patch in ax.patches if patch.get_gid()}


@pytest.mark.parametrize("taxonomy", ["repaired", "paper"])
def test_every_sample_flows_once(trace, taxonomy):
    table = flow_table(trace, taxonomy=taxonomy)
    life = trace.lifecycle
    label = life.outcome if taxonomy == "repaired" else life.outcome_paper
    for family, rows in table.groupby("family"):
        here = [family in (f, "overall") for f in life.families]
        assert rows["count"].sum() == rows["n"].iloc[0] == sum(here)
        assert rows["share"].sum() == pytest.approx(1)
        for row in rows.itertuples():
            assert row.count == sum(h and o == row.outcome for h, o in zip(here, label, strict=True))
    assert ("bypassed" in set(table["outcome"])) == (taxonomy == "repaired")
    order = [o for o in theme.OUTCOME_COLORS if o in set(table["outcome"])]
    assert table["outcome"].tolist() == order * 4


def test_intervals_are_clustered_by_shape(trace):
    for row in flow_table(trace).itertuples():
        plain = binomtest(row.count, row.n).proportion_ci(method="wilson")
        assert row.low <= plain.low + 1e-9 and row.high >= plain.high - 1e-9
    apart = ItemSet(tuple(replace(item, shape=item.id, twins={}) for item in trace.items))
    for row in flow_table(replace(trace, items=apart)).itertuples():
        plain = binomtest(row.count, row.n).proportion_ci(method="wilson")
        assert (row.low, row.high) == pytest.approx((plain.low, plain.high))


def test_ribbons_are_as_wide_as_their_counts_and_leave_no_gap(trace):
    ax = Figure().add_subplot()
    assert plot_flow(trace, ax=ax) is ax
    drawn = patches(ax)
    table = flow_table(trace)
    flows = table[(table["family"] != "overall") & (table["count"] > 0)]
    assert {gid for gid in drawn if "-" in gid and not gid.startswith(("family-", "outcome-"))} == {
        f"{row.family}-{row.outcome}" for row in flows.itertuples()
    }
    for side, (group, other) in enumerate((("family", "outcome"), ("outcome", "family"))):
        for name, rows in flows.groupby(group):
            ends = []
            for row in rows.itertuples():
                points = drawn[f"{row.family}-{row.outcome}"].get_path().vertices
                top, bottom = (points[0], points[7]) if side == 0 else (points[3], points[4])
                assert bottom[1] - top[1] == pytest.approx(row.count)
                ends.append((top[1], bottom[1]))
            ends.sort()
            bar = drawn[f"{group}-{name}"]
            assert ends[0][0] == pytest.approx(bar.get_y()), other
            assert ends[-1][1] == pytest.approx(bar.get_y() + bar.get_height())
            assert [a for _, a in ends[:-1]] == pytest.approx([b for b, _ in ends[1:]])


def test_outcomes_carry_n_share_and_interval(trace):
    ax = Figure().add_subplot()
    plot_flow(trace, ax=ax)
    texts = {t.get_gid(): t.get_text() for t in ax.texts if t.get_gid()}
    lines = {line.get_gid(): line for line in ax.get_lines() if line.get_gid()}
    nodes = flow_table(trace).query("family == 'overall' and count > 0")
    for row in nodes.itertuples():
        told = texts[f"label-{row.outcome}"]
        assert told == (
            f"{100 * row.share:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}], n = {row.count}"
        )
        top = patches(ax)[f"outcome-{row.outcome}"].get_y()
        low, high = lines[f"interval-{row.outcome}"].get_ydata() - top
        assert (low / 120, high / 120) == pytest.approx((row.low, row.high))


def test_only_what_happens_is_drawn(trace):
    """One end for all: one ribbon per family, one node."""
    ax = Figure().add_subplot()
    plot_flow(with_outcomes(trace, ["unresolved"] * len(trace)), ax=ax)
    names = set(patches(ax))
    assert {n for n in names if n.startswith("outcome-")} == {"outcome-unresolved"}
    assert sum(n.endswith("-unresolved") for n in names) == 1 + 3
    one = trace.select([r for r, item in enumerate(trace.items) if item.family == "loop"])
    plot_flow(one, ax=Figure().add_subplot()).figure.draw_without_rendering()


def test_labels_keep_apart_and_move_no_more_than_they_must():
    rng = np.random.default_rng(0)
    for _ in range(50):
        places = np.sort(rng.uniform(0, 1, 6))
        moved = spread(places, 0.1, 0.0, 1.0)
        assert (np.diff(moved) >= 0.1 - 1e-9).all() and moved[0] >= 0 and moved[-1] <= 1 + 1e-9
    far = np.array([0.1, 0.4, 0.8])
    assert spread(far, 0.1, 0, 1) == pytest.approx(far)
    assert spread(np.array([0.5, 0.5]), 0.2, 0, 1) == pytest.approx([0.4, 0.6])


def test_same_bytes(trace, tmp_path):
    made = []
    for name in ("a", "b"):
        figure = theme.blank(*flow_size(trace))
        with theme.context():
            ax = figure.add_subplot()
        plot_flow(trace, ax=ax)
        made.append([p.read_bytes() for p in save(figure, tmp_path / name, flow_table(trace))])
    assert made[0] == made[1]


def test_the_alternative_text_names_every_flow(trace):
    text = flow_alt(flow_table(trace))
    count = int(
        ((trace.lifecycle.outcome == "resolved") & (np.array(trace.lifecycle.families) == "loop")).sum()
    )
    assert f"loop, n 40: resolved {count} (" in text and "all families, n 120" in text


def test_what_cannot_be_drawn_is_refused(trace):
    with pytest.raises(ValueError, match=r"unknown taxonomy 'papers'.*repaired, paper"):
        flow_table(trace, taxonomy="papers")


def test_a_family_called_overall_is_one_like_others(trace):
    names = tuple("overall" if family == "loop" else family for family in trace.lifecycle.families)
    table = flow_table(named := replace(trace, lifecycle=replace(trace.lifecycle, families=names)))
    assert table.groupby("family", sort=False)["n"].first().to_dict() == {
        "computing": 40,
        "conditional": 40,
        "overall": 40,
        "all samples": 120,
    }
    ax = Figure().add_subplot()
    plot_flow(named, ax=ax)
    assert patches(ax)["family-overall"].get_height() == 40
