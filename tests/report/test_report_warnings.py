"""Warnings: each fires at its threshold, and none without cause."""

from __future__ import annotations

from copy import deepcopy

import pytest
from synthetic import synthetic_summary, synthetic_trace

from brewlens.lifecycle.claims import CONTRADICTED, ORDER, SUPPORTED
from brewlens.report import warnings_of


def share(count, n):
    return {"count": count, "n": n, "value": count / n, "low": 0.0, "high": 1.0}


@pytest.fixture(scope="module")
def calm():
    summary = synthetic_summary(synthetic_trace(100, ("computing", "loop"), n_layers=4))
    for family in summary["families"].values():
        family["outcomes"]["bypassed"] = share(10, 100)
        family["format_miss"] = share(1, 100)
        family["surface"] = share(899, 1000)
    return summary


def test_a_good_run_has_none(calm):
    assert warnings_of(calm) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda f: f.update(surface=share(90, 100)),
            "loop: a classifier that reads only the program’s text gets 90.0",
        ),
        (lambda f: f.update(format_miss=share(2, 100)), "loop: in 2 of 100 samples (2.0"),
        (lambda f: f["outcomes"].update(bypassed=share(11, 100)), "loop: 11.0"),
        (lambda f: f.update(n=99), "loop: there are only 99 samples, fewer than 100"),
        (lambda f: f.update(n=1), "loop: there is only 1 sample"),
    ],
)
def test_each_fires_alone_and_names_its_family(calm, change, words):
    summary = deepcopy(calm)
    change(summary["families"]["loop"])
    (sentence,) = warnings_of(summary)
    assert sentence.startswith(words) and sentence.endswith(".")


def test_an_order_that_a_weak_probe_may_have_made(calm):
    claims = deepcopy(calm["claims"])
    order = next(claim for claim in claims if claim["statement"] == ORDER)
    order["verdict"] = CONTRADICTED
    (sentence,) = warnings_of({**calm, "claims": claims})
    assert "ready before this probe reads them" in sentence
    order["verdict"] = SUPPORTED
    assert warnings_of({**calm, "claims": claims}) == []


def test_few_shapes(calm):
    assert warnings_of({**calm, "few_shapes": {"mine": 1}}) == [
        "mine: there is 1 shape of program only, so intervals are about programs of this shape and take "
        "samples as independent."
    ]
    assert warnings_of({**calm, "few_shapes": {"mine": 3}})[0].startswith("mine: there are 3 shapes")


def test_short_configurations_are_one_sentence(calm):
    one = warnings_of({**calm, "short": {"loop/a/2/0": "3 of 30"}})
    assert one == ["1 configuration gave fewer distinct programs than asked: loop/a/2/0 (3 of 30)."]
    many = warnings_of({**calm, "short": {f"loop/{k}": "3 of 30" for k in range(11)}})
    assert len(many) == 1 and many[0].startswith("11 configurations") and many[0].endswith("and 3 more.")


def test_families_without_numbers_are_no_cause(calm):
    summary = deepcopy(calm)
    summary["families"]["loop"].update(surface=None, format_miss=None, outcomes={"bypassed": None})
    assert warnings_of(summary) == []
