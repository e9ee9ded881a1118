"""Rescue policies: against plain hooks, found where they are planted, and never in noise."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from planted_trace import planted_trace, say

from brewlens.intervention.anchors import anchors
from brewlens.intervention.contest import Contest
from brewlens.intervention.edits import blend, noise, replace
from brewlens.intervention.policies import Applied, Policy, apply, candidates
from brewlens.intervention.rescue import COLUMNS, NO_EDIT, rescue
from brewlens.intervention.samples import gather
from brewlens.planted import draw_truth

LAYERS = 8


@pytest.fixture(scope="module")
def case():
    mix = {"resolved": 0.5, "overprocessed": 0.3, "unresolved": 0.2}
    return planted_trace(draw_truth(80, LAYERS, mix=mix, available=1, ready=3, lost=6, seed=5))


@pytest.fixture(scope="module")
def table(case):
    model, _, trace = case
    return rescue(model, trace, progress=False)


def row(table, outcome, oracle):
    found = table[(table.outcome == outcome) & (table.oracle == oracle)]
    assert len(found) == 1
    return found.iloc[0]


class TestApply:
    def test_every_policy_does_what_plain_hooks_do(self, case):
        model, space, trace = case
        rows, found = np.arange(16), anchors(trace).select(np.arange(16))
        samples = gather(model, trace, rows, trace.lifecycle.outcome)
        policies = [
            Policy(4, 7, replace()),
            Policy(0, 3, blend(0.5)),
            Policy("fpcl", 6, replace()),
            Policy("fjc", 7, replace()),
        ]
        done = apply(model, samples, found, policies)
        h, marks = trace.residuals.values, trace.lifecycle.landmarks
        for k in rows:
            prompt, right = trace.items[k].prompt, space.index(trace.items[k].answer)
            before = say(model, space, prompt) == right
            assert done.before[k] == before
            for number, policy in enumerate(policies):
                source = policy.source if isinstance(policy.source, int) else vars(marks)[policy.source][k]
                expected, cosine = before, 1.0
                if 0 <= source < policy.layer:
                    own, donor = h[k, policy.layer], h[k, source]
                    new = 0.5 * own + 0.5 * donor if policy.edit.name == "blend_0.5" else donor
                    expected = say(model, space, prompt, policy.layer, new) == right
                    cosine = float((new @ own) / (new.norm() * own.norm()))
                assert done.after[number, k] == expected
                assert done.cosine[number, k] == pytest.approx(cosine, abs=1e-5)

    def test_a_placebo_moves_as_far(self, case):
        model, _, trace = case
        samples = gather(model, trace, np.arange(10), trace.lifecycle.outcome)
        found = anchors(trace).select(np.arange(10))
        done = apply(model, samples, found, [Policy(2, 7, replace()), Policy(2, 7, noise(replace()))])
        np.testing.assert_allclose(done.change[0], done.change[1], rtol=1e-4)
        assert not np.allclose(done.cosine[0], done.cosine[1])

    def test_candidates_are_all_pairs_of_every_kth_layer(self):
        found = candidates(8, (replace(), blend(0.3)), every=3)
        layers = [0, 3, 6, 7]
        pairs = {(p.source, p.layer) for p in found if not p.oracle}
        assert pairs == {(a, b) for a in layers for b in layers if a < b}
        assert len(found) == 2 * (6 + 2 * 3)
        assert {p.layer for p in found if p.oracle} == {3, 6, 7}
        with pytest.raises(ValueError, match="found every=0"):
            candidates(8, every=0)


class TestChoice:
    def contest(self, seed=0, n=60):
        rng = np.random.default_rng(seed)
        policies = candidates(8, (replace(),))
        outcome = rng.choice(["resolved", "overprocessed", "unresolved"], n, p=[0.6, 0.3, 0.1])
        before = outcome == "resolved"
        after = rng.random((len(policies), n)) < 0.3 + 0.5 * before
        none = np.zeros(after.shape)
        weights = {"resolved": 0.8, "overprocessed": 0.15, "unresolved": 0.05}
        return Contest(policies, Applied(before, after, none, none), outcome, rng.integers(0, 2, n), weights)

    @pytest.mark.parametrize("outcome", ["overprocessed", "unresolved", "all"])
    @pytest.mark.parametrize("oracle", [False, True])
    def test_the_best_of_each_half_by_counting(self, outcome, oracle):
        contest = self.contest()
        choice = contest.choose(outcome, oracle)
        assert choice.candidates == (14 if oracle else 28)
        for half in (0, 1):
            scores = {}
            for number, policy in enumerate(contest.policies):
                if policy.oracle != oracle:
                    continue
                gains = {name: [] for name in contest.weights}
                for k in np.flatnonzero(contest.half == half):
                    moved = int(contest.tried.after[number, k]) - int(contest.tried.before[k])
                    gains[contest.outcome[k]].append(moved)
                net = sum(contest.weights[name] * np.mean(g) for name, g in gains.items())
                scores[policy] = (net, net) if outcome == "all" else (np.mean(gains[outcome]), net)
            best = max(scores, key=scores.__getitem__)
            if scores[best][0] > 0:
                assert choice.policies[half] is best
                assert choice.promised[half] == pytest.approx(scores[best][0])
            else:
                assert choice.policies[half] is None and choice.promised[half] == 0

    def test_the_best_of_many_promises_more_than_it_keeps(self):
        promised, kept = [], []
        for seed in range(40):
            contest = self.contest(seed)
            choice = contest.choose("overprocessed", False)
            promised.append(choice.chosen_on)
            for half in (0, 1):
                number = next(k for k, p in enumerate(contest.policies) if p is choice.policies[half])
                rows = (contest.half != half) & (contest.outcome == "overprocessed")
                kept.append(contest.tried.after[number, rows].mean())
        assert np.mean(promised) > 0.55
        assert np.mean(kept) == pytest.approx(0.3, abs=0.05)


class TestPlanted:
    def test_what_was_overwritten_is_rescued_by_the_ready_state(self, table):
        found = row(table, "overprocessed", False)
        assert found.repaired > 0.9 and found.repaired_low > 0.7
        assert int(found.source) in (3, 4, 5) and found.layer in (6, 7)
        assert found.chosen_on > 0.9
        assert found.broken == 0 and found.broken_high < 0.15

    def test_and_everyone_gains(self, table):
        for outcome in ("overprocessed", "all"):
            found = row(table, outcome, False)
            assert found.low > 0 and found.net_accuracy == pytest.approx(0.3, abs=0.05)

    def test_a_move_as_far_elsewhere_does_not(self, table):
        found = row(table, "overprocessed", False)
        assert found.placebo_high < found.repaired_low

    def test_an_oracle_reaches_the_right_answer_and_no_other(self, table):
        assert row(table, "overprocessed", True).repaired == pytest.approx(1, abs=0.1)
        found = row(table, "all", True)
        assert found.placebo == "another_answer" and found.placebo_high < found.repaired_low

    def test_where_nothing_helps_nothing_is_edited(self, table):
        for oracle in (False, True):
            found = row(table, "unresolved", oracle)
            if found.policy == NO_EDIT:
                zeros = ["repaired", "repaired_low", "repaired_high", "broken", "net_accuracy", "low", "high"]
                assert (found[zeros].astype(float) == 0).all() and pd.isna(found["mode"])
            else:
                assert found.repaired_low < 0.1

    def test_with_nothing_to_choose_nothing_is_done(self, case):
        model, _, trace = case
        rows = np.flatnonzero(trace.lifecycle.outcome == "unresolved")
        said = {trace.lifecycle.output[row] for row in rows}
        never = [row for row in rows.tolist() if trace.lifecycle.answers[row] not in said]
        table = rescue(model, trace.select(never), least=1, progress=False)
        assert set(table.policy) == {NO_EDIT} and table.layer.isna().all()
        assert (table.net_accuracy == 0).all() and np.isnan(table.broken).all()
        none = rescue(model, trace.select(never), least=1000, progress=False)
        assert none.empty and tuple(none.columns) == COLUMNS

    def test_the_weights_are_those_of_the_samples(self, table):
        assert set(table.n_all) == {80} and set(table.every) == {1}
        assert set(table[~table.oracle].candidates) == {4 * 28}
        assert set(table[table.oracle].candidates) == {4 * 14}


class TestNoise:
    @pytest.mark.parametrize("seed", [0, 1])
    def test_random_labels_are_never_rescued(self, seed):
        truth = draw_truth(150, LAYERS, seed=10 + seed)
        labels = [str(k) for k in np.random.default_rng(seed).integers(0, 10, len(truth))]
        model, _, trace = planted_trace(truth, answers=labels, hit=0.9, seed=seed)
        table = rescue(model, trace, seed=seed, progress=False)
        deployable = table[~table.oracle]
        assert len(deployable) >= 2
        assert (deployable.low <= 0).all()
        everyone = row(table, "all", False)
        assert everyone.chosen_on >= everyone.net_accuracy
        # A layer that is picked because its state gives the label gives any label: only its placebo tells.
        oracle = row(table, "all", True)
        assert oracle.low > 0
        assert oracle.placebo_low < oracle.repaired_high and oracle.repaired_low < oracle.placebo_high
