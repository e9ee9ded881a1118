"""Does the whole instrument tell the truth? Fewer repetitions of what ``python -m benchmarks.truth`` does."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from scipy.stats import binom

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.truth import coverage, nulls, output, planted
from benchmarks.truth.repeat import Repeated

RARE = 1e-4
"""Chance that a count outside the bounds is luck."""


@pytest.fixture(scope="module")
def null_runs():
    return {
        (kind, layers): [nulls.null_run(kind, layers, 1000 + seed, resamples=399) for seed in range(8)]
        for kind in nulls.KINDS
        for layers in nulls.LAYERS
    }


def test_tests_reject_noise_as_often_as_they_say(null_runs):
    """One in twenty, for each test over all kinds of noise."""
    runs = [run for found in null_runs.values() for run in found]
    for test in runs[0].p:
        p = [run.p[test] for run in runs if run.p[test] == run.p[test]]
        assert sum(value <= 0.05 for value in p) <= binom.isf(RARE, len(p), 0.07), test
    everything = [value for run in runs for value in run.p.values() if value == value]
    assert 0.02 < sum(value <= 0.05 for value in everything) / len(everything) < 0.08


def test_noise_makes_no_claims_and_has_no_onsets(null_runs):
    runs = [run for found in null_runs.values() for run in found]
    assert sum(bool(run.false_claims) for run in runs) <= binom.isf(RARE, len(runs), 0.05)
    assert all(max(run.present) < 0.02 for run in runs)


@pytest.fixture(scope="module")
def planted_runs():
    """Two models of each noise, one with fixed onsets and one with onsets that are spread."""
    chosen = [planted.specs(12)[k] for k in (0, 1, 2, 6, 7, 8)]
    return pd.concat([planted.planted_run(spec, n=360) for spec in chosen], ignore_index=True)


@pytest.mark.parametrize(("noise", "right", "outcomes"), [("low", 0.93, 0.95), ("medium", 0.85, 0.88)])
def test_planted_onsets_and_outcomes_are_found(planted_runs, noise, right, outcomes):
    table = output.planted(planted_runs)
    rows = table[(table["noise"] == noise) & (table["samples"] == "all")].set_index(["landmark", "by"])
    for landmark in ("available_from", "ready_from"):
        assert abs(rows.loc[(landmark, "onset"), "bias"]) < 0.5
        assert rows.loc[(landmark, "onset"), "right"] > right
    assert rows.loc[("outcome", "onset"), "right"] > outcomes
    # What first hits make of the same models.
    assert rows.loc[("ready_from", "FCC"), "bias"] < -1
    assert rows.loc[("outcome", "first hits, paper's rule"), "right"] < outcomes - 0.08
    never = table[(table["noise"] == noise) & (table["samples"] == "truly never")].set_index(
        ["landmark", "by"]
    )
    assert never.loc[("ready_from", "onset"), "found"] < 0.08 < never.loc[("ready_from", "FCC"), "found"]


@pytest.mark.parametrize("name", coverage.INTERVALS)
def test_intervals_cover(name):
    n = 150
    covers = pd.DataFrame([coverage.INTERVALS[name](seed) for seed in range(n)])
    for part in covers:
        assert binom.ppf(RARE, n, 0.93) <= covers[part].sum(), f"{name}{part}"


def test_results_are_written(null_runs, planted_runs, tmp_path):
    run = null_runs["AR(1) layers", 24][0]
    table = pd.DataFrame({"test": list(run.p), "p": list(run.p.values())})
    table = table.assign(kind="AR(1) layers", n_layers=24, run=0, false_claims=0)
    table = table.assign(present_available=run.present[0], present_ready=run.present[1])
    covers = pd.DataFrame({"interval": ["a", "a", "b"], "run": [0, 1, 0], "covers": [True, False, True]})
    found = Repeated(1, {"planted": planted_runs, "coverage": covers, "nulls": table}, {"nulls": 0.1})
    page = output.write(found, tmp_path, tmp_path / "docs")
    assert "| a | 2 | 0.500 |" in page and (tmp_path / "truth.md").read_text("utf-8") == page
    assert {p.name for p in (tmp_path / "docs").iterdir()} == {
        f"onset_errors.{kind}" for kind in ("pdf", "svg", "png", "csv")
    }
    stored = json.loads((tmp_path / "truth.json").read_text("utf-8"))
    assert stored["coverage"]["rows"][0]["share"] == 0.5 and set(stored) == {"nulls", "planted", "coverage"}
    # A run of one part keeps what others wrote.
    again = output.write(Repeated(1, {"coverage": covers[:2]}), tmp_path, tmp_path / "docs")
    assert "| a | 2 | 0.500 |" in again and "| b |" not in again and "AR(1) layers" in again
