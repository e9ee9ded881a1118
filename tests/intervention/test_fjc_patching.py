"""Patching around the FJC: against plain hooks, on planted states, on noise, and with the prompt refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from planted_trace import planted_trace, say

from brewlens.decoding.targets import CONTEXTLESS, OWN, Target
from brewlens.intervention.anchors import Anchors, anchors, refuse_reuse
from brewlens.intervention.fjc_patching import fjc_patching
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.onsets import Onsets
from brewlens.planted import draw_truth, nothing

LAYERS = 8
WORDING = Target("mine", "paraphrase", 'x ends as "')


@pytest.fixture(scope="module")
def case():
    """Available at 1, ready at 3; overprocessed samples are overwritten at 6."""
    mix = {"resolved": 0.5, "overprocessed": 0.3, "unresolved": 0.2}
    return planted_trace(draw_truth(60, LAYERS, mix=mix, available=1, ready=3, lost=6, seed=1))


@pytest.fixture(scope="module")
def table(case):
    model, _, trace = case
    return fjc_patching(model, trace, offsets=(-2, -1, 0, 2, 4, 9), targets=(WORDING,), progress=False)


def row(table, **labels):
    for name, value in labels.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


class TestNaive:
    def test_every_row_is_what_plain_hooks_give(self, case):
        model, space, trace = case
        h, trace = trace.residuals.values, trace.select(range(24))
        offsets, targets = (-1, 0, 2, 4), (WORDING,)
        table = fjc_patching(model, trace, offsets=offsets, targets=targets, least=3, progress=False)
        fjc = trace.lifecycle.landmarks.fjc
        rows = np.flatnonzero(fjc != NEVER)
        for edit, at in (("into_neutral", 0), ("into_neutral", 4), ("into_twin", -1), ("into_twin", 2)):
            before, after = [], []
            for k in rows:
                layer, item = int(fjc[k]) + at, trace.items[k]
                if not 0 <= layer < LAYERS:
                    continue
                prompt = WORDING.text
                if edit == "into_twin":
                    prompt = trace.items.twin(item, "counterfactual").prompt
                right = space.index(item.answer)
                before.append(say(model, space, prompt) == right)
                after.append(say(model, space, prompt, layer, h[k, layer]) == right)
            found = row(table, edit=edit, at=at, donor="own", outcome="all")
            assert found.n == len(before)
            assert found.before == pytest.approx(np.mean(before))
            assert found.after == pytest.approx(np.mean(after))
            assert found.net == pytest.approx(np.mean(after) - np.mean(before))

    def test_another_landmark_and_another_state_are_controls(self, table):
        assert set(table[table.control].donor) == {"other_landmark", "shuffled", "noise"}
        assert set(table[~table.control].donor) == {"own"}
        assert table[table.control].p_adjusted.isna().all()


class TestPlanted:
    def test_a_ready_state_carries_its_answer_into_both_prompts(self, table):
        for edit in ("into_neutral", "into_twin"):
            found = row(table, edit=edit, at=0, donor="own", outcome="resolved")
            assert found.after > 0.85 and found.low > 0.5
        assert row(table, edit="into_neutral", at=0, donor="own", outcome="overprocessed").after == 1

    def test_an_available_state_is_used_by_the_twin_alone(self, table):
        assert row(table, edit="into_twin", at=-1, donor="own", outcome="resolved").after == 1
        assert row(table, edit="into_neutral", at=-1, donor="own", outcome="resolved").net == 0

    def test_an_overwritten_state_does_not(self, table):
        assert row(table, edit="into_neutral", at=4, donor="own", outcome="overprocessed").after < 0.3

    @pytest.mark.parametrize("donor", ["shuffled", "noise"])
    def test_placebos_stay_near_chance(self, table, donor):
        for edit in ("into_neutral", "into_twin"):
            assert row(table, edit=edit, at=0, donor=donor, outcome="resolved").after < 0.4

    def test_offsets_outside_the_model_are_missing(self, table):
        assert 9 not in set(table["at"])
        many = row(table, edit="into_neutral", at=2, donor="own", outcome="all").n
        assert row(table, edit="into_neutral", at=-2, donor="own", outcome="all").n <= many


class TestNoise:
    def test_states_without_an_answer_carry_none_but_where_they_were_chosen(self):
        truth = nothing(draw_truth(240, LAYERS, seed=3))
        model, _, trace = planted_trace(truth, hit=0.8)
        table = fjc_patching(model, trace, offsets=(-2, 0, 2), targets=(WORDING,), least=5, progress=False)
        own = table[(table.donor == "own") & (table.outcome == "all")].set_index(["edit", "at"])
        away = own.drop(index=0, level="at")
        assert len(away) == 4
        assert (away.low <= 0).all() and (away.high >= 0).all()
        # Noise of the state is the same behind every wording, so that other wordings cure the choice in part.
        assert own.loc[("into_neutral", 0), "after"] > 0.8


class TestLandmarks:
    def test_the_prompt_of_the_landmark_is_refused(self, case):
        model, _, trace = case
        with pytest.raises(ValueError, match="chosen because the answer is right"):
            fjc_patching(model, trace, targets=(OWN,), progress=False)
        same = Target("same", "paraphrase", trace.items[0].suffix)
        with pytest.raises(ValueError, match="of 49 samples were read"):
            fjc_patching(model, trace, targets=(WORDING, same), progress=False)

    def test_so_is_contextless_where_readiness_was_pooled_over_prompts(self, case):
        trace = case[2]
        pooled = Anchors(np.zeros(60, int), np.zeros(60, int), trace.lifecycle.outcome, (CONTEXTLESS,))
        with pytest.raises(ValueError, match="contextless"):
            refuse_reuse(pooled, trace.items, [(5,)] * 60)
        refuse_reuse(pooled, trace.items, ["some text"] * 60)

    def test_onsets_need_both_at_once(self, case):
        trace = case[2].select([0, 1, 2, 3])
        never = LAYERS

        def at(*layers):
            return np.eye(LAYERS + 1)[list(layers)]

        onsets = {
            "available": Onsets(LAYERS, at(2, 5, 6, never)),
            "ready": Onsets(LAYERS, at(4, 3, 1, 2), until=at(never, never, 5, never)),
        }
        found = anchors(replace(trace, onsets=onsets), "onsets")
        assert found.fpcl.tolist() == [2, 5, 6, NEVER]
        assert found.fjc.tolist() == [4, 5, NEVER, NEVER]

    def test_what_is_not_there_is_named(self, case):
        with pytest.raises(ValueError, match="has none"):
            anchors(case[2], "onsets")

    @pytest.mark.unchecked("landmarks that there are not")
    def test_landmarks_that_there_are_not_are_named(self, case):
        with pytest.raises(ValueError, match="'last_hits'"):
            anchors(case[2], "last_hits")

    def test_offsets_are_given_once(self, case):
        model, _, trace = case
        with pytest.raises(ValueError, match="each once"):
            fjc_patching(model, trace, offsets=(0, 0), progress=False)

    def test_a_trace_of_another_model_is_refused(self, case):
        model, _, trace = case
        with pytest.raises(ValueError, match="found a trace of other"):
            fjc_patching(model, replace(trace, model="other"), progress=False)

    def test_without_an_fjc_there_is_nothing_to_say(self, case):
        model, _, trace = case
        rows = np.flatnonzero(trace.lifecycle.landmarks.fjc == NEVER)
        assert fjc_patching(model, trace.select(rows), progress=False).empty
