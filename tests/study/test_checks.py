"""What the summary says of prompts, bias and calibration, and the sentences made of it."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from synthetic import synthetic_summary, synthetic_trace

from brewlens.decoding import calibration
from brewlens.report import warnings_of
from brewlens.study.checks import checks
from brewlens.study.show import check_lines
from brewlens.study.summary import summarise


def spread(**changes):
    row = dict(layer=9, measure="hit", version="subtracted", n_samples=120, n_prompts=3, mean=0.7)
    row |= dict(mean_low=0.6, mean_high=0.8, least=0.5, least_prompt="holds", greatest=0.9)
    row |= dict(greatest_prompt="own", icc_single=0.61, icc_single_low=0.5, icc_single_high=0.72)
    worse = {**row, "layer": 2, "mean": 0.2}
    raw = {**row, "version": "raw", "mean": 0.99}
    return pd.DataFrame([worse, {**row, **changes}, raw, {**row, "measure": "p_answer", "mean": 0.98}])


def bias(flagged=(), w=0.05):
    names = ("own", "constant", "holds")
    rows = [
        dict(prompt=n, where="prior", layer=None, n=120, w=3.0 if n in flagged else w, p_adjusted=0.0)
        | dict(favoured="7", favoured_share=0.4, flagged=n in flagged)
        for n in names
    ]
    rows.append({**rows[0], "where": "raw", "layer": 0})
    return pd.DataFrame(rows).astype({"layer": "Int64"})


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(20)


def with_tables(trace, **tables):
    tables = {"prompt_spread": spread(), "bias": bias(), **tables}
    tables["prompts_left_out"] = pd.DataFrame({"prompt": ["equals"], "reason": ["4 is two tokens behind it"]})
    tables["calibration"] = calibration(trace.readouts["probe"], trace.items.answers)
    return replace(trace, tables=tables)


def test_the_numbers_are_those_of_the_best_layer_and_json(trace):
    found = checks(with_tables(trace))
    json.dumps(found, allow_nan=False)
    assert (found["target_prompts"]["layer"], found["target_prompts"]["least_prompt"]) == (9, "holds")
    assert found["target_prompts"]["left_out"] == {"equals": "4 is two tokens behind it"}
    assert [p["prompt"] for p in found["bias"]["priors"]] == ["own", "constant", "holds"]
    assert found["bias"]["early_layers"][0]["where"] == "raw" and found["near_ood"] is None
    best = trace.readouts["probe"].correct(trace.items.answers).mean(axis=0)
    assert found["calibration"]["layer"] == best.argmax()
    assert found["calibration"]["accuracy"] == pytest.approx(best.max())


def test_without_tables_there_is_nothing_to_say(trace):
    found = checks(trace)
    assert set(found.values()) == {None}
    assert check_lines(found) == []
    assert summarise(trace, trace.readouts["surface"])["checks"] == found


def test_lines_say_what_was_found(trace):
    text = "\n".join(check_lines(checks(with_tables(trace, bias=bias(flagged=("holds",))))))
    assert "3, at layer 9 right in 50 % (holds) to 90 % (own), mean 70 % [60, 80]" in text
    assert "ICC(A,1) 0.61 [0.50, 0.72]" in text and "left out: target prompt equals" in text
    assert "own question: even" in text and "uneven: holds (3.0)" in text and "ECE" in text
    undefined = with_tables(trace, prompt_spread=spread(icc_single=np.nan, icc_single_low=np.nan))
    assert "ICC(A,1) -" in "\n".join(check_lines(checks(undefined)))


def test_warnings_fire_on_bias_and_are_silent_without(trace):
    def of(**tables):
        summary = {**synthetic_summary(trace), "checks": checks(with_tables(trace, **tables))}
        summary["checks"]["calibration"]["ece_debiased"] = tables.get("ece", 0.01)
        return " ".join(warnings_of(summary))

    assert "favour" not in of()
    assert "The question alone" in of(bias=bias(flagged=("own",)))
    assert "other target prompts, holds favour" in of(bias=bias(flagged=("holds",)))
    assert "off by" not in of() and "off by 20.0" in of(ece=0.2)
