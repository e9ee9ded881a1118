"""Claims: borne out where they are planted, contradicted where the opposite is, and quiet in noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from brewlens import tasks
from brewlens.lifecycle.claims import CONTRADICTED, NOT_DISTINGUISHABLE, ORDER, SUPPORTED, claims, verdicts
from brewlens.lifecycle.failures import draw_controls, failure_excess
from brewlens.lifecycle.nulls import strata
from brewlens.planted import draw_truth, nothing, simulated_trace
from brewlens.study.analysis import analyse

BREWING = "brewing takes a share of the depth"
FIRST_HITS = "brewing from FPCL to FJC is longer than first hits by chance make it"
OUTCOMES = [
    f"more samples are {name} than noise would make"
    for name in ("resolved", "overprocessed", "misresolved", "unresolved")
]
HARDER = "harder programs are resolved less often"
TWINS = "a loop is resolved more often than its unrolled twin"


@pytest.fixture(scope="module")
def programs():
    items = tasks.generate(("loop", "loop_unrolled"), n=270, seed=0)
    return items, tasks.assign_folds(items)


def table(items, folds, truth, **options):
    trace, _ = simulated_trace(items, folds, truth, **options)
    return analyse(trace, resamples=499).tables["claims"]


def verdict(claims, statement, scope=""):
    rows = claims[(claims["statement"] == statement) & claims["scope"].str.contains(scope, regex=False)]
    assert len(rows) == 1
    return rows.iloc[0]


def test_what_is_planted_is_supported(programs):
    items, folds = programs
    claims = table(items, folds, draw_truth(len(items), 16, seed=1))
    for statement in (ORDER, BREWING, *OUTCOMES):
        row = verdict(claims, statement)
        assert row["verdict"] == SUPPORTED, statement
        assert 0 < row["low"] < row["effect"] < row["high"]
    # Not planted. One in twenty such intervals may miss zero, so their verdicts are not asked for.
    unplanted = claims[claims["statement"].isin([HARDER, TWINS])]
    assert len(unplanted) == 5 and (unplanted["effect"].abs() < 0.12).all()
    order = verdict(claims, ORDER)
    assert (order["n"], order["clusters"]) == (len(items), len(set(tasks.clusters(items))))
    assert 0 < order["detectable"] < order["effect"]


def test_the_order_can_be_contradicted(programs):
    """Readiness first: the two decoders change places."""
    items, folds = programs
    trace, _ = simulated_trace(items, folds, draw_truth(len(items), 16, mix={"resolved": 1}, seed=2))
    probe, stripped = trace.readouts["probe"], trace.readouts["context_stripped"]
    trace = replace(trace, readouts={**trace.readouts, "probe": stripped, "context_stripped": probe})
    claims = analyse(trace, resamples=199).tables["claims"]
    for statement in (ORDER, BREWING):
        row = verdict(claims, statement)
        assert row["verdict"] == CONTRADICTED and row["high"] < 0


def test_planted_difficulty_and_twins(programs):
    """More iterations, fewer resolved; loops more often than their twins."""
    items, folds = programs
    rng = np.random.default_rng(3)
    truth = draw_truth(len(items), 12, mix={"resolved": 1}, seed=3)
    rate = np.array(
        [
            0.9 - 0.2 * (item.factors["iterations"] - 2) - 0.3 * (item.family == "loop_unrolled")
            for item in items
        ]
    )
    none = rng.random(len(items)) > rate
    blank = nothing(truth)
    truth = replace(
        truth,
        **{
            name: np.where(none, getattr(blank, name), getattr(truth, name))
            for name in ("kind", "available_from", "ready_from", "ready_until", "written")
        },
    )
    claims = table(items, folds, truth)
    for family in ("loop", "loop_unrolled"):
        row = verdict(claims, HARDER, f"{family}, iterations")
        assert row["verdict"] == SUPPORTED and row["low"] < 0.2 < row["high"]
        assert abs(verdict(claims, HARDER, f"{family}, init_offset")["effect"]) < 0.1
    row = verdict(claims, TWINS)
    assert row["verdict"] == SUPPORTED and row["low"] < 0.3 < row["high"]
    assert row["n"] == 270


@pytest.mark.parametrize(("correlation", "difficulty"), [(0.0, 0.0), (0.8, 0.0), (0.0, 0.5)])
def test_noise_is_not_distinguishable_from_null(programs, correlation, difficulty):
    items, folds = programs
    truth = nothing(draw_truth(len(items), 24, difficulty=difficulty, seed=4))
    claims = table(items, folds, truth, hit=0.8, correlation=correlation, seed=5)
    assert set(claims["verdict"]) == {NOT_DISTINGUISHABLE}
    assert len(claims) == 12


def test_items_without_factors_and_twins_have_no_such_lines(programs):
    items, folds = programs
    rows = [row for row, item in enumerate(items) if item.family == "loop"]
    bare = [replace(items[row], factors={}, twins={}) for row in rows]
    items = tasks.ItemSet(tuple(bare))
    claims = table(items, folds[rows], draw_truth(len(items), 12, seed=6))
    assert not {HARDER, TWINS} & set(claims["statement"])
    assert {ORDER, BREWING, FIRST_HITS, *OUTCOMES} == set(claims["statement"])


@pytest.mark.parametrize(
    ("factors", "scopes"),
    [
        (lambda k: {"size": k % 3, "twice": 2 * (k % 3)}, []),  # neither changes while the other stays
        (lambda k: {"size": k % 3, "number": k}, ["loop, number"]),  # as many numbers as items
    ],
)
def test_factors_that_cannot_be_held_fixed_have_no_line(programs, factors, scopes):
    items, folds = programs
    rows = [row for row, item in enumerate(items) if item.family == "loop"]
    mine = [replace(items[row], factors=factors(k), twins={}) for k, row in enumerate(rows)]
    items = tasks.ItemSet(tuple(mine))
    claims = table(items, folds[rows], draw_truth(len(items), 12, seed=6))
    assert claims.loc[claims["statement"] == HARDER, "scope"].tolist() == scopes


def test_an_order_needs_both_to_be_there(programs):
    """Where the presence of one could not be tested, nothing is said of what comes first."""
    items, folds = programs
    trace, _ = simulated_trace(items, folds, draw_truth(len(items), 16, mix={"resolved": 1}, seed=2))
    found = analyse(trace, resamples=199)
    nulls = found.tables["nulls"].copy()
    nulls.loc[nulls["statistic"] == "area_ready", "p"] = np.nan
    table = claims(items, trace.lifecycle, found.onsets, nulls, {})
    for statement in (ORDER, BREWING):
        assert verdict(found.tables["claims"], statement)["verdict"] == SUPPORTED
        row = verdict(table, statement)
        assert np.isnan(row["p"]) and row["verdict"] == NOT_DISTINGUISHABLE


def test_a_model_that_is_never_wrong_has_no_failures(programs):
    items, folds = programs
    trace, _ = simulated_trace(
        items, folds, draw_truth(len(items), 12, mix={"resolved": 1}, seed=7), hit=0.999
    )
    claims = analyse(trace, resamples=199).tables["claims"]
    row = verdict(claims, OUTCOMES[1])
    assert row["n"] == 0 and np.isnan(row["effect"]) and row["verdict"] == NOT_DISTINGUISHABLE


def test_verdicts():
    effect = np.array([1.0, -1.0, 1.0, 1.0, np.nan, 0.0])
    p = np.array([0.05, 0.01, 0.051, np.nan, np.nan, 0.0])
    assert verdicts(effect, p).tolist() == [
        SUPPORTED,
        CONTRADICTED,
        *[NOT_DISTINGUISHABLE] * 4,
    ]


def test_controls_are_answers_of_the_same_cell_that_were_not_said(programs):
    items, folds = programs
    trace, _ = simulated_trace(items, folds, draw_truth(len(items), 8, seed=8), hit=0.6)
    life, cells = trace.lifecycle, strata(items, folds)
    rows, controls = draw_controls(life, cells, seed=0)
    assert len(rows) and not life.output_correct[rows].any() and (np.diff(rows) > 0).all()
    for row, control in zip(rows, controls, strict=True):
        others = [life.answers[o] for o in np.flatnonzero(cells == cells[row]) if o != row]
        assert control in others and control != life.output[row]
    again = draw_controls(life, cells, seed=0)
    assert again[1] == controls and draw_controls(life, cells, seed=1)[1] != controls


def test_right_samples_do_not_lend_their_onsets_to_wrong_ones(programs):
    """Half the samples are resolved, the others noise and mostly wrong: no failure has more than noise."""
    items, folds = programs
    truth = draw_truth(len(items), 16, mix={"resolved": 0.5, "no_brewing": 0.5}, seed=9)
    trace, _ = simulated_trace(items, folds, truth, seed=9)
    found = failure_excess(
        trace.readouts["probe"], trace.readouts["context_stripped"], trace.lifecycle, strata(items, folds)
    )
    assert all(estimate.low < 0.02 and estimate.value < 0.05 for estimate in found.values())
