"""Calibration figures: bins and errors beside the slow way, clustered intervals, a known miscalibration."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from synthetic import CLASSES, synthetic_trace

from brewlens.decoding.calibration import calibration
from brewlens.decoding.readout import Readout
from brewlens.figures import theme
from brewlens.figures.reliability import (
    ece_table,
    plot_ece,
    plot_reliability,
    plot_reliability_grid,
    reliability_alt,
    reliability_size,
    reliability_table,
)
from brewlens.stats import clustered_mean, clustered_share
from brewlens.tasks.item import ItemSet

mpl.use("agg")
LAYERS = 6


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(54, ("computing", "loop"), n_layers=LAYERS)


def drawn(figure):
    """Its bytes as SVG."""
    file = BytesIO()
    with theme.context():
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def with_probe(trace, *, told, answers):
    """A probe whose largest probability is ``told``, and right where ``answers`` says so."""
    target = np.array([CLASSES.index(i.answer) for i in trace.items])
    says = np.where(answers, target, (target + 1) % 10)
    p = np.repeat((1 - told)[:, None, None] / 9, 10, axis=2)
    p[np.arange(len(p)), 0, says] = told
    probe = Readout(np.log(p).astype(np.float32), CLASSES, "probe", trace.items.ids)
    return replace(trace, readouts={**trace.readouts, "probe": probe})


def test_bins_agree_with_the_slow_way(trace):
    table = reliability_table(trace, decoders=["probe"], family="loop", layers={"probe": 2}, bins=5)
    rows = [r for r, i in enumerate(trace.items) if i.family == "loop"]
    probe = trace.readouts["probe"]
    told = [float(probe.probabilities[r, 2].max()) for r in rows]
    right = [CLASSES[probe.predicted[r, 2]] == trace.items[r].answer for r in rows]
    order = sorted(range(len(rows)), key=lambda k: told[k])
    points = table[table["part"] == "bins"].reset_index(drop=True)
    start = 0
    for row in points.itertuples():
        members = order[start : start + row.n]
        start += row.n
        assert row.confidence == pytest.approx(np.mean([told[k] for k in members]))
        assert (row.least, row.most) == pytest.approx((told[members[0]], told[members[-1]]))
        found = clustered_share(
            np.array([right[k] for k in members]), trace.shapes[[rows[k] for k in members]]
        )
        assert (row.accuracy, row.low, row.high) == pytest.approx((found.value, found.low, found.high))
    assert start == len(rows) and points["n"].max() - points["n"].min() <= 1
    steps = table[table["part"] == "histogram"]
    assert steps["n"].sum() == len(rows)
    for row in steps.itertuples():
        assert row.n == sum(row.least <= t < row.most or (row.most == t == 1) for t in told)
    over = clustered_mean(np.array(told) - right, trace.shapes[rows])
    assert tuple(table[["over", "over_low", "over_high"]].iloc[0]) == pytest.approx(
        (over.value, over.low, over.high)
    )


def test_intervals_widen_with_shapes():
    """Where samples of one shape are right together, they tell less."""
    trace = synthetic_trace(120, ("computing",), n_layers=LAYERS)
    right = trace.readouts["probe"].correct(trace.items.answers)[:, 2]
    place = np.argsort(np.argsort(right, kind="stable")) // 4
    alike = [replace(item, shape=str(k)) for item, k in zip(trace.items, place, strict=True)]
    clustered = replace(trace, items=ItemSet(tuple(alike), trace.items.partners))
    wide, narrow = (
        reliability_table(t, decoders=["probe"], layers={"probe": 2}, bins=2)[:2] for t in (clustered, trace)
    )
    assert (wide["accuracy"] == narrow["accuracy"]).all()
    assert (wide["high"] - wide["low"]).mean() > 1.2 * (narrow["high"] - narrow["low"]).mean()


def test_errors_are_those_of_calibration(trace):
    answers = trace.items.answers
    by_layer = ece_table(trace)
    table = reliability_table(trace)
    for name in ("probe", "logit_lens", "context_stripped"):
        expected = calibration(trace.readouts[name], answers, bins=10)
        rows = by_layer[by_layer["decoder"] == name]
        assert rows["ece_debiased"].to_numpy() == pytest.approx(expected["ece_debiased"].to_numpy())
        drawn = table[table["decoder"] == name].iloc[0]
        candidates = expected if name == "probe" else expected[:-1]
        best = int(candidates["accuracy"].idxmax())
        assert drawn["layer"] == best
        assert drawn["ece_debiased"] == pytest.approx(expected["ece_debiased"][best])
    model = table[table["decoder"] == "model"].iloc[0]
    raw = calibration(trace.readouts["context_stripped_raw"], answers, bins=10).iloc[-1]
    assert model["ece_debiased"] == pytest.approx(raw["ece_debiased"]) and model["layer"] == LAYERS - 1
    assert by_layer["n"].eq(len(trace)).all()


def test_a_planted_miscalibration_is_found_and_none_where_there_is_none():
    trace = synthetic_trace(200, ("computing",), n_layers=LAYERS)
    rng = np.random.default_rng(0)
    told = rng.uniform(0.3, 0.99, len(trace))
    found = {}
    for name, chance in (("calibrated", told), ("sure", told - 0.2)):
        made = with_probe(trace, told=told, answers=rng.uniform(size=len(trace)) < chance)
        found[name] = reliability_table(made, decoders=["probe"]).iloc[0]
    good, bad = found["calibrated"], found["sure"]
    assert good["over_low"] < 0 < good["over_high"] and good["ece_debiased"] < 0.08
    assert bad["over_low"] < 0.2 < bad["over_high"] and bad["over_low"] > 0.1
    assert bad["ece_debiased"] == pytest.approx(0.2, abs=0.06)


def test_the_figure_draws_the_table(trace):
    ax = Figure().add_subplot()
    assert plot_reliability(trace, family="loop", ax=ax) is ax
    table = reliability_table(trace, family="loop")
    lines = {line.get_gid(): line for line in ax.get_lines()}
    segments = {
        tuple(np.round([s[0][0], *sorted(s[:, 1])], 9))
        for c in ax.collections
        if hasattr(c, "get_segments")
        for s in c.get_segments()
    }
    steps = {p.get_gid(): p for p in ax.patches}
    for name, rows in table.groupby("decoder"):
        points = rows[rows["part"] == "bins"]
        assert lines[name].get_xdata() == pytest.approx(points["confidence"].to_numpy())
        assert lines[name].get_ydata() == pytest.approx(points["accuracy"].to_numpy())
        assert lines[name].get_color() == theme.decoder(name).color
        assert {tuple(np.round(p, 9)) for p in points[["confidence", "low", "high"]].to_numpy()} <= segments
        data, counts = steps[f"histogram-{name}"].get_data(), rows[rows["part"] == "histogram"]["n"]
        heights = data.values - data.baseline
        assert heights == pytest.approx(
            counts.to_numpy() * heights.max() / counts.max() if counts.max() else heights
        )
    label = lines["probe"].get_label()
    row = table[table["decoder"] == "probe"].iloc[0]
    assert f"ECE {100 * row['ece_debiased']:.1f} %" in label and f"layer {row['layer']}" in label
    assert ax.get_title(loc="left") == "loop  (n = 54)"
    ax = plot_ece(trace, ax=Figure().add_subplot())
    lines, table = {line.get_gid(): line for line in ax.get_lines()}, ece_table(trace)
    for name, rows in table.groupby("decoder"):
        assert lines[f"ece-{name}"].get_ydata() == pytest.approx(rows["ece_debiased"].to_numpy())
        assert lines[f"ece-{name}"].get_xdata().tolist() == rows["layer"].tolist()


def test_a_decoder_without_layers_is_a_level(trace):
    table = ece_table(trace, decoders=["surface"])
    assert table["layer"].isna().all()
    assert reliability_table(trace, decoders=["surface"])["layer"].isna().all()
    ax = plot_ece(trace, decoders=["surface", "probe"], ax=Figure().add_subplot())
    assert "ece-surface" in {line.get_gid() for line in ax.get_lines()}
    assert "layer" not in reliability_alt(reliability_table(trace, decoders=["surface"])).split("points")[1]


def test_a_single_shape_has_no_interval_of_over_confidence(trace):
    one = trace.select([0])
    row = reliability_table(one, decoders=["probe"]).iloc[0]
    assert np.isnan(row["over_low"]) and np.isfinite(row["over"])
    assert "nan" not in reliability_alt(reliability_table(one))
    plot_reliability(one, ax=Figure().add_subplot())


def test_the_same_bytes_twice(trace):
    table = reliability_table(trace)
    size = (theme.two_columns(), reliability_size(table)[1])
    figures = [plot_reliability_grid(trace, figure=theme.blank(*size)) for _ in "ab"]
    assert drawn(figures[0]) == drawn(figures[1])


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"decoders": ["prob"]}, r"asked for decoders \['prob'\]; this trace has.*probe"),
        ({"family": "looop"}, "asked for family 'looop'"),
        ({"layers": {"probe": 60}}, "asked for layer 60 of probe; it has layers 0 to 5"),
        ({"layers": {"tuned": 1}}, r"layers asked for \['tuned'\]"),
        ({"bins": 0}, "at least one bin"),
        ({"decoders": []}, "asked for no decoder"),
    ],
)
def test_what_cannot_be_drawn_is_refused(trace, asked, message):
    with pytest.raises(ValueError, match=message):
        reliability_table(trace, **asked)
