"""A caller's own decoders: what they give stands in the trace as it is, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import brewlens as bl
from brewlens.decoding import logit_lens
from brewlens.figures import accuracy_table
from brewlens.study.pipeline import DECODERS, Decoded


def lens(inputs):
    return logit_lens(inputs.model, inputs.residuals, inputs.space)


def oracle(inputs):
    """Right at every layer from the second on; it has looked."""
    readout = lens(inputs)
    logits = np.zeros_like(readout.logits)
    logits[np.arange(len(readout)), 1:, readout.target_index(inputs.items.answers)] = 9
    return bl.Readout(logits, readout.classes, "whatever", readout.item_ids)


def deaf(inputs):
    rng = np.random.default_rng(0)
    shape = (len(inputs.items), inputs.residuals.n_layers, len(inputs.space.classes))
    return bl.Readout(rng.standard_normal(shape), inputs.space.classes, "deaf", inputs.items.ids)


def with_tables(inputs):
    table = pd.DataFrame({"fold": inputs.folds})
    first, second = (replace(lens(inputs), decoder=name) for name in ("first", "second"))
    return Decoded((first, second), {"of_mine": table})


@pytest.fixture(scope="module")
def items():
    return bl.tasks.generate("computing", n=54)


def trace(model, items, extra):
    return bl.trace(model, items, extra=extra, resamples=99, progress=False)


def test_own_decoders_stand_beside_the_others(tiny_model, items):
    found = trace(tiny_model, items, {"oracle": oracle, "deaf": deaf, "pair": with_tables})
    plain = trace(tiny_model, items, None)
    assert set(found.readouts) - set(plain.readouts) == {"oracle", "deaf", "first", "second"}
    assert found.readouts["oracle"].decoder == "oracle"
    right = {name: r.correct(items.answers) for name, r in found.readouts.items()}
    assert right["oracle"][:, 1:].all()
    assert right["deaf"].mean() < 0.2
    np.testing.assert_array_equal(found.readouts["second"].logits, plain.readouts["logit_lens"].logits)
    assert list(found.tables["of_mine"]["fold"]) == list(found.folds)
    # The rest of the trace does not change.
    pd.testing.assert_frame_equal(found.to_frame(), plain.to_frame())
    pd.testing.assert_frame_equal(found.tables["claims"], plain.tables["claims"])
    drawn = accuracy_table(found).set_index(["decoder", "layer"])["accuracy"]
    assert drawn["oracle", 2] == 1
    assert drawn["deaf", 2] == right["deaf"][:, 2].mean()


def changed(**fields):
    return lambda inputs: replace(lens(inputs), **fields)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"probe": lens}, f"'probe' is a decoder of brewlens, {', '.join(DECODERS)}"),
        ({"context_stripped_raw": lens}, "two decoders give a readout named 'context_stripped_raw'"),
        ({"a": with_tables, "b": with_tables}, "two decoders give a readout named 'first'"),
        ({"a": lambda inputs: Decoded((), {"calibration": pd.DataFrame()})}, "a table named 'calibration'"),
        ({"mine": lambda inputs: lens(inputs).select(range(9))}, "decoder 'mine' must give a number"),
        ({"mine": changed(classes=tuple("9876543210"))}, "the classes"),
        ({"mine": changed(logits=np.full((54, 4, 10), np.nan))}, "2160 NaN"),
        ({"mine": changed(logits=np.zeros((54, 3, 10)))}, "the 4 layers"),
    ],
)
def test_what_does_not_fit_is_refused(tiny_model, items, extra, message):
    with pytest.raises(ValueError, match=message):
        trace(tiny_model, items, extra)


def test_a_taken_name_is_refused_before_the_work(items):
    with pytest.raises(ValueError, match="'surface' is a decoder of brewlens"):
        trace(None, items, {"surface": lens})
