"""Transplants against plain forwards with hooks of their own, and against what is planted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from planted_trace import planted_trace

from brewlens import tasks
from brewlens.answers import DIGITS
from brewlens.decoding.readout import Readout
from brewlens.intervention.donors import Donor
from brewlens.intervention.effects import COLUMNS
from brewlens.intervention.transplant import INTO_RIGHT, INTO_TWIN, INTO_WRONG, arms, transplant, twin_of
from brewlens.lifecycle import lifecycle
from brewlens.planted import draw_truth
from brewlens.results import Trace

LAYERS, LOST = 8, 6


def traced(model, items):
    """A trace of readouts that know nothing; only items and outputs matter here."""
    space = model.answer_space(items.prompts)
    rng = np.random.default_rng(0)
    readouts = {
        name: Readout(rng.standard_normal((len(items), model.n_layers, 10)), DIGITS, name, items.ids)
        for name in ("probe", "context_stripped")
    }
    life = lifecycle(
        *readouts.values(),
        families=[item.family for item in items],
        answers=items.answers,
        output=model.answer_logits(items.prompts, space).predicted.numpy(),
        format_miss=np.zeros(len(items), dtype=bool),
    )
    return Trace(items, np.zeros(len(items), dtype=int), readouts, life, model.name)


def cell(table, edit, donor, measure, at, family="overall"):
    found = table[
        (table.edit == edit)
        & (table.donor == donor)
        & (table.measure == measure)
        & (table["at"] == at)
        & (table.family == family)
        & (table.outcome == "all")
    ]
    assert len(found) == 1
    return found.iloc[0]


@torch.no_grad()
def said(model, space, prompt, layer=None, donor=None):
    """What the model says, and with the MLP output of one layer of another prompt's run."""
    kept = []
    if layer is None:
        return int(model.run(model.batch(model.ids([prompt])), space).predicted[0])
    point = f"blocks.{layer}.hook_mlp_out"

    def keep(x, hook):
        kept.append(x[0, -1].clone())

    def write(x, hook):
        x = x.clone()
        x[0, -1] = kept[0]
        return x

    with model.hooks([(point, keep)]):
        said(model, space, donor)
    with model.hooks([(point, write)]):
        return said(model, space, prompt)


@pytest.fixture(scope="module")
def items():
    both = [tasks.generate(family, n=9, seed=2) for family in ("loop", "loop_unrolled")]
    partners = {k: v for items in both for k, v in items.partners.items()}
    return replace(both[0], items=tuple(item for items in both for item in items), partners=partners)


class TestNaive:
    def test_outputs_equal_plain_forwards(self, tiny_model, items):
        trace = traced(tiny_model, items)
        space = tiny_model.answer_space(items.prompts)
        table = transplant(tiny_model, trace, layers=[0, -1], least=1, progress=False)
        assert list(table.columns) == list(COLUMNS)
        assert set(table["at"]) == {0, tiny_model.n_layers - 1} and set(table.site) == {"mlp_out"}
        assert set(table.donor[~table.control]) == {"twin"}
        own = [said(tiny_model, space, item.prompt) for item in items]
        for layer in (0, tiny_model.n_layers - 1):
            new = [said(tiny_model, space, item.prompt, layer, twin_of(items, item).prompt) for item in items]
            right = np.array([space.classes[k] == item.answer for k, item in zip(new, items, strict=True)])
            kept = np.array(own) == np.array(new)
            found = cell(table, INTO_TWIN, "twin", "right", layer)
            assert found.after == pytest.approx(right.mean()) and found.n == len(items)
            assert cell(table, INTO_TWIN, "twin", "unchanged", layer).after == pytest.approx(kept.mean())
            assert not kept.all() or layer == 0

    def test_without_such_twins_there_is_no_row(self, tiny_model):
        items = tasks.generate("computing", n=5, seed=1)
        table = transplant(tiny_model, traced(tiny_model, items), progress=False)
        assert len(table) == 0 and list(table.columns) == list(COLUMNS)

    def test_a_layer_outside_is_refused(self, tiny_model, items):
        with pytest.raises(ValueError, match=r"layers run from 0 to 3.*\[9\]"):
            transplant(tiny_model, traced(tiny_model, items), layers=[9], progress=False)

    def test_seeds_decide_what_is_drawn(self, tiny_model, items):
        trace = traced(tiny_model, items)
        a, b, c = (
            transplant(tiny_model, trace, n=12, least=1, seed=seed, progress=False) for seed in (0, 0, 1)
        )
        pd.testing.assert_frame_equal(a, b)
        assert not a.after.equals(c.after)


class TestArms:
    def test_placebos_are_of_another_layer_and_another_pair(self):
        n, depth = 40, 5
        values = torch.arange(n * depth, dtype=torch.float32).reshape(n, depth, 1, 1)
        donor = Donor("twin", values, torch.arange(n), torch.zeros(n, dtype=torch.long))
        families = ["loop"] * 20 + ["loop_unrolled"] * 20
        slots = torch.tensor([4, 0, 2])
        found = {arm.donor: arm for arm in arms(donor, families, slots, seed=3)}
        assert [arm.control for arm in found.values()] == [False, True, True, True]
        elsewhere = found["other_layer"].source.source
        assert (elsewhere != slots).all() and (elsewhere >= 0).all() and (elsewhere < depth).all()
        assert len(elsewhere.unique()) == depth
        pairs = found["other_pair"].source.rows
        assert (pairs != torch.arange(n)).all()
        assert ((pairs < 20) == (torch.arange(n) < 20)).all()


@pytest.fixture(scope="module")
def pairs():
    truth = draw_truth(40, LAYERS, mix={"overprocessed": 1}, lost=LOST, seed=1)
    model, _, trace = planted_trace(truth)
    loops = [replace(item, family="loop") for item in trace.items]
    codes = [" ".join(w for w in i.code.split(" ") if not w.startswith("overwrite")) for i in loops]
    codes = [code if code.endswith("\n") else code + "\n" for code in codes]
    plain = [
        replace(item, id=item.id + "~unrolled", family="loop_unrolled", code=code, prompt=code + item.suffix)
        for item, code in zip(loops, codes, strict=True)
    ]
    loops = [replace(a, twins={"unrolled": b.id}) for a, b in zip(loops, plain, strict=True)]
    plain = [replace(b, twins={"loop": a.id}) for a, b in zip(loops, plain, strict=True)]
    items = replace(trace.items, items=(*loops, *plain))
    return model, traced(model, items)


class TestPlanted:
    """Overprocessed programs, and the same ones without the token that has their answer overwritten."""

    def test_the_mlp_that_overwrites_carries_the_wrong_answer_over(self, pairs):
        model, trace = pairs
        table = transplant(model, trace, progress=False)
        assert trace.lifecycle.output_correct.tolist() == [False] * 40 + [True] * 40
        for layer in range(LAYERS):
            hit = float(layer == LOST)
            carried = cell(table, INTO_TWIN, "twin", "follows", layer, "loop_unrolled")
            assert carried.net == pytest.approx(hit) and carried.n == 40
            spoiled = cell(table, INTO_RIGHT, "twin", "right", layer)
            assert spoiled.net == pytest.approx(-hit)
            assert (spoiled.p_adjusted < 0.001) == (layer == LOST)
            for placebo in ("other_layer", "noise"):
                assert abs(cell(table, INTO_RIGHT, placebo, "right", layer).net) < 0.3
        # Another pair's overwrites as well, by another wrong digit: it breaks, but is not followed.
        other = cell(table, INTO_TWIN, "other_pair", "follows", LOST, "loop_unrolled")
        assert abs(other.net) < 0.3
        assert cell(table, INTO_RIGHT, "other_pair", "right", LOST).net < -0.7

    def test_both_directions_are_told_apart(self, pairs):
        model, trace = pairs
        table = transplant(model, trace, layers=[LOST], progress=False)
        wrong, right = (cell(table, edit, "twin", "right", LOST) for edit in (INTO_WRONG, INTO_RIGHT))
        assert (wrong.before, wrong.n, right.before, right.n) == (0, 40, 1, 40)
        directions = table[table.edit.isin([INTO_WRONG, INTO_RIGHT])].groupby("family").edit.unique()
        assert directions["loop"].tolist() == [INTO_WRONG]
        assert directions["loop_unrolled"].tolist() == [INTO_RIGHT]
