"""Capture: taps against naive hooks, shards against memory, and a run that was cut off."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from brewlens import capturing as room
from brewlens.capturing import TAPS, capture, capture_taps, read_shards, write_shard
from brewlens.model import ModelError
from brewlens.residuals import Residuals
from brewlens.tensor_file import TensorFile

PROMPTS = tuple(f'{"a = 1; " * (k % 4)}x = {k}\n# The value of x is "' for k in range(11))
IDS = tuple(f"p{k}" for k in range(11))


@torch.no_grad()
def naive(model, prompt, tap, layer):
    """The last token of a tap, by TransformerLens' own cache, one prompt alone."""
    ids = torch.tensor([model.token_ids(prompt)])
    _, cache = model.bridge.run_with_cache(ids)
    return cache[f"blocks.{layer}.hook_{tap}"][0, ids.shape[1] - 1]


def test_several_taps_in_one_pass_equal_the_cache_prompt_by_prompt(any_model):
    layers = (0, 3, 1)
    found = capture_taps(any_model, PROMPTS, IDS, TAPS, layers=layers, batch_tokens=120)
    assert list(found) == list(TAPS)
    for tap, residuals in found.items():
        assert residuals.layers == layers and residuals.tap == tap and residuals.item_ids == IDS
        for row in (0, 3, 10):
            expected = torch.stack([naive(any_model, PROMPTS[row], tap, layer) for layer in layers])
            assert torch.allclose(residuals.values[row], expected, atol=5e-5, rtol=5e-5)
    # Negative control: another layer is not the same.
    assert not torch.allclose(found["attn_out"].values[:, 0], found["attn_out"].values[:, 1], atol=1e-2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_shards_hold_what_memory_holds(tiny_model, tmp_path, dtype):
    options = {"dtype": dtype, "batch_tokens": 90}
    there = capture_taps(tiny_model, PROMPTS, IDS, ("resid_post", "mlp_out"), **options)
    mapped = capture_taps(
        tiny_model, PROMPTS, IDS, ("resid_post", "mlp_out"), folder=tmp_path, shard=4, **options
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"0000{k}.safetensors" for k in range(3)]
    for tap, residuals in mapped.items():
        assert [len(part) for part in residuals.parts] == [4, 4, 3] and residuals.dtype == dtype
        # Other batches, other rounding.
        close = 1e-5 if dtype == torch.float32 else 1e-2
        assert torch.allclose(residuals.values, there[tap].values, atol=close, rtol=close)
        assert residuals.tokens == there[tap].tokens and residuals.item_ids == IDS
        assert torch.equal(residuals.layer(2), residuals.values[:, 2].float())
        assert torch.equal(residuals.select([9, 0, 4]).values, residuals.values[[9, 0, 4]])
        blocks = list(residuals.blocks(3))
        assert [rows.stop - rows.start for rows, _ in blocks] == [3, 1, 3, 1, 3]
        assert torch.equal(torch.cat([values for _, values in blocks]), residuals.values)


def test_an_interrupted_capture_goes_on_and_another_one_is_not_mixed_in(tiny_model, tmp_path, monkeypatch):
    made = []

    def counted(path, *args, **options):
        made.append(path.name)
        if fail and len(made) == 2:
            raise KeyboardInterrupt
        write_shard(path, *args, **options)

    monkeypatch.setattr(room, "write_shard", counted)
    fail = True
    with pytest.raises(KeyboardInterrupt):
        capture(tiny_model, PROMPTS, IDS, folder=tmp_path, shard=4)
    assert [p.name for p in tmp_path.iterdir()] == ["00000.safetensors"]
    fail = False
    made.clear()
    whole = capture(tiny_model, PROMPTS, IDS, folder=tmp_path, shard=4)
    assert made == ["00001.safetensors", "00002.safetensors"]
    assert torch.allclose(whole.values, capture(tiny_model, PROMPTS, IDS).values, atol=1e-5)
    made.clear()
    other = capture(tiny_model, PROMPTS[::-1], IDS, folder=tmp_path, shard=4)
    assert len(made) == 3 and torch.allclose(other.values, whole.values.flip(0), atol=1e-5)
    (tmp_path / "00001.safetensors").write_bytes(b"damaged")
    made.clear()
    capture(tiny_model, PROMPTS[::-1], IDS, folder=tmp_path, shard=4)
    assert made == ["00001.safetensors"]


def test_a_shard_keeps_the_models_own_answers(tiny_model, tmp_path):
    space = tiny_model.answer_space(PROMPTS)
    path = tmp_path / "one.safetensors"
    write_shard(path, tiny_model, tiny_model.ids(PROMPTS), IDS, space=space)
    taps, output = read_shards([path])
    expected = tiny_model.forward(PROMPTS, space)
    assert torch.equal(taps["resid_post"].values, expected.residuals)
    assert torch.equal(output.logits, expected.output.logits)
    assert torch.equal(output.top_id, expected.output.top_id)
    assert torch.equal(output.other_mass, expected.output.other_mass)


def test_what_it_will_take_is_said_before_and_a_small_disk_is_refused(
    tiny_model, tmp_path, caplog, monkeypatch
):
    with caplog.at_level("INFO", "brewlens"):
        capture(tiny_model, PROMPTS, IDS, folder=tmp_path / "a")
    assert f"11 prompts x 4 layers x 32 x 1 taps, {11 * 4 * 32 * 4 / 1e9:.3g} GB" in caplog.text
    written = []
    monkeypatch.setattr(room.tqdm, "write", written.append)
    with caplog.at_level("WARNING", "brewlens"):
        capture(tiny_model, PROMPTS, IDS, folder=tmp_path / "c", progress=True)
    assert len(written) == 1 and "GB in" in written[0]
    monkeypatch.setattr(room.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(ValueError, match="its disk has"):
        capture(tiny_model, PROMPTS, IDS, folder=tmp_path / "b")
    assert not list((tmp_path / "b").iterdir())


def test_useless_requests(tiny_model, tmp_path):
    with pytest.raises(ValueError, match="one id per prompt"):
        capture(tiny_model, PROMPTS, IDS[:3])
    with pytest.raises(ValueError, match="taps are"):
        capture(tiny_model, PROMPTS, IDS, tap="pattern")
    with pytest.raises(ValueError, match="taps are"):
        capture(tiny_model, PROMPTS, IDS, dtype=torch.int8)
    with pytest.raises(ModelError, match="no hook point"):
        capture(tiny_model, PROMPTS, IDS, layers=[4], folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_tensor_file_is_a_safetensors_file(tmp_path):
    path = tmp_path / "t.safetensors"
    generator = torch.Generator().manual_seed(0)
    whole = {
        "half": torch.randn(5, 3, generator=generator).bfloat16(),
        "single": torch.randn(4, 2, 2, generator=generator),
        "count": torch.arange(6),
    }
    shapes = {name: (t.dtype, tuple(t.shape)) for name, t in whole.items()}
    with TensorFile(path, shapes, {"of": "Zürich", "n": [1, 2]}) as file:
        for name, tensor in whole.items():
            order = torch.randperm(len(tensor), generator=generator)
            file.write(name, tensor[order[:2]], order[:2])
            file.write(name, tensor[order[2:]].double(), order[2:])
        with pytest.raises(ValueError, match="half is"):
            file.write("half", whole["half"][:1], torch.tensor([5]))
        with pytest.raises(ValueError, match="single is"):
            file.write("single", whole["half"])
    found = load_file(path)
    assert found.keys() == whole.keys()
    for name, tensor in whole.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype
    with safe_open(path, "pt") as opened:
        assert json.loads(opened.metadata()["brewlens"]) == {"n": [1, 2], "of": "Zürich"}
    with pytest.raises(ValueError, match="can write"):
        TensorFile(path, {"x": (torch.bool, (1,))}, {})


def test_residuals_refuse_what_does_not_fit():
    values = torch.zeros(3, 2, 4)
    with pytest.raises(ValueError, match="one id per sample"):
        Residuals.of(values, ["a"], [(1,)], "m")
    with pytest.raises(ValueError, match="found 2 layers"):
        Residuals.of(values, ["a", "b", "c"], [(1,)] * 3, "m", layers=[0])


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_reading_shards_takes_no_memory_until_it_is_looked_at(tmp_path):
    """256 MB on disk, a few MB in memory: in a process of its own, whose peak is its own."""
    script = f"""
import torch
from pathlib import Path
from brewlens.tensor_file import TensorFile
from brewlens.capturing import read_shards
path = Path({str(tmp_path)!r}) / "big.safetensors"
shape = (2000, 16, 2000)
ones = torch.ones(2000, dtype=torch.int64)
shapes = {{"resid_post": (torch.float32, shape)}}
shapes |= {{"tokens": (torch.int32, (2000,)), "lengths": (torch.int64, (2000,))}}
facts = {{"ids": list(map(str, range(2000))), "model": "m", "layers": [*range(16)], "taps": ["resid_post"]}}
with TensorFile(path, shapes, facts) as file:
    file.write("lengths", ones)
rss = lambda: int(Path("/proc/self/statm").read_text().split()[1]) * 4  # pages of 4 kB
before = rss()
residuals = read_shards([path])[0]["resid_post"]
assert float(residuals.values[7, 3, 5]) == 0
mapped = rss() - before
residuals.values.sum()
print(mapped, rss() - before)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    mapped, read = map(int, out.split())
    assert mapped < 40_000 < 200_000 < read, f"{mapped} kB after opening, {read} kB after reading all"
