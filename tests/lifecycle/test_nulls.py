"""Nulls: against slow definitions, of the right size in noise, and they find what is planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from scipy.stats import binom

from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.landmarks import NEVER, landmarks
from brewlens.lifecycle.nulls import ALL, COLUMNS, PERMUTED, SHIFTED, landmark_nulls, strata, waiting
from brewlens.lifecycle.permuted import STATISTICS, permutation_p, permutations
from brewlens.lifecycle.trajectory import lifecycle
from brewlens.planted import draw_truth, nothing, simulate
from brewlens.tasks.item import Item, ItemSet


def item(k, family="loop", answer="3", **factors):
    return Item(f"i{k}", family, factors, "", "", "", answer, str(k), str(k))


def cells_of(n, folds=5, configurations=27):
    """Cells of a set with as many configurations, those alone in theirs together by fold."""
    items = ItemSet(tuple(item(k, depth=k % configurations) for k in range(n)))
    return strata(items, np.random.default_rng(n).permutation(n) % folds)


def some_clusters(n):
    """Mostly single samples, some in clusters of 2 to 15."""
    clusters = np.arange(n)
    for start, size in ((0, 15), (20, 8), (40, 4), (50, 2), (60, 2)):
        clusters[start : start + size] = start
    return clusters


def read(simulated, families=None):
    probe, stripped = (simulated.readouts[name] for name in ("probe", "context_stripped"))
    n = len(probe)
    life = lifecycle(
        probe,
        stripped,
        families=["f"] * n if families is None else families,
        answers=simulated.answers,
        output=simulated.output,
        format_miss=np.arange(n) % 17 == 0,
    )
    return probe, stripped, life


def nulls(simulated, cells, clusters=None, **options):
    families = options.pop("families", None)
    return landmark_nulls(*read(simulated, families), cells, clusters, **options)


def of(table, null, family=ALL):
    return table[(table["null"] == null) & (table["family"] == family)].set_index("statistic")


# --- against slow definitions -------------------------------------------------------------------------------


def naive_statistics(probe, stripped, life, answers, rows):
    """Numerator and denominator of every statistic, sample by sample, from the public lifecycle."""
    code = {answer: k for k, answer in enumerate(probe.classes)}
    again = lifecycle(
        probe,
        stripped,
        families=life.families,
        answers=answers,
        output=np.array([code[o] for o in life.output]),
        format_miss=life.format_miss,
    )
    depth, found = life.n_layers, {name: ([], []) for name in STATISTICS}

    def add(name, value, counted=1.0):
        found[name][0].append(value * counted)
        found[name][1].append(counted)

    right = {"available": probe.correct(answers), "ready": stripped.correct(answers)}
    for s in rows:
        marks = {name: getattr(again.landmarks, name)[s] for name in ("fpcl", "fcc", "fjc", "brewing")}
        never = {name: depth if value == NEVER else value for name, value in marks.items()}
        for name in ("fpcl", "fcc", "fjc"):
            add(f"{name}_share", float(marks[name] != NEVER))
            add(name, never[name] / depth)
        add("brewing", marks["brewing"] / depth, float(marks["fjc"] != NEVER))
        add("brewing_restricted", (never["fjc"] - never["fpcl"]) / depth)
        for name, correct in right.items():
            add(f"area_{name}", correct[s].mean())
        brewed = float(marks["fpcl"] != NEVER)
        for name in ("resolved", "overprocessed", "misresolved", "unresolved", "bypassed"):
            add(f"outcome_{name}", float(again.outcome[s] == name), brewed)
        add("outcome_no_brewing", float(again.outcome[s] == "no_brewing"))
        for name in ("resolved", "overprocessed", "misresolved", "unresolved"):
            add(f"outcome_paper_{name}", float(again.outcome_paper[s] == name), brewed)
    return {name: (np.array(a), np.array(b)) for name, (a, b) in found.items()}


def naive_rows(probe, stripped, life, cells, clusters, rows, drawn):
    """Observed, null mean and studentised excess of each statistic, by loops over everything."""
    answers = np.array(life.answers)

    def tables(own):
        observed = naive_statistics(probe, stripped, life, tuple(own), rows)
        null = {name: [np.zeros(len(rows)), np.zeros(len(rows))] for name in STATISTICS}
        for k, s in enumerate(rows):
            others = [o for o in range(len(own)) if cells[o] == cells[s] and o != s]
            for o in others:
                swapped = own.copy()
                swapped[s] = own[o]
                once = naive_statistics(probe, stripped, life, tuple(swapped), [s])
                for name in STATISTICS:
                    null[name][0][k] += once[name][0][0] / len(others)
                    null[name][1][k] += once[name][1][0] / len(others)
        return observed, null

    def excess(name, observed, null):
        ratios, influence = [], np.zeros(len(rows))
        for sign, (part, among) in ((1, observed[name]), (-1, null[name])):
            value = part.sum() / among.sum() if among.sum() else np.nan
            ratios.append(value)
            influence = (
                influence + sign * (part - value * among) / among.sum() if among.sum() else influence + np.nan
            )
        labels = sorted(set(clusters[rows]))
        square = sum(influence[clusters[rows] == label].sum() ** 2 for label in labels)
        error = np.sqrt(square * len(labels) / (len(labels) - 1))
        return ratios, (ratios[0] - ratios[1]) / max(error, 1e-9)

    observed = tables(answers)
    permuted = [tables(answers[p]) for p in drawn]
    found = {}
    for name in STATISTICS:
        ratios, z = excess(name, *observed)
        zs = np.array([excess(name, *each)[1] for each in permuted])
        found[name] = (*ratios, z, zs)
    return found


def test_the_table_against_loops():
    truth = draw_truth(24, 8, seed=3, mix={"resolved": 0.5, "no_brewing": 0.5})
    simulated = simulate(truth, hit=0.6, seed=4)
    families = ["f"] * 12 + ["g"] * 12
    cells = np.r_[[0] * 5, [1] * 6, [2], [3] * 7, [4] * 5]
    clusters = np.r_[[0, 0, 0, 1, 1], np.arange(2, 21)]
    table = nulls(simulated, cells, clusters, families=families, resamples=7, seed=1)
    assert tuple(table.columns) == COLUMNS
    drawn = np.concatenate(list(permutations(cells, 7, seed=1)))
    probe, stripped, life = read(simulated, families)
    for family, rows in (("f", range(11)), ("g", range(12, 24)), (ALL, [*range(11), *range(12, 24)])):
        rows, found = np.array(rows), of(table, PERMUTED, family)
        for name, (observed, null, z, zs) in naive_rows(
            probe, stripped, life, cells, clusters, rows, drawn
        ).items():
            row = found.loc[name]
            assert (row["observed"], row["null_mean"]) == pytest.approx((observed, null), nan_ok=True)
            assert row["p"] == pytest.approx(permutation_p(z, zs), nan_ok=True)
            if 0 < abs(z) < 1e6:
                assert row["low"] < row["excess"] < row["high"]
        assert found.loc["fpcl", "n"] == len(rows)
        assert found.loc["fpcl", "n_clusters"] == len(set(clusters[rows]))


@given(arrays(bool, (3, 6)))
@settings(max_examples=60, deadline=None)
def test_waiting_against_windows(correct):
    first, shifted = waiting(correct)
    for s, row in enumerate(correct):
        hit = landmarks(correct, correct).fpcl[s]
        assert first[s] == (6 if hit == NEVER else hit)
        windows = [[not row[start : start + k].any() for start in range(6 - k + 1)] for k in range(1, 7)]
        assert shifted[s] == pytest.approx(sum(np.mean(w) for w in windows))


def test_slopes_by_least_squares():
    simulated = simulate(draw_truth(40, 9, seed=0), hit=0.8)
    found = of(nulls(simulated, np.zeros(40, int), resamples=9), SHIFTED)
    for name, readout in (("available", "probe"), ("ready", "context_stripped")):
        accuracy = simulated.readouts[readout].correct(simulated.answers).mean(axis=0)
        slope = np.polyfit(np.linspace(0, 1, 9), accuracy, 1)[0]
        assert found.loc[f"slope_{name}", "observed"] == pytest.approx(slope)
        assert found.loc[f"slope_{name}", "null_mean"] == 0


# --- cells and permutations ---------------------------------------------------------------------------------


def test_cells_are_family_factors_and_fold():
    items = ItemSet((
        item(0, depth=1), item(1, depth=1), item(2, depth=1), item(3, depth=2), item(4, depth=3),
        item(5, "computing", depth=1), item(6, "computing", depth=1), item(7, depth=1),
    ))  # fmt: skip
    cells = strata(items, np.array([0, 0, 1, 0, 0, 0, 0, 1]))
    together = [{k for k in range(8) if cells[k] == c} for c in np.unique(cells)]
    # Items 3 and 4 are alone in their cells, of one family and fold.
    assert sorted(map(sorted, together)) == [[0, 1], [2, 7], [3, 4], [5, 6]]
    with pytest.raises(ValueError, match="8 in all; found 2"):
        strata(items, np.array([0, 1]))


def test_permutations_stay_in_cells_and_are_even():
    cells = np.array([1, 0, 1, 0, 1, 2])
    drawn = np.concatenate(list(permutations(cells, 3000, seed=0)))
    assert drawn.shape == (3000, 6)
    assert (cells[drawn] == cells).all()
    assert (np.sort(drawn, axis=1) == np.arange(6)).all()
    _, counts = np.unique(drawn, axis=0, return_counts=True)
    assert len(counts) == 12  # 3! x 2! x 1!
    assert abs(counts - 250).max() < 5 * np.sqrt(250)


def test_twins_are_permuted_in_parallel():
    cells = np.r_[[0] * 5, [7] * 5]
    linked = np.r_[np.arange(5), [3, 1, 4, 0, 2]]
    drawn = np.concatenate(list(permutations(cells, 50, linked=linked, seed=0)))
    for permutation in drawn:
        got = linked[permutation]
        assert dict(zip(linked[:5], got[:5], strict=True)) == dict(zip(linked[5:], got[5:], strict=True))


def test_two_of_one_group_in_one_cell_are_no_neighbours():
    drawn = np.concatenate(list(permutations(np.zeros(4, int), 3000, linked=np.array([0, 0, 1, 2]), seed=0)))
    assert len(np.unique(drawn, axis=0)) == 24


def test_p_values_count_the_observed_and_halve_ties():
    assert permutation_p(10.0, np.zeros(99)) == pytest.approx(2 * 0.5 / 100)
    assert permutation_p(-10.0, np.zeros(99)) == pytest.approx(2 * 0.5 / 100)
    assert permutation_p(0.0, np.zeros(99)) == 1
    assert permutation_p(1.0, np.r_[np.zeros(90), np.ones(5), np.full(4, 2.0)]) == pytest.approx(2 * 7 / 100)
    assert np.isnan(permutation_p(np.nan, np.zeros(9)))
    assert permutation_p(0.0, np.array([np.nan, 1.0, -1.0])) == 1


# --- size and power -----------------------------------------------------------------------------------------


def rejected(runs, make, **options):
    """How often each statistic is rejected at .05 in so many simulations."""
    count = {}
    for seed in range(runs):
        simulated, cells, clusters = make(seed)
        table = nulls(simulated, cells, clusters, resamples=99, seed=seed, **options)
        for row in table[table["family"] == ALL].itertuples():
            count[row.null, row.statistic] = count.get((row.null, row.statistic), 0) + (row.p <= 0.05)
    return count


def most(runs, rate=0.05):
    """Above this a test of that size would be in less than one of 20,000 such sets of runs."""
    return binom.ppf(1 - 5e-5, runs, rate)


@pytest.mark.parametrize(("layers", "correlation", "difficulty"), [(24, 0.0, 0.5), (28, 0.8, 0.0)])
def test_size_in_noise(layers, correlation, difficulty):
    def noise(seed):
        truth = nothing(draw_truth(135, layers, difficulty=difficulty, seed=seed))
        simulated = simulate(truth, hit=0.8, correlation=correlation, seed=1000 + seed)
        return simulated, cells_of(135), some_clusters(135)

    runs = 40
    count = rejected(runs, noise)
    assert len(count) == len(STATISTICS) + 6
    assert max(count.values()) <= most(runs), count
    assert 0.02 < np.mean(list(count.values())) / runs < 0.08


def test_size_where_samples_of_a_cluster_are_alike():
    """Copies of one sample are one piece of evidence, though permutations take them apart."""

    def copies(seed):
        truth = nothing(draw_truth(25, 12, seed=seed))
        simulated = simulate(truth, hit=0.8, seed=1000 + seed)
        rows = np.repeat(np.arange(25), 8)
        readouts = {
            name: replace(r.select(rows), item_ids=tuple(map(str, range(200))))
            for name, r in simulated.readouts.items()
        }
        answers = tuple(simulated.answers[r] for r in rows)
        return replace(simulated, readouts=readouts, answers=answers, output=simulated.output[rows]), rows

    def together(seed):
        simulated, rows = copies(seed)
        return simulated, np.zeros(200, int), rows

    def apart(seed):
        return copies(seed)[0], np.zeros(200, int), None

    runs, names = 25, [(PERMUTED, "area_available"), (PERMUTED, "fpcl"), (PERMUTED, "fjc_share")]
    found = rejected(runs, together)
    assert max(found[name] for name in names) <= most(runs)
    found = rejected(runs, apart)
    assert min(found[name] for name in names) > most(runs)


def steady(seed, n=135, layers=16, rate=0.5, correlation=0.8):
    """Decoders that know the answer in part, at all layers alike, with correlated layers."""
    simulated = simulate(
        nothing(draw_truth(n, layers, seed=seed)), hit=0.8, correlation=correlation, seed=seed
    )
    readouts = {}
    for name, readout in simulated.readouts.items():
        logits = readout.logits.copy()
        logits[np.arange(n), :, simulated.truth.answer] += logits.std() * 1.5
        readouts[name] = Readout(logits, DIGITS, name, readout.item_ids)
    return replace(simulated, readouts=readouts)


def test_what_is_there_at_all_depths_is_there_but_not_a_matter_of_depth():
    runs = 40
    count = rejected(runs, lambda seed: (steady(seed), cells_of(135), some_clusters(135)))
    for name in ("fpcl", "fcc", "fjc", "brewing_restricted", "slope_available", "slope_ready"):
        assert count[SHIFTED, name] <= most(runs)
    assert all(count[PERMUTED, name] == runs for name in ("area_available", "fpcl", "fjc_share"))


def test_what_is_planted_is_found():
    truth = draw_truth(270, 24, seed=1)
    table = nulls(simulate(truth, hit=0.8, correlation=0.5, seed=2), cells_of(270), some_clusters(270))
    found = of(table, PERMUTED)
    more = ("fcc_share", "fjc_share", "area_available", "area_ready", "outcome_resolved")
    assert (found.loc[list(more), "low"] > 0).all()
    assert (found.loc[["fpcl", "fcc", "fjc", "outcome_unresolved"], "high"] < 0).all()
    assert (found.loc[[*more, "fpcl", "fcc", "fjc"], "p"] == 0.001).all()
    found = of(table, SHIFTED)
    assert (found["low"] > 0).all()
    assert (found["p_adjusted"] < 0.05).all()
    assert (found["p_adjusted"].drop("brewing_restricted") < 1e-3).all()
    assert (found["detectable"].drop("brewing_restricted") < found["excess"].drop("brewing_restricted")).all()


def test_excess_does_not_shrink_with_small_cells():
    """A cell's own answer is not among those that it is compared with."""
    simulated = simulate(draw_truth(400, 12, mix={"resolved": 1.0}, seed=1), hit=0.95, seed=2)
    pairs, whole = (
        of(nulls(simulated, cells, resamples=9), PERMUTED).loc["area_available", "excess"]
        for cells in (np.arange(400) // 2, np.zeros(400, int))
    )
    assert pairs == pytest.approx(whole, abs=0.03)


# --- edges --------------------------------------------------------------------------------------------------


def test_what_never_happens_has_no_number():
    ids = tuple(map(str, range(30)))
    logits = np.zeros((30, 6, 10), np.float32)
    logits[..., 9] = 1
    never = Readout(logits, DIGITS, "probe", ids)
    answers = [DIGITS[k % 9] for k in range(30)]
    life = lifecycle(
        never,
        never,
        families=["f"] * 30,
        answers=answers,
        output=np.full(30, 9),
        format_miss=np.zeros(30, bool),
    )
    table = landmark_nulls(never, never, life, np.zeros(30, int), resamples=19)
    found = of(table, PERMUTED)
    assert found.loc["brewing", ["observed", "excess", "low", "p", "detectable"]].isna().all()
    assert found.loc["brewing", "n"] == 0
    assert (found.loc["fpcl_share", ["observed", "excess"]] == 0).all()
    assert found.loc["fpcl_share", "p"] == 1
    assert of(table, SHIFTED)["p"].eq(1).all()


def test_intervals_of_rare_outcomes_are_no_narrower_than_chance():
    covered = []
    for seed in range(40):
        simulated = simulate(nothing(draw_truth(120, 24, seed=seed)), hit=0.8, seed=1000 + seed)
        row = of(nulls(simulated, cells_of(120), resamples=1), PERMUTED).loc["outcome_misresolved"]
        assert row["null_mean"] < 0.03
        covered.append(np.isnan(row["low"]) or row["low"] <= 0 <= row["high"])
    assert sum(covered) >= 35


def test_samples_alone_in_their_cells_have_no_null():
    simulated = simulate(draw_truth(20, 8, seed=0))
    found = of(nulls(simulated, np.arange(20), resamples=9), PERMUTED)
    assert (found["n"] == 0).all()
    assert found[["observed", "p", "detectable"]].isna().all(axis=None)


def test_equal_seeds_give_equal_tables():
    simulated = simulate(draw_truth(60, 8, seed=0), hit=0.6)
    first, same, other = (nulls(simulated, cells_of(60), resamples=19, seed=seed) for seed in (1, 1, 2))
    assert first.equals(same)
    assert not first.equals(other)


def test_what_does_not_fit_is_refused():
    simulated = simulate(draw_truth(20, 8, seed=0))
    with pytest.raises(ValueError, match="about the same samples"):
        nulls(simulated, np.zeros(19, int))
    with pytest.raises(ValueError, match="about the same samples"):
        nulls(simulated, np.zeros(20, int), np.zeros(3))
