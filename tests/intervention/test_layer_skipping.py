"""Layer skipping: against plain hooks, and on planted overprocessing."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from planted_trace import planted_trace, say

from brewlens.intervention.earlier_state import MODES, other_layers
from brewlens.intervention.edits import norm_match
from brewlens.intervention.layer_skipping import layer_skipping
from brewlens.intervention.samples import draw, draw_each, layers_from_end
from brewlens.lifecycle.landmarks import NEVER
from brewlens.planted import draw_truth, nothing

LAYERS = 8


@pytest.fixture(scope="module")
def case():
    mix = {"resolved": 0.5, "overprocessed": 0.4, "unresolved": 0.1}
    return planted_trace(draw_truth(60, LAYERS, mix=mix, available=1, ready=3, lost=6, seed=2))


@pytest.fixture(scope="module")
def table(case):
    model, _, trace = case
    return layer_skipping(model, trace, layers=(-3, -1), offsets=(1, 3), progress=False)


@pytest.fixture(scope="module")
def few(case):
    model, _, trace = case
    trace = trace.select(range(20))
    return trace, layer_skipping(model, trace, layers=(5, 7), offsets=(3,), least=2, progress=False)


def row(table, **labels):
    for name, value in labels.items():
        table = table[table[name] == value]
    assert len(table) == 1
    return table.iloc[0]


def written(mode, own, donor):
    """The four ways of writing, spelled out."""
    match mode:
        case "replace":
            return donor
        case "norm_match":
            return donor * own.norm() / donor.norm()
        case "blend_0.3":
            return 0.7 * own + 0.3 * donor
        case "blend_0.5":
            return 0.5 * own + 0.5 * donor


class TestNaive:
    @pytest.mark.parametrize("mode", [edit.name for edit in MODES])
    @pytest.mark.parametrize("aligned, at", [("layer", 7), ("layer", 5), ("fjc", 3)])
    def test_every_row_is_what_plain_hooks_give(self, case, few, mode, aligned, at):
        model, space, trace = case
        h, (trace, table) = trace.residuals.values, few
        life = trace.lifecycle
        for outcome in ("overprocessed", "resolved"):
            before, after, cosine = [], [], []
            for k in np.flatnonzero((life.outcome == outcome) & (life.landmarks.fjc != NEVER)):
                fjc = int(life.landmarks.fjc[k])
                layer = at if aligned == "layer" else fjc + at
                if not fjc < layer < LAYERS:
                    continue
                right, prompt = space.index(trace.items[k].answer), trace.items[k].prompt
                new = written(mode, h[k, layer], h[k, fjc])
                before.append(say(model, space, prompt) == right)
                after.append(say(model, space, prompt, layer, new) == right)
                cosine.append(torch.cosine_similarity(new, h[k, layer], dim=0).item())
            found = row(table, edit=mode, aligned=aligned, at=at, donor="own_earlier", outcome=outcome)
            assert found.n == len(before)
            assert (found.before, found.after) == pytest.approx((np.mean(before), np.mean(after)))
            assert found.cosine == pytest.approx(np.mean(cosine), abs=1e-5)
            assert found.nil == (np.mean(cosine) > 0.995)


class TestPlanted:
    def test_leaving_out_the_overwriting_layer_rescues_nearly_all(self, table):
        found = row(table, edit="replace", at=7, donor="own_earlier", outcome="overprocessed")
        assert found.before == 0 and found.after > 0.95 and found.low > 0.7
        assert found.p_adjusted < 1e-3

    def test_and_harms_none_that_were_right(self, table):
        found = row(table, edit="replace", aligned="layer", at=7, donor="own_earlier", outcome="resolved")
        assert found.before == 1 and found.net == 0

    def test_before_it_is_overwritten_there_is_nothing_to_rescue(self, table):
        found = row(table, edit="replace", at=5, donor="own_earlier", outcome="overprocessed")
        assert found.net == 0

    @pytest.mark.parametrize("donor", ["shuffled", "noise"])
    def test_placebos_rescue_few(self, table, donor):
        found = row(table, edit="replace", aligned="layer", at=7, donor=donor, outcome="overprocessed")
        assert found.control and found.net < 0.3


class TestNoise:
    def test_random_labels_are_rescued_no_more_often_than_by_placebos(self):
        truth = nothing(draw_truth(200, LAYERS, seed=3))
        model, _, trace = planted_trace(truth, hit=0.8)
        table = layer_skipping(model, trace, layers=(-3,), offsets=(), edits=(norm_match(),), progress=False)
        own = row(table, donor="own_earlier", outcome="overprocessed")
        stranger = row(table, donor="own_other_layer", outcome="overprocessed")
        assert own.low < stranger.high


class TestPlaces:
    def test_another_layer_lies_before_the_one_written_and_is_not_the_source(self):
        source = np.array([0, 0, 2, 5, NEVER, 3])
        layers = np.array([[1, 4], [2, NEVER], [3, 6], [6, 7], [4, 1], [4, 0]])
        seen = np.stack([other_layers(source, layers, seed) for seed in range(300)])
        assert (seen[:, 0, 0] == NEVER).all()  # layer 0 is the source, and there is no other before 1
        assert (seen[:, 1, 1] == NEVER).all() and (seen[:, 5, 1] == NEVER).all()
        for (sample, slot), expected in {
            (0, 1): {1, 2, 3},
            (2, 1): {0, 1, 3, 4, 5},
            (3, 0): {0, 1, 2, 3, 4},
            (4, 0): {0, 1, 2, 3},
        }.items():
            assert set(seen[:, sample, slot].tolist()) == expected

    def test_layers_count_from_either_end(self):
        assert layers_from_end((-4, 2, -1), 8).tolist() == [4, 2, 7]
        for wrong in ((-9,), (8,), (7, -1)):
            with pytest.raises(ValueError, match="each once"):
                layers_from_end(wrong, 8)

    def test_an_offset_leads_to_a_later_layer(self, case):
        model, _, trace = case
        with pytest.raises(ValueError, match="1 at least"):
            layer_skipping(model, trace, offsets=(0, 2), progress=False)

    def test_at_most_n_of_each_outcome_are_drawn(self):
        outcome = np.repeat(["resolved", "overprocessed", "unresolved"], [50, 5, 20])
        rows = draw_each(outcome, ("overprocessed", "resolved"), np.ones(75, dtype=bool), 10, seed=0)
        assert len(rows) == 15 and (np.diff(rows) > 0).all()
        assert set(outcome[rows]) == {"resolved", "overprocessed"}
        assert draw(outcome == "resolved", None, 0).tolist() == list(range(50))

    def test_no_such_sample_gives_no_rows(self, case):
        model, _, trace = case
        rows = np.flatnonzero(trace.lifecycle.outcome == "unresolved")
        assert layer_skipping(model, trace.select(rows), progress=False).empty

    def test_residuals_that_were_left_out_are_made_again(self, case, few):
        model, _, trace = case
        without, table = few
        there = dataclasses.replace(without, residuals=trace.residuals.select(range(20)))
        options = {"layers": (5, 7), "offsets": (3,), "least": 2, "progress": False}
        pd.testing.assert_frame_equal(layer_skipping(model, there, **options), table, atol=1e-5)
