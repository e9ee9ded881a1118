"""Several models: tables beside the slow way, a planted shift between two models, and none within one."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from planted_trace import planted_trace
from synthetic import synthetic_trace

from brewlens.figures import outcome_table, theme
from brewlens.figures.model_pairs import LEAST_COMMON, pairs_alt, pairs_size, pairs_table, plot_pairs
from brewlens.figures.models import models_alt, models_size, models_table, parameters, plot_model_depths
from brewlens.figures.models_by_size import _apart, outcomes_by_size_size, plot_outcomes_by_size
from brewlens.lifecycle import NEVER, OUTCOMES, restricted_difference
from brewlens.planted import draw_truth
from brewlens.stats import bounded_mean, clustered_mean, clustered_share, paired_difference
from brewlens.study.analysis import fit_lifecycle_onsets

mpl.use("agg")
LAYERS = 8


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(54, ("computing", "loop"), n_layers=LAYERS)


@pytest.fixture(scope="module")
def other():
    """Another model on the same items."""
    return synthetic_trace(54, ("computing", "loop"), n_layers=12)


@pytest.fixture(scope="module")
def traces(trace, other):
    return {"small": trace, "large": replace(other, manifest={"model": {"n_params": 7.6e9}})}


@pytest.fixture(scope="module")
def planted():
    """Two models on the same prompts; the second is ready three layers later, and all else is alike."""
    made = {}
    for name, ready in (("early", 3), ("late", 6)):
        mix = {"resolved": 0.7, "overprocessed": 0.2, "no_brewing": 0.1}
        truth = draw_truth(60, 12, mix=mix, available=1, ready=ready, lost=9, seed=1)
        found = planted_trace(truth)[2]
        made[name] = replace(found, onsets=fit_lifecycle_onsets(found.items, found.readouts))
    return made


def drawn(figure):
    """Its bytes as SVG."""
    file = BytesIO()
    with theme.context():
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def test_the_table_holds_what_each_model_does(traces):
    sizes = {"small": 494e6}
    for family in (None, "loop"):
        table = models_table(traces, sizes, family).set_index(["model", "quantity"])
        for name, trace in traces.items():
            here = np.array(trace.lifecycle.families) == "loop" if family else np.ones(len(trace), dtype=bool)
            found = clustered_share(trace.lifecycle.output_correct[here], trace.shapes[here])
            row = table.loc[name, "accuracy"]
            assert (row["value"], row["low"], row["high"]) == (found.value, found.low, found.high)
            ends = outcome_table(trace).set_index(["family", "outcome"]).loc[family or "overall"]
            for outcome in OUTCOMES:
                row = table.loc[name, outcome]
                told = ends.loc[outcome]
                assert (row["n"], row["n_shapes"]) == (told["n"], told["n_shapes"])
                assert tuple(row[["value", "low", "high"]]) == pytest.approx(
                    tuple(told[["share", "low", "high"]])
                )
            nulls = trace.tables["nulls"].query("null == 'answers permuted'")
            nulls = nulls[nulls["family"] == (family or "all")].set_index("statistic")["null_mean"]
            for mark in ("fpcl", "fcc", "fjc", "brewing"):
                hit = getattr(trace.lifecycle.landmarks, mark)[here]
                depth = [trace.n_layers if h == NEVER else h for h in hit if h != NEVER or mark != "brewing"]
                row = table.loc[name, mark]
                assert row["value"] == pytest.approx(np.mean(depth) / trace.n_layers)
                assert row["q25"] == pytest.approx(np.quantile(depth, 0.25) / trace.n_layers)
                assert row["never"] == pytest.approx((hit == NEVER).mean())
                assert row["null"] == pytest.approx(nulls[mark])
            assert table.loc[(name, "resolved"), "null"] == pytest.approx(nulls["outcome_resolved"])
            posterior = trace.onsets["ready"].posterior[here]
            row = table.loc[name, "ready_from"]
            assert row["value"] == pytest.approx(
                (posterior @ np.arange(trace.n_layers + 1)).mean() / trace.n_layers
            )
            by = np.cumsum(posterior.mean(axis=0))
            half = next(k for k in range(trace.n_layers + 1) if by[k] >= 0.5 or k == trace.n_layers)
            assert row["q50"] == half / trace.n_layers
            assert table.loc[name, "n_params"].eq({"small": 494e6, "large": 7.6e9}[name]).all()


def test_a_model_without_onsets_or_nulls_says_so(trace):
    table = models_table({"bare": replace(trace, onsets={}, tables={})}).set_index("quantity")
    assert table.loc["ready_from", "n"] == 0 and np.isnan(table.loc["ready_from", "value"])
    assert table["null"].isna().all() and table["n_params"].isna().all()
    assert "ready from" not in models_alt(table.reset_index())


def test_a_planted_shift_is_found_and_only_that(planted):
    table = pairs_table(planted, [("early", "late")]).set_index("quantity")
    assert table["paired"].all() and (table["in_common"] == 60).all()
    life = planted["early"].lifecycle
    joint = life.landmarks.fjc != NEVER
    # Without noise a decoder that knows nothing says 0, and hits those answers from the first layer on.
    moved = joint & (np.array(life.answers) != "0")
    for name in ("fcc", "fjc"):
        assert table.loc[name, "difference"] == pytest.approx(3 / 12 * moved.mean())
        assert table.loc[name, "low"] > 0.15 and table.loc[name, "p_adjusted"] < 0.001
    assert table.loc["brewing", "difference"] == pytest.approx(3 / 12 * moved.sum() / joint.sum())
    assert table.loc["ready_from", "low"] > 0.15 and table.loc["ready_from", "high"] < 0.3
    alike = table.loc[["accuracy", *OUTCOMES, "fpcl", "available_from"]]
    assert (alike["low"] <= 0).all() and (alike["high"] >= 0).all()
    assert (alike.loc[["accuracy", *OUTCOMES, "fpcl"], "difference"] == 0).all()
    assert "FJC +0.2" in pairs_alt(table.reset_index())


def test_a_model_does_not_differ_from_itself(traces):
    twice = {"once": traces["small"], "again": traces["small"]}
    table = pairs_table(twice, [("once", "again")])
    assert table["paired"].all()
    assert table["difference"].abs().max() == pytest.approx(0, abs=1e-12)
    assert (table["p"] == 1).all() and (table["low"] <= 0).all() and (table["high"] >= 0).all()
    assert "no clear difference" in pairs_alt(table)


def test_paired_differences_are_those_of_the_items(trace, other):
    order = np.random.default_rng(0).permutation(len(other))[:100]
    pair = {"first": trace, "second": other.select(order)}
    table = pairs_table(pair, [("first", "second")], "loop").set_index("quantity")
    ids = [i.id for i in trace.items if i.family == "loop" and i.id in set(pair["second"].items.ids)]
    a = [trace.items.ids.index(name) for name in ids]
    b = [pair["second"].items.ids.index(name) for name in ids]
    shapes = trace.shapes[a]
    for name in OUTCOMES:
        sides = pair["second"].lifecycle.outcome[b] == name, trace.lifecycle.outcome[a] == name
        found = paired_difference(*sides, shapes)
        row = table.loc[name]
        assert (row["n"], row["difference"]) == (len(ids), pytest.approx(found.value))
        assert (row["low"], row["high"]) == pytest.approx((found.low, found.high))
    late, early = pair["second"].lifecycle.landmarks.fjc[b], trace.lifecycle.landmarks.fjc[a]
    gaps = np.where(late == NEVER, 1, late / 12) - np.where(early == NEVER, 1, early / LAYERS)
    found = clustered_mean(gaps, shapes)
    assert table.loc["fjc", "difference"] == pytest.approx(found.value)
    assert table.loc["fjc", ["low", "high"]].tolist() == pytest.approx([found.low, found.high])
    both = (late != NEVER) & (early != NEVER)
    assert table.loc["brewing", "n"] == both.sum()
    means = [
        (t.onsets["ready"].posterior[rows] @ np.arange(t.n_layers + 1)).mean() / t.n_layers
        for t, rows in ((trace, a), (pair["second"], b))
    ]
    assert table.loc["ready_from", "difference"] == pytest.approx(means[1] - means[0])


def test_onsets_of_one_depth_are_compared_as_within_a_model(trace):
    shifted = np.roll(trace.onsets["ready"].posterior, 1, axis=1)
    late = replace(trace, onsets={**trace.onsets, "ready": replace(trace.onsets["ready"], posterior=shifted)})
    row = pairs_table({"a": trace, "b": late}, [("a", "b")]).set_index("quantity").loc["ready_from"]
    found = restricted_difference(
        *(shifted, trace.onsets["ready"].posterior, trace.shapes), groups=trace.lifecycle.families
    )
    ends = (found.value / LAYERS, found.low / LAYERS, found.high / LAYERS)
    assert tuple(row[["difference", "low", "high"]]) == pytest.approx(ends)


def test_runs_on_other_items_are_not_paired_and_say_so(trace):
    half = np.arange(len(trace)) % 2 == 0
    least = int(LEAST_COMMON * (~half).sum()) - 2
    rows = np.r_[np.flatnonzero(half), np.flatnonzero(~half)[:least]]
    pair = {"a": trace.select(rows), "b": trace.select(np.flatnonzero(~half))}
    table = pairs_table(pair, [("a", "b")]).set_index("quantity")
    assert not table["paired"].any() and table["in_common"].eq(least).all()
    a, b = (clustered_share(t.lifecycle.output_correct, t.shapes) for t in (pair["a"], pair["b"]))
    row = table.loc["accuracy"]
    assert (row["first_value"], row["second_value"]) == (a.value, b.value)
    low = b.value - a.value - np.sqrt((b.value - b.low) ** 2 + (a.high - a.value) ** 2)
    assert row["low"] == pytest.approx(low)
    assert (row["p"] < 0.05) == (row["low"] > 0 or row["high"] < 0)
    hit = pair["b"].lifecycle.landmarks.fjc
    mean = bounded_mean(np.where(hit == NEVER, 1, hit / LAYERS), 0, 1, pair["b"].shapes)
    assert table.loc["fjc", "second_value"] == pytest.approx(mean.value)
    assert table.loc["brewing", "n_second"] == (hit != NEVER).sum()
    ax = plot_pairs(pair, [("a", "b")], ax=Figure().add_subplot())
    heads = [t.get_text() for t in ax.texts if t.get_gid().startswith("head")]
    assert heads == [f"b minus a, not paired (n = {len(pair['b'])} and {len(rows)}; {least} in common)"]


def test_another_program_of_the_same_id_is_another_item(trace):
    renamed = replace(
        trace.items, items=tuple(replace(i, prompt="# again\n" + i.prompt) for i in trace.items.items)
    )
    table = pairs_table({"a": trace, "b": replace(trace, items=renamed)}, [("a", "b")])
    assert not table["paired"].any() and table["in_common"].eq(0).all()


def test_unpaired_halves_of_one_model_seldom_differ(trace):
    rng, low, high = np.random.default_rng(5), [], []
    for _ in range(15):
        order = rng.permutation(len(trace))
        pair = {"a": trace.select(order[:54]), "b": trace.select(order[54:])}
        table = pairs_table({n: replace(t, onsets={}) for n, t in pair.items()}, [("a", "b")])
        table = table[table["n"] > 0]
        low, high = [*low, *table["low"]], [*high, *table["high"]]
    assert ((np.array(low) <= 0) & (np.array(high) >= 0)).mean() > 0.88


def test_the_figures_draw_the_tables(traces):
    sizes = {"small": 494e6}
    table = models_table(traces, sizes).set_index(["model", "quantity"])
    ax = plot_model_depths(traces, sizes=sizes, ax=Figure().add_subplot())
    lines = {line.get_gid(): line for line in ax.get_lines()}
    for name in traces:
        for quantity in ("fjc", "brewing"):
            row = table.loc[name, quantity]
            assert lines[f"mean-{quantity}-{name}"].get_xdata() == [row["value"]]
            assert lines[f"median-{quantity}-{name}"].get_xdata() == [row["q50"]]
            assert lines[f"null-{quantity}-{name}"].get_xdata() == [row["null"]]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["small\nL = 8, 494M", "large\nL = 12, 7.6B"]
    ax = plot_outcomes_by_size(traces, sizes=sizes, ax=Figure().add_subplot())
    lines = {line.get_gid(): line for line in ax.get_lines()}
    for outcome in OUTCOMES:
        expected = [table.loc[(name, outcome), "value"] for name in ("small", "large")]
        assert lines[outcome].get_ydata() == pytest.approx(expected)
        assert np.log10(lines[outcome].get_xdata()) == pytest.approx(np.log10([494e6, 7.6e9]), abs=0.1)
    assert {t.get_text() for t in ax.texts} == {"small, 494M", "large, 7.6B"}
    pairs = pairs_table(traces, [("small", "large")])
    ax = plot_pairs(traces, [("small", "large")], ax=Figure().add_subplot())
    lines = {line.get_gid(): line for line in ax.get_lines()}
    for y, row in enumerate(pairs.itertuples(), start=1):
        mark = lines[f"pair-{y}"]
        assert mark.get_xdata() == [row.difference]
        assert (mark.get_markerfacecolor() == theme.PAPER) == (not row.p_adjusted < 0.05)


def test_models_of_one_size_are_moved_apart():
    assert _apart(np.array([1.0, 2.0, 5.0]), 0.5).tolist() == [1, 2, 5]
    assert _apart(np.array([2.0, 2.0, 5.0]), 0.5) == pytest.approx([1.75, 2.25, 5])
    moved = _apart(np.array([1.0, 1.1, 1.2, 1.3, 2.0]), 0.4)
    assert np.diff(moved).min() == pytest.approx(0.4) and moved.mean() == pytest.approx(1.32)


def test_words_for_sizes_and_figures(traces, trace):
    assert [parameters(n) for n in (12, 2.5e3, 494e6, 999.9e6, 1.54e9, 70e9)] == [
        *("12", "2.5K", "494M", "1B", "1.54B", "70B")
    ]
    told = models_alt(models_table(traces))
    share = outcome_table(trace).set_index(["family", "outcome"]).loc[("overall", "resolved"), "share"]
    assert f"resolved {100 * share:.0f} %" in told.split("small: ")[1].split("large: ")[0]


def test_the_same_bytes_twice(traces):
    sizes, pairs = {"small": 494e6}, [("small", "large")]
    table = models_table(traces, sizes)
    for draw, size in (
        (lambda ax: plot_model_depths(traces, ax=ax), models_size(traces)),
        (lambda ax: plot_outcomes_by_size(traces, sizes=sizes, ax=ax), outcomes_by_size_size(traces)),
        (lambda ax: plot_pairs(traces, pairs, ax=ax), pairs_size(pairs_table(traces, pairs))),
    ):
        figures = [theme.blank(*size) for _ in "ab"]
        for figure in figures:
            with theme.context():
                draw(figure.add_subplot())
        assert drawn(figures[0]) == drawn(figures[1])
    assert table["family"].eq("overall").all()


def test_what_cannot_be_compared_is_refused(traces, trace):
    with pytest.raises(ValueError, match="2 traces of the models reference: give a mapping"):
        models_table([trace, trace])
    with pytest.raises(ValueError, match=r"sizes given for \['tiny'\]; the models are small, large"):
        models_table(traces, {"tiny": 1e6})
    with pytest.raises(ValueError, match=r"numbers of parameters; found \{'small': -1\}"):
        models_table(traces, {"small": -1})
    with pytest.raises(ValueError, match=r"no number of parameters for small.*sizes=\{'small'"):
        plot_outcomes_by_size(traces, ax=Figure().add_subplot())
    with pytest.raises(ValueError, match="found no trace"):
        models_table([])
    with pytest.raises(ValueError, match="asked for family 'looop'"):
        models_table(traces, family="looop")
    with pytest.raises(ValueError, match=r"asked to pair \['medium'\]; the models are small, large"):
        pairs_table(traces, [("small", "medium")])
    for pairs in ([], [("small", "small")]):
        with pytest.raises(ValueError, match="needs pairs of two models each"):
            pairs_table(traces, pairs)
