"""Planted models whose use of the available answer is known: what an exchange does there, and where."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import pytest
import torch

from brewlens.intervention.causal_use import causal_use, judge
from brewlens.intervention.donors import Donor
from brewlens.intervention.edits import Subspace, noise, replace, swap_subspace
from brewlens.intervention.exchanges import exchanges
from brewlens.intervention.grid import Arm, run_grid
from brewlens.intervention.stretches import NoCases, find_cases
from brewlens.lifecycle.landmarks import NEVER
from brewlens.planted import KINDS, draw_truth, nothing, plant
from brewlens.planted.network import PRIOR
from brewlens.study.pipeline import trace

LAYERS = 8
EVERY = dict.fromkeys(KINDS, 1.0)
START, END = 1, 4  # of the brewing stretch, where all samples have the same


class Known:
    """A planted model, run one layer at a time with what its layout says the answer stands in.

    The naive way, beside which the grid is held: no edits, donors or subspaces, only ``inject``.
    """

    def __init__(self, planted):
        self.planted, self.truth, self.twins = planted, planted.truth, planted.twins.truth
        model, items = planted.model, planted.items
        self.items, self.available = items, planted.layout.available
        self.space = model.answer_space(items.prompts)
        passed = model.forward(items.prompts, self.space)
        self.own, self.output = passed.residuals, passed.output
        twins = [items.twin(item, "counterfactual").prompt for item in items]
        self.donor = model.forward(twins, self.space).residuals

    def logits(self, values, layer):
        """``[sample, class]`` with ``[sample, width]`` written at one layer."""
        said = self.planted.model.inject(values[:, None], self.items.prompts, self.space, layers=[layer])
        return said.logits[:, 0]

    def said(self, values, layer):
        return self.logits(values, layer).argmax(-1).numpy()

    def whole(self, layer):
        return self.donor[:, layer]

    def subspace(self, layer):
        values = self.own[:, layer].clone()
        values[:, self.available] = self.donor[:, layer, self.available]
        return values

    def erased(self, layer):
        values = self.own[:, layer].clone()
        values[:, self.available] = self.own[:, layer, self.available].mean(0)
        return values

    def between(self, start, end):
        """``[sample, layer]`` the layers from one landmark on and before another, which may be ``NEVER``."""
        layer = np.arange(LAYERS)
        until = np.where(end == NEVER, LAYERS, end)
        return (start[:, None] != NEVER) & (start[:, None] <= layer) & (layer < until[:, None])


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def silent(request):
    truth = draw_truth(120, LAYERS, mix=EVERY, seed=1)
    return Known(plant(truth, hit=1.0, architecture=request.param))


class TestExchange:
    """Without noise: what every sample says after each exchange, at every layer."""

    def test_the_subspace_is_followed_where_it_is_used_and_nowhere_else(self, silent):
        truth, twins = silent.truth, silent.twins
        brewing = silent.between(truth.available_from, truth.ready_from)
        for layer in range(LAYERS):
            said = silent.said(silent.subspace(layer), layer)
            resolved = truth.kind == "resolved"
            use = resolved & brewing[:, layer]
            np.testing.assert_array_equal(said[use], twins.answer[use])
            np.testing.assert_array_equal(said[~use], silent.output.predicted.numpy()[~use])
        assert brewing[truth.kind == "resolved"].any(0)[: LAYERS // 2].all()

    def test_the_whole_state_is_followed_from_availability_on_to_the_end(self, silent):
        truth, twins = silent.truth, silent.twins
        there = silent.between(truth.available_from, np.full(len(truth), NEVER))
        written = silent.between(truth.written, np.full(len(truth), NEVER))
        lost = silent.between(truth.ready_until, np.full(len(truth), NEVER))
        before = silent.output.predicted.numpy()
        for layer in range(LAYERS):
            said, kind = silent.said(silent.whole(layer), layer), truth.kind
            expected = before.copy()
            for follow, digit in (
                ((kind == "resolved") & there[:, layer], twins.answer),
                # The digit of a false friend was in no state before it was written.
                ((kind == "false_friend") & written[:, layer], twins.answer),
                ((kind == "misresolved") & written[:, layer], twins.wrong),
                # Overwriting outdoes what was ready, whosever it is.
                ((kind == "overprocessed") & lost[:, layer], twins.wrong),
            ):
                expected[follow] = digit[follow]
            np.testing.assert_array_equal(said, expected)

    def test_an_answer_that_is_used_and_then_overwritten_shows_in_the_logits_alone(self, silent):
        truth, twins = silent.truth, silent.twins
        rows = np.flatnonzero(truth.kind == "overprocessed")
        brewing = silent.between(truth.available_from, truth.ready_from)[rows]
        plain, moved = silent.output.logits.numpy()[rows], []
        for layer in range(LAYERS):
            logits = silent.logits(silent.subspace(layer), layer).numpy()[rows]
            np.testing.assert_array_equal(logits.argmax(-1), truth.wrong[rows])
            at = np.arange(len(rows))
            change = logits - plain
            moved.append((change[at, twins.answer[rows]] - change[at, truth.answer[rows]]) / 16)
        np.testing.assert_allclose(np.stack(moved, 1), brewing, atol=1e-5)

    def test_erasure_costs_the_answer_where_it_is_used(self, silent):
        truth = silent.truth
        brewing = silent.between(truth.available_from, truth.ready_from)
        right = silent.output.predicted.numpy() == truth.answer
        for layer in range(LAYERS):
            after = silent.said(silent.erased(layer), layer) == truth.answer
            used = (truth.kind == "resolved") & brewing[:, layer]
            assert right[used].all()
            if used.sum() >= 10:
                assert after[used].mean() <= 0.2
            others = ~used & np.isin(truth.kind, ("resolved", "false_friend"))
            np.testing.assert_array_equal(after[others], right[others])

    @pytest.mark.parametrize("hit", [0.95, 0.6])
    def test_with_noise_the_difference_of_the_two_scores_is_what_is_said_more(self, hit):
        truth = draw_truth(100, LAYERS, mix={"resolved": 1}, difficulty=0.3, seed=2)
        known = Known(plant(truth, hit=hit, correlation=0.3, seed=3))
        own, twins = known.planted.simulated.readouts, known.planted.twins.readouts
        for layer in range(LAYERS):
            exchanged = twins["probe"].logits[:, layer] - own["probe"].logits[:, layer]
            used = (layer < truth.ready_from)[:, None]
            np.testing.assert_allclose(
                known.logits(known.subspace(layer), layer) - PRIOR,
                own["context_stripped"].logits[:, -1] + np.where(used, exchanged, 0),
                atol=5e-4,
            )


class TestGrid:
    @pytest.fixture
    def exchange(self, silent):
        """The exchange of what is available, its donor, and how to run a grid."""
        basis = torch.eye(silent.own.shape[-1])[:, silent.available]
        subspace = Subspace.fixed("available", basis, LAYERS, len(silent.items))
        twins = silent.donor.unsqueeze(2)
        donor = Donor("twin", twins, torch.arange(len(twins)), torch.tensor(silent.twins.answer))

        def run(*arms):
            own = silent.own.unsqueeze(2)
            return run_grid(silent.planted.model, silent.items.prompts, own, arms, silent.space)

        return swap_subspace(subspace), donor, run

    def test_it_is_the_naive_exchange_at_every_layer(self, silent, exchange):
        swap, donor, run = exchange
        grid = run(Arm("whole", "twin", replace(), donor), Arm("available", "twin", swap, donor))
        for layer in range(LAYERS):
            for arm, values in ((1, silent.whole(layer)), (2, silent.subspace(layer))):
                expected = silent.logits(values, layer).numpy()
                np.testing.assert_allclose(grid.logits[arm, :, layer], expected, atol=5e-5)
        plain = silent.output.logits.numpy()[:, None]
        np.testing.assert_allclose(grid.logits[0], np.broadcast_to(plain, grid.logits[0].shape), atol=5e-5)

    def test_a_random_move_as_far_as_an_exchange_seldom_changes_what_is_said(self, silent, exchange):
        swap, donor, run = exchange
        grid = run(Arm("available", "noise", noise(swap, 0), donor, control=True))
        moved = (grid.change[1] > 0.5) & (silent.truth.says != NEVER)[:, None]
        assert moved.sum() > 100
        assert (grid.predicted[1] == grid.predicted[0])[moved].mean() > 0.9


class Traced:
    """A planted model and its trace; every sample has the brewing stretch START to END."""

    def __init__(self, kinds, n, *, hit=1.0, architecture="qwen2", seed=1):
        mix = dict.fromkeys(kinds, 1.0)
        truth = draw_truth(n, LAYERS, mix=mix, available=START, ready=END, seed=seed)
        self.planted = plant(truth, hit=hit, architecture=architecture, seed=seed)
        self.model = self.planted.model
        self.trace = trace(self.model, self.planted.items, resamples=99, progress=False)

    def use(self, **options):
        return causal_use(self.model, self.trace, learned=False, progress=False, **options)

    @cached_property
    def found(self):
        return self.use()

    @cached_property
    def in_available(self):
        """Causal use with the dimensions that the layout names in place of the probe's."""
        cases = find_cases(self.model, self.trace)
        samples, layout = cases.samples, self.planted.layout
        basis = torch.eye(layout.d_model)[:, layout.available]
        subspace = Subspace.fixed("available", basis, LAYERS, len(samples.items))
        mean = torch.as_tensor(self.trace.residuals.values).float().mean(0, keepdim=True)
        arms = exchanges(cases, {"probe_subspace": subspace}, mean)
        prompts = samples.items.prompts
        return judge(cases, run_grid(self.model, prompts, samples.own, arms, samples.space))


def effects(found, edit, aligned="stretch", measure="follows", control=False, outcome="all"):
    """Rows of the table of effects; of a treatment by depth, indexed by it."""
    table = found.effects
    rows = table[
        (table["edit"] == edit)
        & (table["aligned"] == aligned)
        & (table["measure"] == measure)
        & (table["control"] == control)
        & (table["outcome"] == outcome)
    ]
    return rows.set_index("donor" if aligned == "stretch" else "at")


def verdicts(found):
    return found.verdicts[found.verdicts["outcome"] == "all"].set_index("edit")


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def resolved(request):
    return Traced(["resolved"], 100, architecture=request.param)


@pytest.fixture(scope="module")
def friends():
    return Traced(["false_friend"], 120, hit=0.95)


@pytest.fixture(scope="module")
def mixed():
    return Traced(["resolved", "false_friend"], 160, hit=0.95, seed=3)


EDITS = ["whole", "probe_subspace", "erase"]


class TestCausalUse:
    def test_a_used_answer_is_used_from_where_it_is_available(self, resolved):
        found = verdicts(resolved.found)
        assert found["verdict"].to_dict() == dict.fromkeys(EDITS, "used")
        assert (found["used_from"] == START).all() and (found["used_from_fpcl"] == 0).all()
        assert (found.loc[EDITS[:2], "net"] >= 0.98).all() and found.loc["erase", "net"] <= -0.8
        assert (found["beyond_low"] > 0.7).all()

    def test_it_peaks_where_it_was_planted(self, resolved):
        found = resolved.in_available
        beside_start = effects(found, "probe_subspace", "fpcl")["net"]
        beside_end = effects(found, "probe_subspace", "fjc")["net"]
        assert (beside_start[beside_start.index < 0] == 0).all()
        assert (beside_end[beside_end.index < 0][-(END - START) :] == 1).all()
        assert (beside_end[beside_end.index >= 0] == 0).all()
        # The whole state carries what was copied, too.
        whole = effects(found, "whole", "fjc")["net"]
        assert (whole[whole.index >= -(END - START)] == 1).all()

    def test_erasure_costs_right_answers_and_no_placebo_does(self, resolved):
        for found in (resolved.found, resolved.in_available):
            right = effects(found, "erase", measure="right")
            assert (right["net"] <= -0.8).all()
            placebos = effects(found, "erase", measure="right", control=True)
            assert set(placebos.index) == {"same_answer", "noise", "random_subspace"}
            assert (placebos["net"].abs() <= 0.02).all()

    def test_no_placebo_is_followed(self, resolved, friends):
        for traced in (resolved, friends):
            for edit in EDITS[:2]:
                placebos = effects(traced.found, edit, control=True)
                assert set(placebos.index) == {"same_answer", "shuffled", "noise", "random_subspace"}
                assert (placebos["net"].abs() <= 0.05).all() and (placebos["low"] <= 0).all()
                if traced is resolved:  # of sixteen intervals of a noisy model, one may well not
                    assert (placebos["high"] >= 0).all()

    def test_an_answer_that_nothing_uses_is_not_used(self, friends):
        found = verdicts(friends.found)
        assert found["verdict"].to_dict() == dict.fromkeys(EDITS, "not used")
        assert (found["net"].abs() <= 0.03).all() and found["used_from"].isna().all()
        assert not found["nil"].any()

    def test_few_samples_cannot_tell(self, friends):
        found = verdicts(friends.use(n=12))
        assert (found["n"] <= 12).all()
        assert found["verdict"].to_dict() == dict.fromkeys(EDITS, "cannot tell")

    def test_nothing_is_found_where_nothing_is(self):
        truth = nothing(draw_truth(150, LAYERS, seed=5))
        planted = plant(truth, hit=0.8, seed=6)
        traced = trace(planted.model, planted.items, resamples=99, progress=False)
        with pytest.raises(NoCases, match="0 have a brewing stretch"):
            causal_use(planted.model, traced, learned=False, progress=False)
        found = causal_use(planted.model, traced, landmarks="first_hits", learned=False, progress=False)
        assert not (found.verdicts["verdict"] == "used").any()

    def test_half_that_use_it_are_half_of_the_effect(self, mixed):
        """The estimate is the truth: what the scores of a sample and its twin add up to, sample by sample."""
        found = mixed.in_available
        cases, truth = found.cases, mixed.planted.truth
        rows, donated = cases.samples.rows, cases.donated
        own, twins = mixed.planted.simulated.readouts, mixed.planted.twins.readouts
        followed = np.zeros((len(rows), LAYERS))
        for layer in range(LAYERS):
            exchanged = twins["probe"].logits[rows, layer] - own["probe"].logits[rows, layer]
            used = (truth.kind[rows] == "resolved") & (layer < truth.ready_from[rows])
            said = own["context_stripped"].logits[rows, -1] + np.where(used[:, None], exchanged, 0)
            followed[:, layer] = said.argmax(-1) == donated
        inside = cases.inside(found.grid)
        arm = found.grid.index("probe_subspace", "counterfactual")
        hits = found.grid.predicted[arm] == donated[:, None]
        np.testing.assert_array_equal(hits[inside], followed[inside] > 0)
        per_sample = (followed * inside).sum(1)[inside.any(1)] / inside.sum(1)[inside.any(1)]
        row = effects(found, "probe_subspace").loc["counterfactual"]
        assert row["net"] == pytest.approx(per_sample.mean(), abs=0.03)  # less what goes astray
        assert row["low"] <= per_sample.mean() <= row["high"] and 0.3 < row["net"] < 0.55
        assert verdicts(found).loc["probe_subspace", "verdict"] == "used"

    def test_what_is_overwritten_shows_in_the_logits_alone(self):
        found = Traced(["overprocessed"], 80).found
        for edit in EDITS[:2]:
            assert effects(found, edit).loc["counterfactual", "net"] == 0
            moved = effects(found, edit, measure="logit_difference").loc["counterfactual"]
            assert moved["net"] == pytest.approx(1, abs=0.05)
        assert "used" not in set(found.verdicts["verdict"])
