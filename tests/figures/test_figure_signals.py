"""Label-free signals by outcome: means and quantiles beside the slow way, areas pair by pair."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens.figures import theme
from brewlens.figures.signals import (
    FALLING,
    QUANTILES,
    SIGNALS,
    auroc_alt,
    auroc_table,
    plot_auroc,
    plot_signals,
    plot_signals_grid,
    signal_table,
    signals_size,
)
from brewlens.lifecycle import final_confidence
from brewlens.stats import bounded_mean

mpl.use("agg")


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(81, ("computing", "loop"), n_layers=8)


def drawn(figure):
    """Its bytes as SVG."""
    file = BytesIO()
    with theme.context():
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def values_of(trace, signal):
    if signal == "confidence":
        return final_confidence(trace.readouts["context_stripped_raw"])
    return trace.tables["signals"][signal].to_numpy()


def slow_area(score, right):
    """Share of pairs in order, ties half."""
    pairs = [(score[i], score[j]) for i in np.flatnonzero(right) for j in np.flatnonzero(~right)]
    return np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a, b in pairs])


def test_means_and_quantiles_are_those_of_the_samples(trace):
    for family in (None, "loop"):
        table = signal_table(trace, family)
        here = np.array(trace.lifecycle.families) == "loop" if family else np.ones(len(trace), dtype=bool)
        for row in table.itertuples():
            inside = here & (trace.lifecycle.outcome == row.outcome)
            values = np.sort(values_of(trace, row.signal)[inside])
            assert row.n == len(values)
            if not row.n:
                continue
            found = bounded_mean(values_of(trace, row.signal)[inside], 0, 1, trace.shapes[inside])
            assert row.mean == pytest.approx(values.mean(), abs=1e-6)
            if row.n_shapes > 1:
                assert (row.low, row.high) == pytest.approx((found.low, found.high))
            for place in QUANTILES:
                k = place / 100 * (len(values) - 1)  # linear between neighbours
                below, above = values[int(np.floor(k))], values[int(np.ceil(k))]
                assert getattr(row, f"q{place:02d}") == pytest.approx(
                    below + (k % 1) * (above - below), abs=1e-6
                )
    assert set(table["signal"]) == set(SIGNALS)


def test_areas_are_shares_of_ordered_pairs(trace):
    table = auroc_table(trace, "loop").set_index("signal")
    here = np.array(trace.lifecycle.families) == "loop"
    right = trace.lifecycle.output_correct[here]
    areas = {}
    for name in SIGNALS:
        score = values_of(trace, name)[here]
        areas[name] = slow_area(-score if name in FALLING else score, right)
        row = table.loc[name]
        assert row["auroc"] == pytest.approx(areas[name], abs=1e-6)
        assert 0 <= row["low"] <= row["auroc"] <= row["high"] <= 1
        assert (row["n"], row["n_right"]) == (here.sum(), right.sum())
    for name in SIGNALS:
        if name != "confidence":
            assert table.loc[name, "gain"] == pytest.approx(areas[name] - areas["confidence"], abs=1e-6)
    assert table.loc["confidence", ["gain", "p"]].isna().all()
    known = table["p"].dropna()
    assert (table.loc[known.index, "p_adjusted"] >= known).all()


def test_a_signal_that_knows_is_found_and_noise_is_not(trace):
    rng = np.random.default_rng(1)
    right = trace.lifecycle.output_correct
    signals = trace.tables["signals"].assign(
        rho=np.clip(0.5 + 0.3 * right + rng.normal(0, 0.05, len(trace)), 0, 1),
        c=rng.uniform(size=len(trace)),
        h=np.where(right, 0.9, 0.1),  # misleads
    )
    table = auroc_table(trace.with_tables(signals=signals)).set_index("signal")
    assert table.loc["rho", "auroc"] > 0.99
    assert table.loc["c", "low"] < 0.5 < table.loc["c", "high"]
    assert table.loc["h", "auroc"] == 0
    assert table.loc["h", "p_adjusted"] < 0.05


def test_intervals_of_areas_hold_one_half_in_noise(trace):
    rng = np.random.default_rng(4)
    held = []
    for _ in range(30):
        signals = trace.tables["signals"].assign(
            **{name: rng.uniform(size=len(trace)) for name in SIGNALS if name != "confidence"}
        )
        table = auroc_table(trace.with_tables(signals=signals))
        held.append((table["low"] < 0.5) & (table["high"] > 0.5))
    assert np.mean([h[:-1] for h in held]) > 0.88


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_signals(trace, signal="h", family="loop", ax=ax) is ax
    table = signal_table(trace, "loop").query("signal == 'h' and n > 0")
    lines = {line.get_gid(): line for line in ax.get_lines()}
    segments = {
        tuple(np.round(s[:, 0], 9))
        for c in ax.collections
        if hasattr(c, "get_segments")
        for s in c.get_segments()
    }
    for row in table.itertuples():
        assert lines[f"mean-{row.outcome}"].get_xdata() == [row.mean]
        dots = lines[f"dots-{row.outcome}"]
        assert dots.get_xdata() == pytest.approx([getattr(row, f"q{place:02d}") for place in QUANTILES])
        assert len(set(zip(*dots.get_data(), strict=True))) == len(set(dots.get_xdata())) or row.n == 1
        assert dots.get_color() == theme.OUTCOME_COLORS[row.outcome]
        if np.isfinite(row.low):
            assert tuple(np.round((row.low, row.high), 9)) in segments
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names[0] == f"resolved\nn = {table.iloc[0]['n']}"
    area = auroc_table(trace, "loop").set_index("signal").loc["h", "auroc"]
    told = next(t.get_text() for t in ax.texts if t.get_gid() == "auroc")
    assert f"AUROC {area:.2f}".replace("0.", ".") in told and "loop" in told
    ax = plot_auroc(trace, ax=Figure().add_subplot())
    lines = {line.get_gid(): line for line in ax.get_lines()}
    for row in auroc_table(trace).itertuples():
        mark = lines[f"auroc-{row.signal}"]
        assert mark.get_xdata() == [row.auroc]
        hollow = mark.get_markerfacecolor() == theme.PAPER
        assert hollow == (row.signal != "confidence" and not row.p_adjusted < 0.05)


def test_where_all_outputs_are_right_there_is_no_area(trace):
    rows = np.flatnonzero(trace.lifecycle.output_correct)[:20]
    some = trace.select(rows).with_tables(signals=trace.tables["signals"].iloc[rows])
    table = auroc_table(some)
    assert table["auroc"].isna().all() and table["p_adjusted"].isna().all()
    ax = plot_signals(some, ax=Figure().add_subplot())
    assert "not known" in " ".join(t.get_text() for t in ax.texts)
    plot_auroc(some, ax=Figure().add_subplot())


def test_the_same_bytes_twice_and_words_for_all(trace):
    figures = [plot_signals_grid(trace, figure=theme.blank(*signals_size())) for _ in "ab"]
    assert drawn(figures[0]) == drawn(figures[1])
    assert len(figures[0].axes) == len(SIGNALS) + 1
    areas = auroc_table(trace)
    told = auroc_alt(areas)
    assert (
        f"resolution functional ρ {areas.set_index('signal').loc['rho', 'auroc']:.2f}"[1:].replace("0.", ".")
        in told
    )
    assert f"right ({trace.lifecycle.output_correct.sum()})" in told


def test_what_cannot_be_drawn_is_refused(trace):
    with pytest.raises(ValueError, match="asked for signal 'roh'; there are h, hp, d, a, c, rho"):
        plot_signals(trace, signal="roh", ax=Figure().add_subplot())
    with pytest.raises(ValueError, match="needs the table of signals; found none"):
        signal_table(replace(trace, tables={}))
    with pytest.raises(ValueError, match="about other samples"):
        signal_table(trace.with_tables(signals=trace.tables["signals"].iloc[::-1]))
    with pytest.raises(ValueError, match="asked for family 'looop'"):
        auroc_table(trace, "looop")
