"""Figures of interventions: they draw the table, placebos beside it; few samples and no dose are marked."""

from __future__ import annotations

from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace
from synthetic_effects import MARGIN, PLACEBOS, with_effects

from brewlens.figures import (
    causal_use_table,
    contribution_table,
    plates,
    plot_causal_use,
    plot_causal_use_grid,
    plot_contributions,
    plot_contributions_grid,
    plot_verdicts,
    save,
    theme,
    verdict_table,
)
from brewlens.figures.causal_plates import causal_makers
from brewlens.figures.causal_use import FEW, MEASURES
from brewlens.figures.forest import said

mpl.use("agg")
LAYERS = 8
FAMILIES = ("computing", "loop")


@pytest.fixture(scope="module")
def bare():
    return synthetic_trace(54, FAMILIES, n_layers=LAYERS)


@pytest.fixture(scope="module")
def trace(bare):
    return with_effects(bare)


def changed(trace, table, **columns):
    """The trace with columns of one table changed."""
    return replace(trace, tables={**trace.tables, table: trace.tables[table].assign(**columns)})


def lines_of(ax):
    return {line.get_gid(): line for line in ax.get_lines() if line.get_gid()}


def points_of(line):
    """x -> y of a line, without its gaps."""
    return {x: y for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True) if y == y}


def corners(ax, gid):
    """x -> (lowest, highest) corner of a band."""
    (band,) = [c for c in ax.collections if c.get_gid() == gid]
    found = {}
    for x, y in np.concatenate([path.vertices for path in band.get_paths()]):
        low, high = found.get(x, (np.inf, -np.inf))
        found[x] = (min(low, y), max(high, y))
    return found


def cells(trace, **labels):
    """Rows of ``effects`` with these labels, one by one."""
    rows = trace.tables["effects"].to_dict("records")
    return [row for row in rows if all(row[name] == value for name, value in labels.items())]


LABELS = {"experiment": "causal_use", "outcome": "all", "measure": "follows", "aligned": "fpcl"}


def test_the_line_is_the_treatment_and_its_band_the_interval(trace):
    ax = Figure().add_subplot()
    assert plot_causal_use(trace, family="loop", edit="whole", ax=ax) is ax
    drawn, band = lines_of(ax), corners(ax, "interval-counterfactual")
    rows = cells(trace, family="loop", edit="whole", donor="counterfactual", **LABELS)
    enough = {row["at"]: row for row in rows if row["n"] >= FEW}
    few = {row["at"]: row["net"] for row in rows if row["n"] < FEW}
    assert enough and few
    line = drawn["effect-counterfactual"]
    assert points_of(line) == {at: row["net"] for at, row in enough.items()}
    for at, row in enough.items():
        assert band[at] == pytest.approx((row["low"], row["high"]))
    hollow = drawn["few-counterfactual"]
    assert points_of(hollow) == few
    assert hollow.get_markerfacecolor() == theme.PAPER and hollow.get_linestyle() == "None"
    assert ax.get_title(loc="right") == f"n = {min(r['n'] for r in rows)}–{max(r['n'] for r in rows)}"


def test_the_grey_band_spans_the_intervals_of_all_placebos(trace):
    ax = plot_causal_use(trace, family="computing", ax=Figure().add_subplot())
    rows = [
        r for r in cells(trace, family="computing", edit="whole", control=True, **LABELS) if r["n"] >= FEW
    ]
    spans = corners(ax, "placebos")
    assert set(spans) == {row["at"] for row in rows}
    for at, span in spans.items():
        here = [row for row in rows if row["at"] == at]
        assert len(here) == len(PLACEBOS)
        assert span == pytest.approx((min(r["low"] for r in here), max(r["high"] for r in here)))
    drawn = lines_of(ax)
    for donor in PLACEBOS:
        points = {row["at"]: row["net"] for row in rows if row["donor"] == donor}
        assert points_of(drawn[f"placebo-{donor}"]) == points


def test_a_planted_effect_leaves_the_placebos_and_none_stays_among_them(trace):
    table = causal_use_table(trace, edit="whole", aligned="layer")
    for family, there in (("computing", True), ("loop", False)):
        rows = table[(table["family"] == family) & (table["at"] == LAYERS // 2)]
        treated, placebos = rows[~rows["control"]], rows[rows["control"]]
        assert (treated["low"].item() > placebos["net"].max()) == there


def test_a_line_does_not_lead_across_a_layer_that_is_missing(trace):
    effects = trace.tables["effects"]
    gap = replace(trace, tables={**trace.tables, "effects": effects[(effects["at"] != 1).fillna(True)]})
    ax = plot_causal_use(gap, family="loop", ax=Figure().add_subplot())
    line = lines_of(ax)["effect-counterfactual"]
    at = dict(zip(line.get_xdata(), line.get_ydata(), strict=True))
    assert np.isnan(at[1]) and np.isfinite([at[0], at[2]]).all()
    assert 1 not in corners(ax, "interval-counterfactual")


def test_families_stand_in_the_order_of_the_run(trace):
    effects = trace.tables["effects"]
    late = effects[~((effects["family"] == "computing") & (effects["at"] < 0).fillna(False))]
    table = causal_use_table(replace(trace, tables={**trace.tables, "effects": late}), edit="whole")
    assert list(dict.fromkeys(table["family"])) == ["computing", "loop", "overall"]
    assert all(rows["at"].is_monotonic_increasing for _, rows in table.groupby("family"))


def test_cells_without_a_dose_are_crossed(trace):
    rows = cells(trace, family="loop", edit="probe_subspace", donor="counterfactual", **LABELS)
    nil = {row["at"]: row["net"] for row in rows if row["nil"]}
    ax = plot_causal_use(trace, family="loop", edit="probe_subspace", ax=Figure().add_subplot())
    assert nil and points_of(lines_of(ax)["nil"]) == nil
    assert any("as good as no edit" in text.get_text() for text in ax.get_legend().get_texts())
    whole = plot_causal_use(trace, family="loop", edit="whole", ax=Figure().add_subplot())
    assert not len(lines_of(whole)["nil"].get_xdata())
    assert not any("no edit" in text.get_text() for text in whole.get_legend().get_texts())


def test_every_measure_and_alignment_that_is_there_can_be_drawn(trace):
    found = trace.tables["effects"]
    found = found[found["experiment"] == "causal_use"]
    for measure in MEASURES:
        edit = "erase" if measure == "right" else "whole"
        for aligned in ("fpcl", "fjc", "layer"):
            ax = plot_causal_use(
                trace, edit=edit, measure=measure, aligned=aligned, ax=Figure().add_subplot(), legend=False
            )
            assert ax.get_legend() is None
            assert MEASURES[measure] in ax.get_ylabel() and ax.get_ylabel().endswith("net of no edit")
            expected = found[(found["measure"] == measure) & (found["aligned"] == aligned)]["at"]
            assert ax.get_xlim() == (expected.min() - 0.4, expected.max() + 0.4)


def test_two_treatments_of_one_edit_have_their_own_names(trace):
    ax = plot_causal_use(trace, edit="erase", measure="unchanged", ax=Figure().add_subplot())
    drawn = lines_of(ax)
    assert drawn["effect-mean"].get_color() != drawn["effect-resampled"].get_color()
    named = [text.get_text() for text in ax.get_legend().get_texts()]
    assert {"effect (mean)", "effect (resampled)"} <= set(named)


def test_the_scale_holds_every_interval_of_enough_samples(trace):
    table = causal_use_table(trace, edit="whole")
    low, high = plot_causal_use_grid(trace, edit="whole", figure=theme.blank(6, 3)).axes[0].get_ylim()
    shown = table[(table["family"] != "overall") & ~table["few"]]
    assert low < shown["low"].min() and shown["high"].max() < high


def test_the_legend_of_a_grid_names_what_any_panel_shows(trace):
    effects = trace.tables["effects"]
    first_only = effects[~((effects["edit"] == "whole") & (effects["donor"] == "random_subspace"))]
    fewer = replace(trace, tables={**trace.tables, "effects": first_only})
    figure = plot_causal_use_grid(fewer, figure=theme.blank(6, 3))
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["whole state", "probe’s subspace", "learned subspace"]
    (legend,) = figure.legends
    named = [text.get_text() for text in legend.get_texts()]
    assert "placebo: random subspace" in named and len(named) == len(set(named))
    by_family = plot_causal_use_grid(trace, edit="whole", figure=theme.blank(6, 3))
    assert [ax.get_title(loc="left") for ax in by_family.axes] == list(FAMILIES)


def test_an_interval_that_is_not_known_is_not_drawn(trace):
    one_shape = changed(trace, "effects", low=np.nan, high=np.nan)
    ax = plot_causal_use(one_shape, family="loop", ax=Figure().add_subplot())
    assert np.isfinite(ax.get_ylim()).all()
    unknown = changed(
        trace, "causal_verdicts", low=np.nan, high=np.nan, placebo_low=np.nan, placebo_high=np.nan
    )
    ax = plot_verdicts(unknown, ax=Figure().add_subplot())
    assert np.isfinite(ax.get_xlim()).all()


def test_what_is_not_there_is_refused_by_name(trace, bare):
    ax = Figure().add_subplot()
    with pytest.raises(ValueError, match="needs the table of effects; found none"):
        plot_causal_use(bare, ax=ax)
    with pytest.raises(ValueError, match="family 'looop'; found computing, loop, overall"):
        plot_causal_use(trace, family="looop", ax=ax)
    with pytest.raises(ValueError, match="measure 'right'; found follows"):
        plot_causal_use(trace, edit="whole", measure="right", ax=ax)
    with pytest.raises(ValueError, match="aligned by 'stretch'; choose one of follows"):
        plot_causal_use(trace, aligned="stretch", ax=ax)
    with pytest.raises(ValueError, match="needs the table of causal verdicts"):
        plot_verdicts(bare, ax=ax)
    with pytest.raises(ValueError, match="outcome 'resolved'; found all, overprocessed"):
        plot_verdicts(trace, outcome="resolved", ax=ax)
    with pytest.raises(ValueError, match="needs the table of components"):
        plot_contributions(bare, ax=ax)
    with pytest.raises(ValueError, match="outcome 'bypassed'; found all, resolved"):
        plot_contributions(trace, outcome="bypassed", ax=ax)


def test_verdicts_of_erasure_are_turned_towards_use(trace):
    stored = {(r.family, r.outcome, r.edit): r for r in trace.tables["causal_verdicts"].itertuples()}
    for row in verdict_table(trace).itertuples():
        before = stored[row.family, "all", row.edit]
        if row.edit == "erase":
            assert (row.measure, before.measure) == ("changed", "unchanged")
            assert (row.net, row.low, row.high) == (-before.net, -before.high, -before.low)
            assert (row.placebo_low, row.placebo_high) == (-before.placebo_high, -before.placebo_low)
        else:
            assert (row.measure, row.net, row.low) == ("follows", before.net, before.low)
        assert row.low < row.net < row.high and row.placebo_low < row.placebo_net < row.placebo_high
        assert (row.beyond, row.n) == (before.beyond, before.n)


def test_the_forest_draws_the_table(trace):
    ax = plot_verdicts(trace, ax=Figure().add_subplot())
    table, drawn = verdict_table(trace), lines_of(ax)
    texts = {text.get_gid(): text.get_text() for text in ax.texts}
    labels = [tick.get_text() for tick in ax.get_yticklabels()]
    assert [labels[0], labels[5], labels[10]] == ["computing", "loop", "overall"]
    lines = [y for y in range(len(labels)) if y % 5]
    for y, row in zip(lines, table.itertuples(), strict=True):
        assert labels[y].endswith(f"n = {row.n}")
        assert drawn[f"effect-{y}"].get_xdata().item() == row.net
        assert drawn[f"placebo-{y}"].get_xdata().item() == row.placebo_net
        assert texts[f"verdict-{y}"] == said(row)
    assert texts["verdict-1"] == "used from layer 3"
    assert {texts[f"verdict-{y}"] for y in range(6, 10)} == {"not used"}
    low, high = ax.get_xlim()
    assert low < min(table["low"].min(), -MARGIN) and table["high"].max() < high


def test_a_verdict_without_a_layer_says_none(trace):
    nowhere = changed(
        trace,
        "causal_verdicts",
        used_from=trace.tables["causal_verdicts"]["used_from"].where(lambda layers: layers < 0),
    )
    assert {said(row) for row in verdict_table(nowhere).itertuples()} == {"used", "not used", "cannot tell"}


def test_contributions_are_bars_and_the_overtaker_is_named(trace):
    ax = plot_contributions(trace, ax=Figure().add_subplot())
    bars = {bar.get_gid(): bar.get_height() for bar in ax.patches}
    rows = [r for r in trace.tables["components"].to_dict("records") if r["outcome"] == "overprocessed"]
    parts = {f"{r['component']}-{r['layer']}": r["value"] for r in rows if r["component"] in ("attn", "mlp")}
    assert bars == parts and len(bars) == 2 * LAYERS
    (named,) = [text for text in ax.texts if text.get_gid() == "overtaker"]
    assert named.get_text() == f"wrong overtakes most often:\nMLP {LAYERS - 2}, 42 of 60"
    resolved = plot_contributions(trace, outcome="resolved", ax=Figure().add_subplot())
    assert not resolved.texts
    without = {name: table for name, table in trace.tables.items() if name != "overtakes"}
    assert not plot_contributions(replace(trace, tables=without), ax=Figure().add_subplot()).texts


def test_heads_are_no_bars_and_few_samples_no_panel(trace):
    table = contribution_table(trace)
    assert len(table) == 3 * 2 * LAYERS and set(table["component"]) == {"attn", "mlp"}
    assert table[table["outcome"] == "overprocessed"]["overtaken"].sum() == 48
    components = trace.tables["components"]
    few = components["n"].where(components["outcome"] != "unresolved", FEW - 1)
    figure = plot_contributions_grid(changed(trace, "components", n=few), figure=theme.blank(6, 3))
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.axison]
    assert titles == ["resolved  (n = 300)", "overprocessed  (n = 60)"]
    tiny = changed(trace, "components", n=FEW - 1)
    assert not len(contribution_table(tiny)) and "contributions" not in list(causal_makers(tiny))
    with pytest.raises(ValueError, match="needs an outcome of at least 10 samples"):
        plot_contributions_grid(tiny, figure=theme.blank(6, 3))


CAUSAL = [
    "causal_verdicts",
    "causal_use_availability",
    "causal_use_readiness",
    "causal_use_whole",
    "causal_use_probe_subspace",
    "causal_use_learned_subspace",
    "causal_use_erase",
    "contributions",
]


def test_plates_only_where_there_are_interventions(trace, bare):
    plain, made = [p.name for p in plates(bare)], [make() for make in causal_makers(trace).values()]
    assert [p.name for p in made] == CAUSAL and not set(CAUSAL) & set(plain)
    for plate in made:
        assert {"n", "n_shapes", "low", "high"} <= set(plate.data.columns)
        assert len(plate.alt) > 40 and "nan" not in plate.alt
    erase = next(p for p in made if p.name == "causal_use_erase")
    assert set(erase.data["measure"]) == {"unchanged"} and "overall" not in set(erase.data["family"])


def test_parts_of_the_tables_will_do(trace, bare):
    effects, verdicts = trace.tables["effects"], trace.tables["causal_verdicts"]
    for tables, expected in (
        ({"effects": effects[effects["experiment"] != "causal_use"]}, []),
        ({"effects": effects.iloc[:0], "causal_verdicts": verdicts.iloc[:0]}, []),
        ({"components": trace.tables["components"]}, ["contributions"]),
        ({"effects": effects[effects["family"] == "overall"]}, CAUSAL[1:3]),
    ):
        some = replace(bare, tables={**bare.tables, **tables})
        assert list(causal_makers(some)) == expected


def test_the_same_figure_has_the_same_bytes(trace, tmp_path):
    made = []
    for folder in ("a", "b"):
        grids = {
            "use": plot_causal_use_grid(trace, figure=theme.blank(6, 3)),
            "contributions": plot_contributions_grid(trace, figure=theme.blank(6, 3)),
            "verdicts": plot_verdicts(trace, ax=theme.blank(6, 4).add_subplot()).figure,
        }
        table = verdict_table(trace)
        made.append([path for name, f in grids.items() for path in save(f, tmp_path / folder / name, table)])
    assert [p.read_bytes() for p in made[0]] == [p.read_bytes() for p in made[1]]
