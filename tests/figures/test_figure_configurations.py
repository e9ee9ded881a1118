"""Heat maps by configuration: shares cell by cell, few samples hatched, letters that can be read."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens.figures import save, theme
from brewlens.figures.configurations import (
    colours,
    configuration_table,
    configurations_alt,
    configurations_size,
    crossable,
    letters_on,
    plot_configurations,
    plot_configurations_grid,
)
from brewlens.tasks.families import FAMILY_MODULES
from brewlens.tasks.item import ItemSet

mpl.use("agg")


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(81, ("computing", "loop"), n_layers=6)


def with_factors(trace, factors):
    items = tuple(replace(item, factors=factors(row, item)) for row, item in enumerate(trace.items))
    return replace(trace, items=ItemSet(items, trace.items.partners))


def levels_of(row):
    """Factor -> level of a row of the table."""
    return {row[f"factor_{i}"]: row[f"level_{i}"] for i in (1, 2, 3) if f"factor_{i}" in row}


@pytest.mark.parametrize("value", ["resolved", "overprocessed", "right"])
def test_shares_cell_by_cell(trace, value):
    table = configuration_table(trace, value=value)
    assert len(table) == 2 * 27 and table["n"].eq(3).all() and table["few"].all()
    life = trace.lifecycle
    hits = life.output_correct if value == "right" else life.outcome == value
    for _, row in table.iterrows():
        here = [
            r
            for r, item in enumerate(trace.items)
            if item.family == row["family"]
            and all(str(item.factors[f]) == level for f, level in levels_of(row).items())
        ]
        assert row["n"] == len(here) and row["count"] == sum(hits[r] for r in here)
        assert row["low"] <= row["share"] == row["count"] / row["n"] <= row["high"]
    factors = FAMILY_MODULES["loop"].FACTORS
    loops = table[table["family"] == "loop"]
    assert list(levels_of(loops.iloc[0])) == list(factors)
    assert loops["level_3"].tolist() == [str(level) for level in factors["init_offset"]] * 9


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_configurations(trace, family="computing", ax=ax, few=3) is ax
    table = configuration_table(trace, "computing", few=3)
    mesh = next(c for c in ax.collections if c.get_gid() == "cells")
    assert np.allclose(mesh.get_array().ravel(), table["share"])
    texts = {text.get_gid(): text for text in ax.texts if text.get_gid()}
    names = [label.get_text().replace("\n", "_") for label in ax.get_xticklabels()]
    inner = [label.get_text() for label in ax.get_yticklabels()]
    for number, row in enumerate(table.itertuples()):
        share = texts[f"share-{number}"]
        x, y = share.get_position()
        assert share.get_text() == f"{100 * row.share:.0f}"
        assert names[round(x)] == row.level_3 and inner[round(y)] == row.level_2
        assert texts[f"interval-{number}"].get_text() == f"{100 * row.low:.0f}–{100 * row.high:.0f}"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("operators", "structure, steps")
    assert not [c for c in ax.collections if str(c.get_gid()).startswith("few")]


def test_cells_of_few_samples_are_hatched_and_empty_ones_blank(trace):
    def move(row, item):
        if item.family != "loop" or (item.factors["iterations"], item.factors["init_offset"]) != (2, "low"):
            return item.factors
        return {**item.factors, "iterations": 3}

    table = configuration_table(moved := with_factors(trace, move), "loop", few=4)
    empty = table[table["n"] == 0]
    assert len(empty) == 3 and empty["share"].isna().all() and empty["few"].all()
    ax = Figure().add_subplot()
    plot_configurations(moved, family="loop", ax=ax, few=4)
    hatched = {c.get_gid() for c in ax.collections if str(c.get_gid()).startswith("few-")}
    assert hatched == {f"few-{n}" for n in np.flatnonzero(table["few"])} and len(hatched) == 24
    texts = {text.get_gid() for text in ax.texts}
    assert not texts & {f"share-{n}" for n in np.flatnonzero(table["n"] == 0)}
    mesh = next(c for c in ax.collections if c.get_gid() == "cells")
    assert mesh.get_array().mask.sum() == 3
    ax.figure.draw_without_rendering()


def test_items_without_factors_are_one_cell(trace):
    table = configuration_table(with_factors(trace, lambda row, item: {}))
    assert table["n"].tolist() == [81, 81] and not table["few"].any()
    assert not [c for c in table.columns if c.startswith(("factor", "level"))]
    figure = theme.blank(*configurations_size(table))
    plot_configurations_grid(trace, table=table, figure=figure).draw_without_rendering()
    assert "computing: most" in configurations_alt(table) and "(all, n 81)" in configurations_alt(table)


def test_other_numbers_of_factors(trace):
    two = with_factors(trace, lambda row, item: {"size": row % 2, "kind": "ab"[row % 3 == 0]})
    table = configuration_table(two, "loop")
    assert len(table) == 4 and table["n"].sum() == 81
    some = with_factors(trace, lambda row, item: {"size": row % 2} if row % 5 else {})
    table = configuration_table(some, "loop")
    assert table["level_1"].tolist() == ["0", "1", "–"] and table["n"].sum() == 81
    plot_configurations(some, family="loop", ax=Figure().add_subplot()).figure.draw_without_rendering()


def luminance(color):
    rgb = np.array(mpl.colors.to_rgb(color))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


def test_colours_darken_evenly_and_letters_stand_out():
    shares = np.linspace(0, 1, 101)
    cells = [luminance(colours()(s)) for s in shares]
    assert (np.diff(cells) < 0).all() and cells[0] > 0.9 and cells[-1] < 0.05
    for share, cell in zip(shares, cells, strict=True):
        light, dark = sorted((cell, luminance(letters_on(share, 1.0))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5


def test_small_multiples_have_one_scale(trace, tmp_path):
    table = configuration_table(trace, value="unresolved")
    made = []
    for name in ("a", "b"):
        figure = plot_configurations_grid(trace, table=table, figure=theme.blank(*configurations_size(table)))
        made.append([p.read_bytes() for p in save(figure, tmp_path / name, table)])
    assert made[0] == made[1]
    meshes = [c for ax in figure.axes for c in ax.collections if c.get_gid() == "cells"]
    most = np.ceil(10 * table["share"].max()) / 10
    assert [(m.norm.vmin, m.norm.vmax) for m in meshes] == [(0, most)] * 2


def test_what_cannot_be_drawn_is_refused(trace):
    with pytest.raises(ValueError, match=r"unknown value 'solved'; choose one of resolved.*right"):
        configuration_table(trace, value="solved")
    with pytest.raises(ValueError, match=r"asked for family 'looop'"):
        plot_configurations(trace, family="looop", ax=Figure().add_subplot())
    many = with_factors(trace, lambda row, item: {"a": row, "b": row % 7})
    with pytest.raises(ValueError, match=r"computing: levels \(81 of a x 7 of b\) make 567 configurations"):
        configuration_table(many)
    assert crossable(trace) and not crossable(many)
    assert not crossable(with_factors(trace, lambda row, item: {}))
