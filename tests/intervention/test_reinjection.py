"""Re-injection: against plain hooks, the published blend, and planted samples that it cannot and can help."""

from __future__ import annotations

import numpy as np
import pytest
from planted_trace import planted_trace, say

from brewlens.intervention.edits import blend, replace
from brewlens.intervention.reinjection import reinjection
from brewlens.lifecycle.landmarks import NEVER
from brewlens.planted import draw_truth

LAYERS = 8


@pytest.fixture(scope="module")
def case():
    mix = {"resolved": 0.4, "unresolved": 0.6}
    return planted_trace(draw_truth(60, LAYERS, mix=mix, available=1, ready=5, seed=2))


def row(table, **labels):
    for name, value in labels.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def test_every_row_is_what_plain_hooks_give(case):
    model, space, trace = case
    h, trace = trace.residuals.values, trace.select(range(24))
    table, life = reinjection(model, trace, least=3, progress=False), trace.lifecycle
    for outcome in ("unresolved", "resolved"):
        for layer in (4, 6):
            before, after = [], []
            for k in np.flatnonzero(life.outcome == outcome):
                fpcl = int(life.landmarks.fpcl[k])
                if not NEVER < fpcl < layer:
                    continue
                right, prompt = space.index(trace.items[k].answer), trace.items[k].prompt
                before.append(say(model, space, prompt) == right)
                after.append(say(model, space, prompt, layer, h[k, fpcl]) == right)
            found = row(table, edit="replace", at=layer, donor="own_earlier", outcome=outcome)
            assert found.n == len(before)
            assert (found.before, found.after) == pytest.approx((np.mean(before), np.mean(after)))


def test_the_published_blend_is_one_call_with_its_dose(case):
    model, _, trace = case
    table = reinjection(model, trace, layers=(-4,), edits=(blend(0.3),), progress=False)
    assert set(table["at"]) == {LAYERS - 4} and set(table.edit) == {"blend_0.3"}
    found = row(table, donor="own_earlier", outcome="unresolved")
    # The planted unresolved state does not change between the two layers: no dose, and no test.
    assert found.net == 0 and found.nil and found.change == pytest.approx(0, abs=1e-6)
    assert found.low <= 0 <= found.high


def test_an_available_answer_that_nothing_uses_is_not_rescued(case):
    model, _, trace = case
    table = reinjection(model, trace, edits=(replace(),), progress=False)
    found = table[(table.outcome == "unresolved") & (table.donor == "own_earlier")]
    assert len(found) == 3 and (found.net == 0).all()


def test_undoing_the_layer_that_makes_an_answer_ready_harms_resolved_samples(case):
    model, _, trace = case
    table = reinjection(model, trace, edits=(replace(),), progress=False)
    harmed = row(table, outcome="resolved", donor="own_earlier", at=6)
    assert harmed.before == 1 and harmed.net < -0.7 and harmed.high < 0
    spared = row(table, outcome="resolved", donor="own_earlier", at=4)
    assert spared.net == 0  # it is made ready at layer 5, from what is written back


def test_an_unknown_layer_is_refused(case):
    model, _, trace = case
    with pytest.raises(ValueError, match="from -8 to -1"):
        reinjection(model, trace, layers=(-12,), progress=False)
