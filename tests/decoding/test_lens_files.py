"""Lenses as files: what is written comes back, the published format finds its layers, damage is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from lenses import PROMPT, by_hand, made, noise, planted, random_lens

from brewlens import load_model
from brewlens.decoding.lens_files import CONFIG, PUBLISHED_TENSORS, TENSORS, load_published, published_hash
from brewlens.decoding.lens_training import train_tuned_lens
from brewlens.decoding.tuned_lens import TunedLens, tuned_lens, unembedding_hash

TOLERANCE = 5e-5


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    """The same shape, other weights."""
    return load_model(tiny.build("qwen2", tmp_path_factory.mktemp("other") / "m", seed=1), device="cpu")


# Those of brewlens


def test_a_lens_comes_back_bit_for_bit(tiny_model, tmp_path):
    residuals = made(tiny_model, planted(tiny_model, 60))
    for lens in (train_tuned_lens(tiny_model, residuals, steps=5, batch=16), random_lens(tiny_model)):
        folder = lens.save(tmp_path / "deep" / "lens")  # the second replaces the first
        again = TunedLens.load(folder)
        assert torch.equal(again.weight, lens.weight) and torch.equal(again.bias, lens.bias)
        assert (again.model, again.unembedding_hash, again.source, again.training, again.key) == (
            lens.model,
            lens.unembedding_hash,
            lens.source,
            lens.training,
            lens.key,
        )
        assert sorted(p.name for p in folder.iterdir()) == [CONFIG, TENSORS]
        again.check(tiny_model)


def edited(folder, **changes):
    config = json.loads((folder / CONFIG).read_text())
    config.update(changes)
    (folder / CONFIG).write_text(json.dumps(config))


def test_foreign_and_damaged_folders_are_refused(tiny_model, tmp_path):
    lens = random_lens(tiny_model)
    with pytest.raises(ValueError, match=rf"asked for a tuned lens in .*none.*, found no {CONFIG}"):
        TunedLens.load(tmp_path / "none")

    folder = lens.save(tmp_path / "flipped")
    content = bytearray((folder / TENSORS).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / TENSORS).write_bytes(content)
    with pytest.raises(ValueError, match="not the file whose hash"):
        TunedLens.load(folder)
    (folder / TENSORS).unlink()
    with pytest.raises(ValueError, match="is missing"):
        TunedLens.load(folder)

    folder = lens.save(tmp_path / "newer")
    edited(folder, format=2)
    with pytest.raises(ValueError, match="format 2, this version of brewlens reads 1"):
        TunedLens.load(folder)

    for name, changes in {"training": {"training": {"steps": 3}}, "list": {"training": [1]}}.items():
        folder = lens.save(tmp_path / name)
        edited(folder, **changes)
        with pytest.raises(ValueError, match=r"damaged.*train the lens again"):
            TunedLens.load(folder)

    for name, text in {"half": '{"kind": "brewl', "number": "3"}.items():
        folder = lens.save(tmp_path / name)
        (folder / CONFIG).write_text(text)
        with pytest.raises(ValueError, match=r"damaged|JSON object"):
            TunedLens.load(folder)

    (tmp_path / "model").mkdir()
    (tmp_path / "model" / CONFIG).write_text('{"model_type": "qwen2"}')
    with pytest.raises(ValueError, match=r"another kind of .*TunedLens\.save"):
        TunedLens.load(tmp_path / "model")


@pytest.mark.unchecked("a stand-in for a model")
def test_the_hash_is_of_the_unembedding_and_not_of_its_type(tiny_model, tiny_folders, other_model):
    assert unembedding_hash(tiny_model) == unembedding_hash(load_model(tiny_folders["qwen2"], device="cpu"))
    assert unembedding_hash(tiny_model) != unembedding_hash(other_model)
    rounded, widened = FakeModel(tiny_model.unembedding.bfloat16()), FakeModel(tiny_model.unembedding)
    widened.unembedding = rounded.unembedding.float()
    assert unembedding_hash(rounded) == unembedding_hash(widened) != unembedding_hash(tiny_model)
    assert unembedding_hash(FakeModel(tiny_model.unembedding.reshape(-1, 7))) != unembedding_hash(tiny_model)


class FakeModel:
    def __init__(self, unembedding):
        self.unembedding = unembedding


# The published format


def published(model, folder, seed=0, **changes):
    """A folder as the ``tuned-lens`` package writes it: one translator for the *input* of each block."""
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(seed)
    translators = torch.nn.ModuleList(
        torch.nn.Linear(model.d_model, model.d_model) for _ in range(model.n_layers)
    )
    with torch.no_grad():
        for parameter in translators.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    config = {
        "base_model_name_or_path": model.name,
        "d_model": model.d_model,
        "num_hidden_layers": model.n_layers,
        "bias": True,
        "base_model_revision": None,
        "unembed_hash": published_hash(model),
        "lens_type": "linear_tuned_lens",
    }
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))
    torch.save(translators.state_dict(), folder / PUBLISHED_TENSORS)
    return translators


def test_a_published_translator_reads_the_input_of_its_block(any_model, tmp_path):
    """``hidden_states[k]`` of the network goes through translator k, as in the package that wrote it."""
    model = any_model
    translators = published(model, tmp_path / "lens")
    lens = load_published(tmp_path / "lens", model)
    space = model.answer_space([PROMPT])
    residuals = made(model, model.last_residuals([PROMPT])[0])
    readout = tuned_lens(model, residuals, lens, space)
    ids = torch.tensor([model.token_ids(PROMPT)])
    with torch.no_grad():
        states = model.bridge.original_model(ids, output_hidden_states=True).hidden_states
        for k in range(1, model.n_layers):
            h = states[k][0, ids.shape[1] - 1][None]
            expected = by_hand(model, h + translators[k](h))[0]
            np.testing.assert_allclose(
                readout.logits[0, k - 1], expected[list(space.token_ids)], atol=TOLERANCE, rtol=TOLERANCE
            )
    last = model.n_layers - 1
    np.testing.assert_array_equal(
        readout.logits[0, last], model.read_out(residuals.values[:, last], space).logits[0]
    )
    assert lens.training is None and lens.source == "tuned-lens format, lens"
    again = TunedLens.load(lens.save(tmp_path / "ours"))
    assert torch.equal(again.weight, lens.weight) and again.source == lens.source
    again.check(model)


def test_the_published_hash_is_of_the_printed_matrix(tiny_model, other_model):
    matrix = tiny_model.unembedding.detach().numpy()
    expected = hashlib.sha256(str.encode(np.array_str(matrix, precision=1))).hexdigest()
    assert published_hash(tiny_model) == expected != published_hash(other_model)
    with np.printoptions(edgeitems=1, threshold=5, linewidth=30, suppress=True, floatmode="fixed", sign="+"):
        assert published_hash(tiny_model) == expected


def test_a_published_lens_of_another_model_needs_permission_twice(tiny_model, other_model, tmp_path):
    published(tiny_model, tmp_path / "lens")
    published(tiny_model, tmp_path / "bare", unembed_hash=None)
    residuals = made(other_model, noise(other_model, 2))
    space = other_model.answer_space([PROMPT])
    theirs = published_hash(tiny_model)
    for name, model, found in (("lens", other_model, theirs), ("bare", tiny_model, "no hash")):
        with pytest.raises(ValueError, match=rf"asked for a lens of .*found {found}.*allow_other_model"):
            load_published(tmp_path / name, model)
        lens = load_published(tmp_path / name, model, allow_other_model=True)
        with pytest.raises(ValueError, match="allow_other_model"):
            tuned_lens(model, residuals, lens, space)
        assert np.isfinite(tuned_lens(model, residuals, lens, space, allow_other_model=True).logits).all()


class Code:
    """Asks whoever unpickles it to run a function."""

    def __reduce__(self):
        return (print, ("this must not run",))


def test_published_files_that_do_not_fit_are_refused(tiny_model, tmp_path, capsys):
    model = tiny_model
    published(model, tmp_path / "deep", num_hidden_layers=5)
    published(model, tmp_path / "wide", d_model=16)
    for name, found in (("deep", "5 layers x 32"), ("wide", "4 layers x 16")):
        with pytest.raises(ValueError, match=rf"4 layers x 32; found one of .*{found}"):
            load_published(tmp_path / name, model, allow_other_model=True)

    published(model, tmp_path / "kind", lens_type="other")
    with pytest.raises(ValueError, match="linear_tuned_lens"):
        load_published(tmp_path / "kind", model)
    with pytest.raises(ValueError, match=r"read by TunedLens\.load"):
        load_published(random_lens(model).save(tmp_path / "ours"), model)
    with pytest.raises(ValueError, match="read it with load_published"):
        TunedLens.load(tmp_path / "deep")

    translators = published(model, tmp_path / "params")
    path = tmp_path / "params" / PUBLISHED_TENSORS
    state = translators.state_dict()
    for wrong in (
        {name: tensor for name, tensor in state.items() if name != "3.bias"},
        {**state, "4.bias": state["3.bias"]},
        {**state, "2.weight": state["2.weight"][:, :3]},
        {f"layer_translators.{name}": tensor for name, tensor in state.items()},
    ):
        torch.save(wrong, path)
        with pytest.raises(ValueError, match=r"must hold 8 tensors, 0\.weight \[32, 32\]"):
            load_published(tmp_path / "params", model)
    torch.save([1, 2], path)
    with pytest.raises(ValueError, match="dictionary of tensors, found list"):
        load_published(tmp_path / "params", model)
    torch.save({**state, "2.weight": Code()}, path)
    with pytest.raises(ValueError, match="holds more than tensors and was refused"):
        load_published(tmp_path / "params", model)
    assert "must not run" not in capsys.readouterr().out
    for content in (b"", b"no torch file at all", path.read_bytes()[:200]):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="damaged"):
            load_published(tmp_path / "params", model)
    path.unlink()
    with pytest.raises(ValueError, match="found no"):
        load_published(tmp_path / "params", model)


def test_half_precision_translators_become_float32(tiny_model, tmp_path):
    translators = published(tiny_model, tmp_path / "half").half()
    torch.save(translators.state_dict(), tmp_path / "half" / PUBLISHED_TENSORS)
    lens = load_published(tmp_path / "half", tiny_model)
    assert torch.equal(lens.weight[0], translators[1].weight.float())
    assert torch.equal(lens.bias[2], translators[3].bias.float())


def test_a_replaced_field_is_checked_again(tiny_model):
    lens = random_lens(tiny_model)
    with pytest.raises(ValueError, match="float32"):
        replace(lens, weight=lens.weight.half())
