"""Planted transformers do what their truth says: exactly without noise, at the asked rates with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import brewlens as bl
from brewlens.answers import DIGITS
from brewlens.batching import Batch
from brewlens.decoding import FitOptions, context_stripped, fit_probes, own_suffixes, surface
from brewlens.lifecycle.landmarks import NEVER, first_hit
from brewlens.loading import load_model
from brewlens.planted import MIX, distance, draw_truth, nothing, plant
from brewlens.planted.network import Layout, config
from brewlens.residuals import Residuals
from brewlens.tasks import ItemSet, assign_folds
from brewlens.tasks.folds import LeakageError, check_leakage, groups
from brewlens.tasks.sources import read_items

KINDS = {**MIX, "false_friend": 0.15}
LAYERS = 8


class Read:
    """A planted model and what is measured on it."""

    def __init__(self, planted, items=None):
        self.planted, self.truth, self.layout = planted, planted.truth, planted.layout
        self.items = planted.items if items is None else items
        model = planted.model
        self.space = model.answer_space(self.items.prompts)
        passed = model.forward(self.items.prompts, self.space)
        self.output = passed.output
        self.residuals = Residuals.of(passed.residuals, self.items.ids, passed.tokens, model.name)
        self.h = passed.residuals.numpy()
        self.subtracted, self.raw = context_stripped(
            model, self.residuals, own_suffixes(self.items), self.space
        )

    @property
    def available(self):
        return self.h[..., self.layout.available]

    def probe(self):
        fold = assign_folds(self.items, 5, 0)
        return fit_probes(self.residuals, self.items, fold, DIGITS, options=FitOptions(C=1.0)).readout


def twins_of(items):
    return ItemSet(tuple(items.twin(item, "counterfactual") for item in items))


def as_items(planted):
    """The same model with its twins in place of its items."""
    return replace(planted, items=twins_of(planted.items), truth=planted.twins.truth, simulated=planted.twins)


def since(onset, n_layers):
    return (onset[:, None] != NEVER) & (np.arange(n_layers) >= onset[:, None])


def near(count, n, share, level=1e-3):
    """Whether a count is what draws at this share give."""
    return binomtest(int(count), int(n), share).pvalue > level


@pytest.fixture(scope="module", params=["qwen2", "llama"])
def silent(request):
    truth = draw_truth(160, LAYERS, mix=KINDS, seed=1)
    return Read(plant(truth, hit=1.0, architecture=request.param))


@pytest.fixture(scope="module")
def noisy():
    truth = draw_truth(200, LAYERS, mix=KINDS, difficulty=0.2, seed=2)
    return Read(plant(truth, hit=0.8, correlation=0.5, seed=3))


@pytest.fixture(scope="module")
def empty():
    return Read(plant(nothing(draw_truth(200, LAYERS, seed=4)), hit=0.8, seed=5))


class TestTruth:
    def test_first_layers_are_those_of_the_truth_in_every_sample(self, silent):
        truth, answers = silent.truth, silent.items.answers
        rows = np.arange(len(truth))
        np.testing.assert_array_equal(
            first_hit(silent.available[rows, :, truth.answer] > 0.5), truth.available_from
        )
        ready = silent.raw.p_answer(answers) > 0.5
        np.testing.assert_array_equal(first_hit(ready), truth.ready_from)
        expected = since(truth.ready_from, LAYERS) & ~since(truth.ready_until, LAYERS)
        np.testing.assert_array_equal(ready, expected)
        np.testing.assert_array_equal(silent.subtracted.p_answer(answers) > 0.5, expected)

    def test_the_model_says_what_the_truth_says(self, silent):
        truth, output = silent.truth, silent.output
        knows = truth.says != NEVER
        np.testing.assert_array_equal(output.predicted.numpy()[knows], truth.says[knows])
        assert output.logits[~knows].std(dim=-1).max() == 0
        assert output.other_mass.max() < 1e-6
        assert set(output.top_id.tolist()) <= set(silent.space.token_ids)

    def test_a_trained_probe_finds_available_answers_and_only_those(self, silent):
        p_answer = silent.probe().p_answer(silent.items.answers)
        available = since(silent.truth.available_from, LAYERS)
        common = available.sum(axis=0) > 60  # a probe learns from those it is given
        assert (p_answer > 0.5)[:, common][available[:, common]].mean() > 0.97
        assert (p_answer > 0.5)[:, common][~available[:, common]].mean() < 0.02

    def test_nothing_else_differs_between_samples(self, silent, noisy):
        for read in (silent, noisy):
            layout = read.layout
            rest = np.ones(layout.d_model, dtype=bool)
            rest[layout.available] = rest[layout.readout] = False
            assert np.ptp(read.h[..., rest], axis=(0, 1)).max() == 0

    def test_text_gives_nothing_away(self, noisy):
        hits = surface(noisy.items, assign_folds(noisy.items, 5, 0)).correct(noisy.items.answers)
        assert near(hits.sum(), len(noisy.items), 0.1)


class TestNoise:
    def test_readouts_are_the_simulated_ones(self, noisy):
        simulated = noisy.planted.simulated
        np.testing.assert_allclose(8 * noisy.available, simulated.readouts["probe"].logits, atol=1e-4, rtol=0)
        np.testing.assert_allclose(
            noisy.subtracted.logits, simulated.readouts["context_stripped"].logits, atol=1e-4, rtol=0
        )
        np.testing.assert_array_equal(noisy.output.predicted.numpy(), simulated.output)

    @pytest.mark.parametrize("hit", [0.95, 0.6])
    def test_hits_after_the_onset_and_guesses_before_it(self, hit):
        read = Read(plant(draw_truth(200, LAYERS, mix=KINDS, seed=6), hit=hit, seed=7))
        truth, answers = read.truth, np.array([DIGITS.index(a) for a in read.items.answers])
        ready = since(truth.ready_from, LAYERS) & ~since(truth.ready_until, LAYERS)
        available, right = since(truth.available_from, LAYERS), read.subtracted.correct(read.items.answers)
        found = read.available.argmax(axis=-1) == answers[:, None]
        early = slice(0, -1)  # what the model says in the end has no noise
        spoken = since(truth.written, LAYERS)
        for correct, there, absent in (
            (right, ready, ~spoken),
            (found, available, ~available),
        ):
            here, before = there[:, early], absent[:, early]
            assert near(correct[:, early][here].sum(), here.sum(), hit)
            assert near(correct[:, early][before].sum(), before.sum(), 0.1)

    def test_neighbouring_layers_are_correlated_as_asked(self, noisy, empty):
        for read, asked in ((noisy, 0.5), (empty, 0.0)):
            truth, rows = read.truth, np.arange(len(read.truth))
            noise = read.available.copy()
            noise[rows, :, truth.answer] -= since(truth.available_from, LAYERS)
            noise /= truth.difficulty[:, None, None]
            pairs = np.corrcoef(noise[:, 1:].ravel(), noise[:, :-1].ravel())[0, 1]
            assert abs(pairs - asked) < 0.03
            assert abs(np.corrcoef(noise[:, 2:].ravel(), noise[:, :-2].ravel())[0, 1] - asked**2) < 0.03

    def test_a_probe_finds_nothing_where_nothing_is(self, empty):
        answers = empty.items.answers
        for readout in (empty.probe(), empty.subtracted):
            assert near(readout.correct(answers).sum(), len(answers) * LAYERS, 0.1)

    def test_difficulty_is_the_height_of_a_samples_noise(self, noisy):
        truth, rows = noisy.truth, np.arange(len(noisy.truth))
        noise = noisy.available.copy()
        noise[rows, :, truth.answer] -= since(truth.available_from, LAYERS)
        height = noise.std(axis=(1, 2)) / truth.difficulty
        assert np.corrcoef(noise.std(axis=(1, 2)), truth.difficulty)[0, 1] > 0.8
        assert height.mean() == pytest.approx(1 / distance(0.8), rel=0.03)

    def test_readiness_alone_can_be_noisy(self):
        truth = draw_truth(40, LAYERS, mix={"resolved": 1}, seed=9)
        read = Read(plant(truth, hit=0.6, probe_hit=1.0))
        assert np.unique(read.available).tolist() == [0, 1]
        assert read.h[:, 0, read.layout.readout].std() > 0.3


class TestTwins:
    def test_a_twin_is_the_same_with_other_digits(self, noisy):
        items, truth, twins = noisy.items, noisy.truth, noisy.planted.twins
        for row, item in enumerate(items):
            twin = items.twin(item, "counterfactual")
            assert twin.id == twins.readouts["probe"].item_ids[row] and twin.id not in items.ids
            assert (twin.answer, twin.family) == (twins.answers[row], item.family)
        for name in ("kind", "available_from", "ready_from", "ready_until", "written", "difficulty"):
            np.testing.assert_array_equal(getattr(twins.truth, name), getattr(truth, name))
        digits = np.stack([truth.answer, truth.wrong, twins.truth.answer, twins.truth.wrong])
        assert (np.diff(np.sort(digits, axis=0), axis=0) > 0).all()
        lengths = [list(map(len, noisy.planted.model.ids(each.prompts))) for each in (items, twins_of(items))]
        assert lengths[0] == lengths[1]

    def test_every_other_digit_is_as_likely(self):
        truth = replace(draw_truth(9000, LAYERS), answer=np.full(9000, 3), wrong=np.full(9000, 7))
        for digits in (truth.counterfactual(1).answer, truth.counterfactual(1).wrong):
            counts = np.bincount(digits, minlength=10)
            assert counts[[3, 7]].sum() == 0 and all(near(c, 9000, 1 / 8) for c in np.delete(counts, [3, 7]))

    def test_a_twin_has_the_lifecycle_of_its_own_truth(self, silent):
        read = Read(as_items(silent.planted))
        truth, answers = read.truth, read.items.answers
        np.testing.assert_array_equal(
            first_hit(read.available[np.arange(len(truth)), :, truth.answer] > 0.5), truth.available_from
        )
        np.testing.assert_array_equal(first_hit(read.raw.p_answer(answers) > 0.5), truth.ready_from)
        said, knows = read.output.predicted.numpy(), truth.says != NEVER
        np.testing.assert_array_equal(said[knows], truth.says[knows])
        assert (said != silent.output.predicted.numpy())[knows].all()

    def test_its_readouts_are_the_simulated_ones_and_its_noise_is_its_own(self, noisy):
        read = Read(as_items(noisy.planted))
        simulated = noisy.planted.twins
        np.testing.assert_allclose(8 * read.available, simulated.readouts["probe"].logits, atol=1e-4, rtol=0)
        np.testing.assert_allclose(
            read.subtracted.logits, simulated.readouts["context_stripped"].logits, atol=1e-4, rtol=0
        )
        noise = []
        for one in (noisy, read):
            own = one.available.copy()
            own[np.arange(len(own)), :, one.truth.answer] -= since(one.truth.available_from, LAYERS)
            noise.append(own.ravel())
        assert abs(np.corrcoef(noise)[0, 1]) < 0.03

    def test_a_twin_stays_in_the_fold_of_its_item_and_moves_no_other(self, noisy):
        items = noisy.items
        alone = ItemSet(tuple(replace(item, twins={}) for item in items))
        np.testing.assert_array_equal(assign_folds(items, 5, 0), assign_folds(alone, 5, 0))
        assert len(set(groups(items).tolist())) == len(items)
        twin = items.twin(items[0], "counterfactual")
        with pytest.raises(LeakageError):
            check_leakage([items[0]], [twin], items)
        check_leakage([items[1]], [twin], items)

    def test_text_gives_nothing_of_a_twin_away(self, noisy):
        twins = twins_of(noisy.items)
        hits = surface(twins, assign_folds(twins, 5, 0)).correct(twins.answers)
        assert near(hits.sum(), len(twins), 0.1)

    def test_tokens_are_taken_out_of_twins_too(self, silent):
        items = silent.planted.without("ready", "write")
        said = Read(silent.planted, twins_of(items)).output.logits
        assert not any(" ready" in p or " write" in p for p in twins_of(items).prompts)
        assert said[silent.truth.kind == "resolved"].std(dim=-1).max() == 0


class TestContext:
    def test_without_its_token_an_answer_is_not_ready(self, silent):
        read, truth = Read(silent.planted, silent.planted.without("ready")), silent.truth
        resolved = truth.kind == "resolved"
        assert not read.h[resolved][..., read.layout.readout].any()
        np.testing.assert_array_equal(read.available, silent.available)
        wrote = truth.kind == "false_friend"
        np.testing.assert_array_equal(read.output.logits[wrote], silent.output.logits[wrote])
        assert read.output.logits[resolved].std(dim=-1).max() == 0

    def test_without_its_token_an_answer_is_not_available(self, silent):
        read, truth = Read(silent.planted, silent.planted.without("available")), silent.truth
        assert not read.available.any()
        assert not read.h[truth.kind == "resolved"][..., read.layout.readout].any()

    def test_an_unknown_event_is_refused(self, silent):
        with pytest.raises(ValueError, match="unknown events"):
            silent.planted.without("reddy")

    def test_with_noise_too_readiness_comes_by_the_token(self, noisy):
        read, used = Read(noisy.planted, noisy.planted.without("ready")), noisy.truth.kind == "resolved"
        right = read.output.predicted.numpy() == noisy.truth.answer
        assert near(right[used].sum(), used.sum(), 0.1)


class TestUse:
    """The available answer of one sample, put into another in its own prompt."""

    def patched(self, read, rows, layer):
        """What the model says with the available answer of a donor of the next digit, and that digit."""
        truth, where = read.truth, read.layout.available
        there = truth.available_from != NEVER
        donor = [np.flatnonzero(there & (truth.answer == (a + 1) % 10))[0] for a in truth.answer[rows]]
        values = torch.tensor(read.h[rows, layer])
        # As it is at the last layer, where all that ever becomes available is.
        values[:, where] = torch.tensor(read.h[donor, -1, where])
        prompts = [read.items[row].prompt for row in rows]
        said = read.planted.model.inject(values[:, None], prompts, read.space, layers=[layer])
        return said.predicted[:, 0].numpy(), truth.answer[donor]

    def test_resolved_samples_use_it_between_onset_and_readiness_and_false_friends_never(self, silent):
        truth = silent.truth
        resolved = np.flatnonzero(truth.kind == "resolved")[:30]
        friends = np.flatnonzero(truth.kind == "false_friend")[:10]
        for layer in range(0, LAYERS, 2):
            said, donated = self.patched(silent, np.concatenate([resolved, friends]), layer)
            said, said_by_friends, donated = (
                said[: len(resolved)],
                said[len(resolved) :],
                donated[: len(resolved)],
            )
            use = (truth.available_from[resolved] <= layer) & (layer < truth.ready_from[resolved])
            after = layer >= truth.ready_from[resolved]
            assert use.any() or layer > 4
            np.testing.assert_array_equal(said[use], donated[use])
            np.testing.assert_array_equal(said[after], truth.answer[resolved][after])
            np.testing.assert_array_equal(said_by_friends, truth.answer[friends])

    def test_with_noise_most_of_them_do(self):
        mix = {"resolved": 0.5, "false_friend": 0.5}
        truth = draw_truth(100, LAYERS, mix=mix, available=1, ready=4, seed=1)
        read = Read(plant(truth, hit=0.95))
        said, donated = self.patched(read, np.arange(100), 2)
        resolved = truth.kind == "resolved"
        assert (said == donated)[resolved].mean() > 0.6
        assert (said == truth.answer)[~resolved].all()

    def test_the_mlp_overwrites(self, silent):
        truth, model, layout = silent.truth, silent.planted.model, silent.layout
        ids = model.ids(silent.items.prompts)
        taps = {"attn_out": np.empty_like(silent.h), "mlp_out": np.empty_like(silent.h)}
        for swept in model.sweep(ids, taps=tuple(taps)):
            for name, values in taps.items():
                values[np.asarray(swept.rows)] = swept.taps[name].numpy()
        rows = np.flatnonzero(truth.ready_until != NEVER)
        layers, wrong = truth.ready_until[rows], truth.wrong[rows]
        written = {name: values[..., layout.readout][rows, layers, wrong] for name, values in taps.items()}
        assert (written["mlp_out"] == 2).all() and not written["attn_out"].any()


class TestFolder:
    def test_saved_and_loaded_it_is_the_same(self, silent, tmp_path):
        folder = silent.planted.save(tmp_path / "model")
        model, items = load_model(folder), read_items(folder / "items.jsonl")
        assert (items.prompts, items.answers, items.ids) == (
            silent.items.prompts,
            silent.items.answers,
            silent.items.ids,
        )
        assert [i.skeleton for i in items] == [i.skeleton for i in silent.items]
        assert model.weights_hash == silent.planted.model.weights_hash
        again = model.answer_logits(items.prompts, silent.space)
        assert torch.equal(again.logits, silent.output.logits)
        import pandas as pd

        truth = pd.read_csv(folder / "truth.csv", index_col="id")
        found = truth["available_from"].fillna(NEVER).astype(int)
        np.testing.assert_array_equal(found, silent.truth.available_from)

    def test_twins_are_saved_beside_their_items(self, silent, tmp_path):
        import pandas as pd

        folder = silent.planted.save(tmp_path)
        twins, expected = read_items(folder / "twins.jsonl"), twins_of(silent.items)
        assert (twins.ids, twins.prompts, twins.answers) == (
            tuple(f"{name}~counterfactual" for name in silent.items.ids),
            expected.prompts,
            expected.answers,
        )
        truth = pd.read_csv(folder / "twins.csv", index_col="id", dtype={"answer": str})
        assert tuple(truth.index) == twins.ids and tuple(truth["answer"]) == twins.answers
        assert not any(item.twins for item in read_items(folder / "items.jsonl"))
        said = load_model(folder).answer_logits(twins.prompts, silent.space)
        assert torch.equal(said.logits, Read(as_items(silent.planted)).output.logits)

    def test_hugging_face_says_the_same(self, silent, tmp_path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = silent.planted.save(tmp_path)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        network = AutoModelForCausalLM.from_pretrained(folder).eval()
        batch = Batch.of([tokenizer(prompt)["input_ids"] for prompt in silent.items.prompts])
        with torch.no_grad():
            logits = batch.gather(network(batch.tokens).logits)[:, list(silent.space.token_ids)]
        torch.testing.assert_close(logits, silent.output.logits, atol=1e-5, rtol=0)

    def test_bfloat16_says_the_same(self, noisy, tmp_path):
        model = load_model(noisy.planted.save(tmp_path), dtype="bfloat16")
        said = model.answer_logits(noisy.items.prompts, noisy.space).predicted.numpy()
        knows = noisy.truth.says != NEVER
        assert (said == noisy.truth.says)[knows].mean() > 0.95

    def test_global_random_state_is_left_alone(self):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        plant(draw_truth(10, LAYERS, seed=0), hit=0.8)
        assert torch.equal(before[0], torch.get_rng_state())
        assert (before[1] == np.random.get_state()[1]).all()  # noqa: NPY002


class TestTrace:
    def test_a_planted_model_is_traced_like_any_model(self, noisy):
        trace = bl.trace(noisy.planted.model, noisy.items, progress=False)
        np.testing.assert_array_equal(
            trace.readouts["context_stripped"].predicted, noisy.subtracted.predicted
        )
        assert trace.lifecycle.output == tuple(DIGITS[k] for k in noisy.output.predicted)
        available = since(noisy.truth.available_from, LAYERS)
        right = trace.readouts["probe"].correct(noisy.items.answers)
        assert right[available].mean() > 0.5 and right[~available].mean() < 0.15


class TestRefusals:
    def test_an_answer_that_is_ready_before_it_is_available(self):
        truth = draw_truth(10, LAYERS, mix={"resolved": 1}, available=2, ready=4)
        for early in ({"ready_from": np.full(10, 1)}, {"available_from": np.full(10, NEVER)}):
            with pytest.raises(ValueError, match="10 samples are ready before"):
                plant(replace(truth, **early))

    def test_available_and_ready_in_one_block_is_none(self):
        truth = draw_truth(10, LAYERS, mix={"resolved": 1}, available=2, ready=4)
        read = Read(plant(replace(truth, ready_from=truth.available_from), hit=1.0))
        right = read.raw.p_answer(read.items.answers) > 0.5
        assert not right[:, :2].any() and right[:, 2:].all()

    def test_programs_are_not_the_same_even_where_nothing_is_planted(self):
        items = plant(nothing(draw_truth(10, LAYERS, seed=0)), hit=1.0).items
        assert len({item.skeleton for item in items}) == 10

    def test_noise_that_the_model_cannot_carry(self):
        truth = draw_truth(10, LAYERS, seed=0)
        with pytest.raises(ValueError, match="carries noise up to 32"):
            plant(replace(truth, difficulty=np.full(10, 100.0)))

    @pytest.mark.unchecked("an architecture that there is not")
    def test_an_unknown_architecture(self):
        with pytest.raises(ValueError, match="there are qwen2, llama"):
            config("gpt5", Layout(8), 300)  # type: ignore[arg-type]

    @pytest.mark.parametrize("n_layers", [6, 12, 28, 48])
    def test_a_layout_holds_everything_once(self, n_layers):
        layout = Layout(n_layers)
        assert layout.used <= layout.d_model < layout.used + 24 and layout.head_dim % 2 == 0
