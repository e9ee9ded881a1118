"""Probe minus surface: paired, clustered, and a probe that reads only text shows nothing."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.stats import ttest_rel
from synthetic import synthetic_trace

from brewlens.figures import (
    accuracy_table,
    plates,
    plot_accuracy_grid,
    plot_surface_control,
    plot_surface_control_grid,
    save,
    surface_control_table,
    theme,
)

mpl.use("agg")


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(60, ("computing", "loop"), n_layers=6, surface={"computing": 0.97, "loop": 0.3})


def hits_of(trace, family):
    rows = [r for r, item in enumerate(trace.items) if item.family == family]
    probe = trace.readouts["probe"].correct(trace.items.answers)[rows].astype(float)
    text = trace.readouts["surface"].correct(trace.items.answers)[rows, 0].astype(float)
    return probe, text, [trace.items[r].shape for r in rows]


def by_clusters(difference, shapes):
    """Mean and CR1-like error of it, cluster by cluster, slowly."""
    mean, total = difference.mean(), 0.0
    for shape in set(shapes):
        total += sum(d - mean for d, s in zip(difference, shapes, strict=True) if s == shape) ** 2
    return mean, np.sqrt(total) / len(difference)


def test_the_table_is_the_paired_difference(trace):
    table = surface_control_table(trace).set_index(["family", "layer"])
    for family in ("computing", "loop"):
        probe, text, shapes = hits_of(trace, family)
        for layer in range(6):
            row = table.loc[(family, layer)]
            mean, error = by_clusters(probe[:, layer] - text, shapes)
            assert row["difference"] == pytest.approx(row["probe"] - row["surface"])
            assert row["difference"] == pytest.approx(mean)
            assert (row["high"] - row["low"]) / 2 == pytest.approx(2.0 * error, rel=0.06)
            assert row["low"] < row["difference"] < row["high"]
            assert (row["n"], row["n_shapes"]) == (60, len(set(shapes)))
            # Two-sided 5 % and power 80 %: about 2.8 standard errors.
            assert row["detectable"] == pytest.approx(2.85 * error, rel=0.06)
            assert row["p_adjusted"] >= row["p"]


def test_independent_samples_give_the_paired_t_test(trace):
    items = [replace(item, shape=item.id) for item in trace.items]
    apart = replace(trace, items=replace(trace.items, items=tuple(items)))
    table = surface_control_table(apart, "loop")
    probe, text, _ = hits_of(trace, "loop")
    for layer, row in enumerate(table.itertuples()):
        expected = ttest_rel(probe[:, layer], text)
        assert row.p == pytest.approx(expected.pvalue)
        assert (row.low, row.high) == pytest.approx(tuple(expected.confidence_interval()))


def test_a_probe_that_reads_the_text_shows_nothing_and_one_that_reads_more_does(trace):
    text = trace.readouts["surface"].logits
    only_text = replace(trace.readouts["probe"], logits=np.repeat(text, 6, axis=1))
    table = surface_control_table(replace(trace, readouts={**trace.readouts, "probe": only_text}))
    assert (table["difference"] == 0).all()
    assert (table["p_adjusted"] == 1).all()
    found = surface_control_table(trace, "loop")
    assert (found["low"].to_numpy()[-3:] > 0).all()
    assert (found["p_adjusted"].to_numpy()[-3:] < 1e-3).all()


def test_noise_is_called_a_difference_no_more_often_than_agreed(trace):
    rejected = []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        noise = {
            name: replace(readout, logits=rng.normal(size=readout.logits.shape).astype(np.float32))
            for name, readout in trace.readouts.items()
        }
        rejected += (surface_control_table(replace(trace, readouts=noise), "loop")["p"] < 0.05).tolist()
    assert sum(rejected) <= 8  # of 48 cells, of which 2.4 are expected


def test_families_that_their_text_gives_away_are_marked(trace):
    table = surface_control_table(trace)
    marked = table.groupby("family", sort=False)["decodable"].first()
    assert marked.to_dict() == {"computing": True, "loop": False, "overall": False}
    for grid in (plot_surface_control_grid, plot_accuracy_grid):
        titles = [ax.get_title(loc="left") for ax in grid(trace, figure=Figure(layout="constrained")).axes]
        assert titles == ["computing  (n = 60)\ndecodable from text", "loop  (n = 60)"]
    assert accuracy_table(trace, "computing")["decodable"].all()
    alt = next(plate.alt for plate in plates(trace) if plate.name == "surface_control")
    assert "computing (decodable from text):" in alt
    assert "loop:" in alt


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_surface_control(trace, family="loop", ax=ax) is ax
    table = surface_control_table(trace, "loop")
    line = next(line for line in ax.get_lines() if line.get_gid() == "difference")
    assert np.allclose(line.get_ydata(), 100 * table["difference"])
    assert line.get_xdata().tolist() == list(range(6))
    bands = {c.get_gid(): c.get_paths()[0].vertices[:, 1] for c in ax.collections}
    assert bands["interval"].min() == pytest.approx(100 * table["low"].min())
    assert bands["interval"].max() == pytest.approx(100 * table["high"].max())
    assert bands["detectable"].max() == pytest.approx(100 * table["detectable"].max())
    assert ax.get_title(loc="left") == "loop  (n = 60)"
    overall = plot_surface_control(trace, ax=Figure().add_subplot())
    assert overall.get_title(loc="left") == "overall  (n = 120)"


def test_files_have_the_same_bytes_when_made_again(trace, tmp_path):
    table = surface_control_table(trace)
    made = [
        save(plot_surface_control_grid(trace, table=table, figure=theme.blank(5, 3)), tmp_path / name, table)
        for name in ("a", "b")
    ]
    assert [p.read_bytes() for p in made[0]] == [p.read_bytes() for p in made[1]]
    assert "n_shapes" in made[0][3].read_text().splitlines()[0]


def test_one_shape_is_no_cluster(trace):
    """Items from one template: intervals are about it, as if every item had a shape of its own."""

    def table(shapes):
        items = tuple(replace(i, shape=s, twins={}) for i, s in zip(trace.items, shapes, strict=True))
        return surface_control_table(replace(trace, items=replace(trace.items, items=items)), "loop")

    one, apart = table(["one"] * len(trace)), table(trace.items.ids)
    assert one[["low", "high"]].notna().all(axis=None) and one.equals(apart)


def test_what_is_not_there_is_refused(trace):
    with pytest.raises(ValueError, match=r"asked for family 'looop'.*computing"):
        surface_control_table(trace, "looop")
    without = {name: r for name, r in trace.readouts.items() if name != "surface"}
    with pytest.raises(ValueError, match=r"found no surface among probe"):
        plot_surface_control(replace(trace, readouts=without), ax=Figure().add_subplot())
