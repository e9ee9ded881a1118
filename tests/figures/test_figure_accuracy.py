"""Accuracy by layer: the table is right, and the figure draws the table."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import binomtest
from synthetic import synthetic_trace

from brewlens.figures import accuracy_table, plot_accuracy, plot_accuracy_grid, theme
from brewlens.stats import clustered_share, detectable_shares

mpl.use("agg")


def name_of(decoder):
    return theme.decoder(decoder).name


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(30, ("computing", "loop"), n_layers=6)


def test_accuracy_and_intervals_are_those_of_the_readouts(trace):
    table = accuracy_table(trace, "loop").set_index(["decoder", "layer"])
    rows = [r for r, item in enumerate(trace.items) if item.family == "loop"]
    for name in ("probe", "logit_lens", "context_stripped", "context_stripped_raw"):
        hits = trace.readouts[name].correct(trace.items.answers)[rows]
        for layer in range(6):
            row = table.loc[(name, layer)]
            interval = binomtest(int(hits[:, layer].sum()), 30).proportion_ci(method="wilson")
            assert row["n"] == 30
            assert row["accuracy"] == hits[:, layer].mean()
            assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))


def test_programs_of_one_shape_widen_the_intervals(trace):
    items = tuple(replace(item, shape=str(row // 3)) for row, item in enumerate(trace.items))
    apart = accuracy_table(trace, "loop").set_index(["decoder", "layer"])
    together = replace(trace, items=replace(trace.items, items=items))
    table = accuracy_table(together, "loop").set_index(["decoder", "layer"])
    assert (table["n_shapes"].dropna() == 10).all()
    hits = trace.readouts["probe"].correct(trace.items.answers)[30:, 2]
    found = clustered_share(hits, [str(row // 3) for row in range(30)])
    assert tuple(table.loc[("probe", 2), ["low", "high"]]) == (found.low, found.high)
    assert table.loc[("probe", 2), "accuracy"] == apart.loc[("probe", 2), "accuracy"]
    width, narrow = (t["high"] - t["low"] for t in (table, apart))
    assert (width.dropna() >= narrow.dropna() - 1e-12).all()
    least = detectable_shares(found.effective, found.value)
    assert table.loc[("probe", 2), "detectable"] == pytest.approx(least)


def test_what_has_no_layer_comes_after_the_decoders(trace):
    table = accuracy_table(trace)
    assert table["decoder"].drop_duplicates().tolist()[-3:] == ["surface", "model", "chance"]
    level = table[table["layer"].isna()].set_index("decoder")
    assert level.loc["model", "correct"] == trace.lifecycle.output_correct.sum()
    assert level.loc["chance", "accuracy"] == 0.1
    assert level.loc["surface", "correct"] == trace.readouts["surface"].correct(trace.items.answers).sum()
    assert set(table["family"]) == {"overall"}


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_accuracy(trace, family="computing", ax=ax) is ax
    lines = {
        name: line for line in ax.get_lines() for name in theme.DECODERS if name_of(name) == line.get_label()
    }
    lines["model"] = next(c.lines[0] for c in ax.containers if c.get_label() == name_of("model"))
    table = accuracy_table(trace, "computing")
    for name, rows in table.groupby("decoder"):
        drawn = np.unique(lines[name].get_ydata()) if rows["layer"].isna().any() else lines[name].get_ydata()
        assert np.allclose(np.asarray(drawn, float), rows["accuracy"].to_numpy(float)), name
        if not rows["layer"].isna().any():
            assert lines[name].get_xdata().tolist() == list(range(6))
    bands = [c.get_paths()[0].vertices[:, 1] for c in ax.collections if len(c.get_paths()) == 1]
    probe = table[table["decoder"] == "probe"]
    assert any(
        np.isclose(b.min(), probe["low"].min()) and np.isclose(b.max(), probe["high"].max()) for b in bands
    )


def test_a_grid_has_a_panel_per_family_and_one_legend(trace):
    figure = plot_accuracy_grid(trace, figure=Figure(layout="constrained"))
    assert [ax.get_title(loc="left").split()[0] for ax in figure.axes] == ["computing", "loop"]
    assert len(figure.legends) == 1
    assert all(ax.get_legend() is None for ax in figure.axes)


def test_a_decoder_that_the_style_does_not_know_is_drawn(trace):
    more = replace(trace, readouts={**trace.readouts, "my_decoder": trace.readouts["probe"]})
    ax = plot_accuracy(more, ax=Figure().add_subplot())
    assert "my decoder" in [text.get_text() for text in ax.get_legend().get_texts()]


def test_an_unknown_family_is_refused(trace):
    with pytest.raises(ValueError, match=r"asked for family 'looop'.*computing"):
        plot_accuracy(trace, family="looop", ax=Figure().add_subplot())
