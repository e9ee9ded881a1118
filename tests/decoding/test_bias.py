"""The audit of per-answer bias: fires on a model that is given one, and is quiet where there is none."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from brewlens import tasks
from brewlens.capturing import capture
from brewlens.decoding.bias import answer_shares, audit_bias, audit_context_stripped
from brewlens.decoding.context_stripped import context_stripped
from brewlens.decoding.readiness import readiness
from brewlens.decoding.readout import Readout
from brewlens.decoding.targets import CONSTANT, CONTEXTLESS, OWN, own_suffixes

CLASSES = tuple("0123456789")


@pytest.fixture(scope="module")
def items():
    return tasks.generate(("computing", "conditional"), n=30)


def readout(logits, decoder="context_stripped_raw"):
    logits = np.asarray(logits, dtype=np.float32)
    ids = tuple(map(str, range(len(logits))))
    return Readout(logits, CLASSES[: logits.shape[-1]], decoder, ids)


def flat_but(model, digit_token, nats):
    """A hook that leaves a random model next to no preference, and then lifts one digit."""

    def hook(logits, hook):
        logits = 0.02 * logits
        logits[..., digit_token] += nats
        return logits

    return [("unembed.hook_out", hook)]


@pytest.mark.parametrize("nats", [0.0, 2.0])
def test_an_artificial_digit_bias_is_found_and_gone_after_subtraction(any_model, items, nats):
    space = any_model.answer_space(items.prompts)
    residuals = capture(any_model, items.prompts, items.ids)
    with any_model.hooks(flat_but(any_model, space.token_ids[7], nats)):
        subtracted, raw = context_stripped(any_model, residuals, own_suffixes(items), space)
    audit = audit_context_stripped(subtracted, raw)
    assert audit.flagged_in("prior") == audit.flagged_in("raw") == audit.flagged == (nats != 0)
    assert not audit.flagged_in("subtracted")
    quiet = audit.table[audit.table["where"] == "subtracted"]
    assert (quiet["w"] < audit.small_effect).all() and (quiet["p"] > 0.05).all()
    if nats:
        loud = audit.table[audit.table["where"] != "subtracted"]
        assert (loud["favoured"] == "7").all() and loud["flagged"].all() and (loud["w"] > 0.5).all()


def test_over_several_prompts(tiny_model, items):
    space = tiny_model.answer_space(items.prompts)
    residuals = capture(tiny_model, items.prompts, items.ids)
    targets = (OWN, CONSTANT, CONTEXTLESS)
    flagged = {}
    for nats in (0.0, 2.0):
        with tiny_model.hooks(flat_but(tiny_model, space.token_ids[3], nats)):
            found = readiness(tiny_model, residuals, items, space, targets)
        audit = found.audit_bias()
        flagged[nats] = [audit.flagged_in(where) for where in ("prior", "raw", "subtracted")]
        where = audit.table.groupby("prompt")["where"].agg(set)
        assert where.pop("pooled") == {"raw", "subtracted"}
        assert set(where.index) == {"own", "constant", "contextless"}
        assert all(w == {"prior", "raw", "subtracted"} for w in where)
    assert flagged == {0.0: [False, False, False], 2.0: [True, True, False]}


def test_numbers_by_hand():
    p = np.array([[0.5, 0.3, 0.2], [0.7, 0.1, 0.2]])
    audit = audit_bias({("own", "raw"): readout(np.log(p)[:, None])}, {"own": np.log(p[:1].repeat(2, 0))})
    prior, raw = (row for _, row in audit.table.iterrows())
    share = np.array([0.6, 0.2, 0.2])
    w = np.sqrt(((share - 1 / 3) ** 2 / (1 / 3)).sum())
    assert raw["w"] == pytest.approx(w) and raw["chi2"] == pytest.approx(2 * w**2) and raw["df"] == 2
    assert (raw["favoured"], raw["favoured_share"]) == ("0", pytest.approx(0.6))
    assert raw["disfavoured_share"] == pytest.approx(0.2) and raw["ratio"] == pytest.approx(3)
    assert (raw["n"], raw["distinct"], prior["distinct"]) == (2, 2, 1)
    assert (raw["prompt"], raw["where"], raw["layer"]) == ("own", "raw", 0)
    assert prior["favoured_share"] == pytest.approx(0.5) and pd.isna(prior["layer"])
    assert (audit.table["p_adjusted"] == np.minimum(1, 2 * audit.table["p"])).all()
    # With two degrees of freedom the chi-square tail is exp(-x / 2).
    assert raw["p"] == pytest.approx(np.exp(-(w**2)), rel=1e-6)


def test_a_row_needs_both_significance_and_size_to_be_flagged():
    tilt = np.zeros((1, 1, 10))
    tilt[..., 4] = np.log(9 * 0.12 / 0.88)  # one class at 12 %: w = .067
    strong = np.zeros((1, 1, 10))
    strong[..., 4] = 1.0
    many, few = tilt.repeat(20_000, 0), strong.repeat(40, 0)
    for logits, rule in ((many, "size"), (few, "significance"), (strong.repeat(2_000, 0), None)):
        audit = audit_bias({("own", "raw"): readout(logits)}, {})
        row = audit.table.iloc[0]
        assert audit.flagged == (rule is None)
        assert (row["p_adjusted"] < audit.alpha) == (rule != "significance")
        assert (row["w"] > audit.small_effect) == (rule != "size")
    assert audit_bias({("own", "raw"): readout(many)}, {}, small_effect=0.05).flagged
    assert audit_bias({("own", "raw"): readout(few)}, {}, alpha=0.9).flagged


def test_unbiased_draws_are_flagged_no_more_often_than_alpha():
    rng = np.random.default_rng(0)
    hard = 20.0 * np.eye(10)[rng.integers(10, size=(300, 400))]  # [sample, layer, class]
    for measure in ("mass", "predicted"):
        found = audit_bias({("own", "raw"): readout(hard)}, {}, layers=range(400), measure=measure).table
        assert 0.02 < (found["p"] < 0.05).mean() < 0.08
        assert not found["flagged"].any()


def test_arg_maxes_show_a_bias_of_any_size():
    logits = np.zeros((100, 1, 10))
    logits[..., 6] = 0.01
    readouts = {("own", "subtracted"): readout(logits)}
    assert not audit_bias(readouts, {}).flagged
    counted = audit_bias(readouts, {}, measure="predicted")
    assert counted.flagged and counted.table["ratio"].item() == np.inf
    assert counted.table["favoured_share"].item() == 1


def test_what_is_expected_can_be_the_answers():
    rng = np.random.default_rng(0)
    answers = rng.choice(10, size=600, p=np.arange(1, 11) / 55)
    right = readout(8.0 * np.eye(10)[answers][:, None])
    shares = answer_shares([CLASSES[a] for a in answers], CLASSES)
    assert audit_bias({("own", "raw"): right}, {}).flagged
    assert not audit_bias({("own", "raw"): right}, {}, expected=shares).flagged
    flat = readout(np.zeros((600, 1, 10)))
    assert audit_bias({("own", "raw"): flat}, {}, expected=shares).flagged


def test_the_first_quarter_is_audited_unless_said_otherwise():
    rng = np.random.default_rng(0)
    readouts = {("own", "raw"): readout(rng.normal(size=(20, 9, 10)))}
    assert list(audit_bias(readouts, {}).table["layer"]) == [0, 1]
    assert list(audit_bias(readouts, {}, layers=[8, 3]).table["layer"]) == [8, 3]
    row = audit_bias(readouts, {}, layers=[8]).table.iloc[0]
    share = softmax(readouts["own", "raw"].logits[:, 8], axis=-1).mean(axis=0)
    assert row["favoured_share"] == pytest.approx(share.max(), rel=1e-5)


@pytest.mark.unchecked("a measure that there is not")
def test_the_audit_refuses_what_does_not_fit():
    good = {("own", "raw"): readout(np.zeros((5, 4, 10)))}
    with pytest.raises(ValueError, match="nothing to audit"):
        audit_bias({}, {})
    with pytest.raises(ValueError, match="layers run from 0 to 3, asked for"):
        audit_bias(good, {}, layers=[4])
    for expected in (np.full(9, 1 / 9), np.full(10, 1.0), np.eye(10)[0]):
        with pytest.raises(ValueError, match="one positive share for each of 10 classes"):
            audit_bias(good, {}, expected=expected)
    with pytest.raises(ValueError, match="found 'hits'"):
        audit_bias(good, {}, measure="hits")
    with pytest.raises(ValueError, match="same classes"):
        audit_bias({**good, ("own", "subtracted"): readout(np.zeros((5, 4, 3)))}, {})
    with pytest.raises(ValueError, match="nothing audited in 'prior'"):
        audit_bias(good, {}).flagged_in("prior")
    with pytest.raises(ValueError, match=r"\['1', '2'\] are never"):
        answer_shares(["0", "0"], "012")
    with pytest.raises(ValueError, match="'x' is not one"):
        answer_shares(["x"], "012")
