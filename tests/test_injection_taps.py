"""Reading and writing inside blocks and at several tokens, held against Hugging Face with plain torch hooks.

What is compared with owes nothing to TransformerLens: transformers loads the weights a second time, and one
prompt at a time runs through it, with hooks on its own modules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import architectures
import pytest
import tiny
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from brewlens import growing, injection
from brewlens.answer_logits import AnswerLogits
from brewlens.batching import Batch
from brewlens.loading import load_model
from brewlens.model import HookedModel, ModelError
from brewlens.rows import TAPS, Rows

EXACT = 5e-5
LAYERS = range(tiny.LAYERS)
# Three lengths, one of them twice; past the sliding window of 16.
TARGETS = ('# The value of a is "', 'x: "', '# The value of b is "', 'total = 5\n# The value of total is "')
DONORS = ('# The value of q is "', 'z: "', '# Say what c is now: "', 'count = 7\n# The value of count is "')
POSITIONS = ((-1,), (-3, -1), (-4, -2))


def close(found: Tensor, expected: Tensor, tolerance: float = EXACT) -> None:
    assert found.shape == expected.shape
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    assert error <= tolerance, f"relative error {error:.2g}"


def differs(found: Tensor, expected: Tensor) -> None:
    with pytest.raises(AssertionError, match="relative error"):
        close(found, expected, 100 * EXACT)


@dataclass
class Raw:
    """A plain network with torch hooks at what the taps name."""

    network: PreTrainedModel

    @cached_property
    def blocks(self) -> nn.ModuleList:
        body = self.network.base_model
        return body.layers if hasattr(body, "layers") else body.h

    def module(self, tap: str, layer: int) -> tuple[nn.Module, bool]:
        """The module, and whether the tap is its input."""
        block = self.blocks[layer]
        attention = next(getattr(block, n) for n in ("self_attn", "attn", "attention") if hasattr(block, n))
        gemma = hasattr(block, "pre_feedforward_layernorm")
        match tap:
            case "resid_post" | "resid_pre":
                return block, tap == "resid_pre"
            case "attn_out":
                return (block.post_attention_layernorm if gemma else attention), False
            case "mlp_out":
                return (block.post_feedforward_layernorm if gemma else block.mlp), False
        return next(
            getattr(attention, n) for n in ("o_proj", "c_proj", "dense") if hasattr(attention, n)
        ), True

    @torch.no_grad()
    def logits(
        self,
        ids: tuple[int, ...],
        write: tuple[str, int, tuple[int, ...], Tensor] | None = None,
        read: tuple[str, int] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """``[vocabulary]`` at the last token, and what one tap holds at every token."""
        seen, handles = {}, []

        def attach(tap: str, layer: int, change: Callable[[Tensor], Tensor]) -> None:
            module, at_input = self.module(tap, layer)

            def on_output(module, inputs, output):
                x, *rest = output if isinstance(output, tuple) else (output,)
                return (change(x), *rest) if isinstance(output, tuple) else change(x)

            def on_input(module, inputs):
                return (change(inputs[0]), *inputs[1:])

            handles.append(
                module.register_forward_pre_hook(on_input)
                if at_input
                else module.register_forward_hook(on_output)
            )

        if write is not None:
            tap, layer, positions, values = write

            def overwrite(x: Tensor) -> Tensor:
                x = x.clone()
                x[0, [len(ids) + at for at in positions]] = values
                return x

            attach(tap, layer, overwrite)
        if read is not None:

            def keep(x: Tensor) -> Tensor:
                seen[read] = x[0].clone()
                return x

            attach(*read, keep)
        try:
            logits = self.network(torch.tensor([ids]), use_cache=False).logits[0, len(ids) - 1]
        finally:
            for handle in handles:
                handle.remove()
        return logits, seen.get(read)


@pytest.fixture(scope="module")
def folders(tiny_folders, tmp_path_factory):
    """The tiny folders, and one of a model whose attention and MLP run side by side."""
    parallel = architectures.build("pythia", tmp_path_factory.mktemp("parallel") / "pythia")
    return {**tiny_folders, "pythia": parallel}


@pytest.fixture(scope="module", params=(*tiny.ARCHITECTURES, "pythia"))
def pair(request, folders):
    """A model as brewlens has it, and as Hugging Face does."""
    folder = folders[request.param]
    raw = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    return load_model(folder, device="cpu"), Raw(raw)


@pytest.fixture(params=[True, False], ids=["growing", "padded"])
def grows(request, pair, monkeypatch):
    monkeypatch.setattr(pair[0], "grows", request.param)
    return request.param


def space_of(model: HookedModel):
    return model.answer_space(TARGETS)


def naive(pair, values: Tensor, tap: str, positions: tuple[int, ...]) -> tuple[AnswerLogits, AnswerLogits]:
    """Answers at the end and one block later, one forward per sample and layer."""
    model, raw = pair
    space, answers, followed = space_of(model), [], []
    for target, here in zip(model.ids(TARGETS), values, strict=True):
        for layer in LAYERS:
            write = (tap, layer, positions, here[layer])
            after = min(layer + 1, model.n_layers - 1)
            logits, states = raw.logits(target, write, ("resid_post", after))
            answers.append(AnswerLogits.of(logits[None], space))
            # The logit lens at a block is what the model says when the last block ends with that state.
            last = ("resid_post", model.n_layers - 1, (-1,), states[len(target) - 1])
            followed.append(AnswerLogits.of(raw.logits(target, last)[0][None], space))
    shape = (len(TARGETS), model.n_layers)
    return tuple(AnswerLogits.concatenate(parts).reshape(*shape) for parts in (answers, followed))


# Reading


@pytest.mark.parametrize("tap", ["resid_pre", *TAPS])
@pytest.mark.parametrize("batch_tokens", [1, 10_000])
def test_states_are_what_plain_hooks_see(pair, tap, batch_tokens):
    model, raw = pair
    found = model.states(TARGETS, tap=tap, positions=(-1, -4), batch_tokens=batch_tokens)
    assert found.dtype == torch.float32 and found.shape[:3] == (len(TARGETS), model.n_layers, 2)
    for sample, ids in enumerate(model.ids(TARGETS)):
        for layer in LAYERS:
            expected = raw.logits(ids, read=(tap, layer))[1][[len(ids) - 1, len(ids) - 4]]
            close(found[sample, layer], expected)
    some = model.states(TARGETS, tap=tap, positions=(-4,), layers=(2, 0))
    close(some, found[:, [2, 0], 1:], 1e-6)
    differs(some.flip(1), found[:, [2, 0], 1:])
    differs(some, found[:, [2, 0], :1])


def test_what_is_added_to_the_stream_adds_up(pair):
    model, raw = pair
    states = {tap: model.states(TARGETS, tap=tap, positions=(-2,)) for tap in ("resid_pre", *TAPS)}
    close(states["resid_pre"] + states["attn_out"] + states["mlp_out"], states["resid_post"])
    assert states["z"].shape[-1] == model.bridge.cfg.n_heads * model.bridge.cfg.d_head
    if hasattr(raw.blocks[0], "pre_feedforward_layernorm"):
        return  # there a norm stands between the heads and the stream
    for layer in LAYERS:
        projection = raw.module("z", layer)[0]
        with torch.no_grad():
            close(projection(states["z"][:, layer]), states["attn_out"][:, layer])


def test_states_of_the_last_token_are_the_residuals(pair):
    model, _ = pair
    assert torch.equal(model.states(TARGETS)[:, :, 0], model.last_residuals(TARGETS)[0])


# Writing


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_both_ways_equal_one_plain_forward_per_sample_and_layer(pair, tap, positions, monkeypatch):
    model, _ = pair
    space, options = space_of(model), {"tap": tap, "positions": positions}
    values = model.states(DONORS, **options)
    answers, followed = naive(pair, values, tap, positions)
    for grows in (True, False):
        monkeypatch.setattr(model, "grows", grows)
        for memory in (50_000, None):
            found = model.inject_followed(values, TARGETS, space, memory=memory, **options)
            close(found[0].logits, answers.logits)
            close(found[0].log_other, answers.log_other)
            close(found[1].logits, followed.logits)
            close(found[1].log_other, followed.log_other)
        alone = model.inject(values, TARGETS, space, **options)
        assert torch.equal(alone.logits, found[0].logits) and torch.equal(alone.top_id, found[0].top_id)
        for wrong in (values.roll(1, 0), values.roll(1, 1)):
            differs(model.inject(wrong, TARGETS, space, **options).logits, answers.logits)


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("positions", POSITIONS)
def test_own_states_change_nothing(pair, tap, positions, grows):
    """Padded, to the last bit of a plain forward of the same batch; growing, to rounding."""
    model, _ = pair
    own, space = model.states(TARGETS, tap=tap, positions=positions), space_of(model)
    found = model.inject(own, TARGETS, space, tap=tap, positions=positions)
    repeated = [target for target in TARGETS for _ in LAYERS]
    plain = model.answer_logits(repeated, space, batch_tokens=10**6).reshape(*found.logits.shape[:2])
    close(found.logits, plain.logits, 2e-6)
    again = model.states(repeated, tap=tap, positions=positions, batch_tokens=10**6)
    own = again.unflatten(0, (len(TARGETS), model.n_layers))[:, LAYERS, LAYERS]
    found = model.inject(own, TARGETS, space, tap=tap, positions=positions, memory=10**9)
    if not grows:
        assert torch.equal(found.logits, plain.logits) and torch.equal(found.log_other, plain.log_other)


def test_the_last_residual_decides(pair, grows):
    model, _ = pair
    donors = model.answer_logits(DONORS, space_of(model))
    found = model.inject(model.states(DONORS), TARGETS, space_of(model))
    close(found.logits[:, model.n_layers - 1], donors.logits, 2e-6)
    differs(found.logits[:, model.n_layers - 2], donors.logits)


def test_the_last_mlp_decides_beside_what_was_there(pair, grows):
    """The stream is a sum: what is added last can be exchanged by exchanging the sum."""
    model, _ = pair
    last = model.n_layers - 1
    there = {tap: model.states(TARGETS, tap=tap, layers=[last]) for tap in ("resid_post", "mlp_out")}
    new = model.states(DONORS, tap="mlp_out", layers=[last])
    found = model.inject(new, TARGETS, space_of(model), tap="mlp_out", layers=[last])
    summed = there["resid_post"] - there["mlp_out"] + new
    close(found.logits, model.inject(summed, TARGETS, space_of(model), layers=[last]).logits)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_block_written_over_by_its_input_is_a_block_removed(pair, folders, layer, grows):
    model, raw = pair
    target, space = model.token_ids(TARGETS[0]), space_of(model)
    everywhere = tuple(range(-len(target), 0))
    inputs = model.states([target], tap="resid_pre", layers=[layer], positions=everywhere)
    skipped = model.inject(inputs, [target], space, layers=[layer], positions=everywhere)
    shorter = AutoModelForCausalLM.from_pretrained(folders[model.name], attn_implementation="eager").eval()
    del Raw(shorter).blocks[layer]
    shorter.config.num_hidden_layers = len(Raw(shorter).blocks)
    if getattr(shorter.config, "layer_types", None):
        shorter.config.layer_types = [t for at, t in enumerate(shorter.config.layer_types) if at != layer]
    removed = AnswerLogits.of(Raw(shorter).logits(target)[0][None], space)
    close(skipped.logits[0], removed.logits)
    # At the last token alone it is another thing: the others pass the block.
    alone = model.inject(inputs[:, :, -1:], [target], space, layers=[layer])
    ends = ("resid_post", layer, (-1,), inputs[0, 0, len(target) - 1])
    close(alone.logits[0], AnswerLogits.of(raw.logits(target, ends)[0][None], space).logits)
    if layer < model.n_layers - 1:
        differs(alone.logits[0], removed.logits)


@pytest.mark.parametrize("tap", TAPS)
def test_classes_of_several_tokens(pair, tap):
    """The tokens of an answer follow the edit in both ways alike."""
    model, _ = pair
    space = model.answer_space(TARGETS, ("True", "12", "7"), scoring="sequence", end='"')
    values = model.states(DONORS, tap=tap, positions=(-3, -1))
    rows = Rows.of(model, values, model.ids(TARGETS), space, tap=tap, positions=(-3, -1))
    (grown,), (run,) = injection.run(model, rows, grows=True), injection.run(model, rows, grows=False)
    close(grown.logits, run.logits)
    with pytest.raises(ValueError, match="several tokens; call inject"):
        model.inject_followed(values, TARGETS, space, tap=tap, positions=(-3, -1))


# Many targets with many rows each


@pytest.mark.parametrize("tap", ["resid_post", "mlp_out"])
@pytest.mark.parametrize("memory", [1, 300_000, None])
def test_each_prefix_runs_once_however_many_rows_read_it(tiny_model, tap, memory, monkeypatch):
    targets = [f"{'x' * (k % 3)}{k}: value " for k in range(10, 22)]
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(12, 9, tiny_model.d_model, generator=generator)
    layers = torch.randint(0, tiny_model.n_layers, (12, 9), generator=generator)
    tiny_model.grows_at(tap)  # checked now, so that its prefixes are not counted
    ran, prefix_cache = [], tiny_model.prefix_cache
    space = tiny_model.answer_space(targets)

    def counted(batch: Batch):
        ran.extend(map(tuple, batch.tokens.tolist()))
        return prefix_cache(batch)

    monkeypatch.setattr(tiny_model, "prefix_cache", counted)
    options = {"layers": layers, "tap": tap}
    found = tiny_model.inject(values, targets, space, memory=memory, **options)
    assert sorted(ran) == sorted(ids[: len(ids) - 1] for ids in tiny_model.ids(targets))
    monkeypatch.setattr(tiny_model, "grows", False)
    close(found.logits, tiny_model.inject(values, targets, space, **options).logits)
    shuffled = torch.randperm(12, generator=generator)
    monkeypatch.setattr(tiny_model, "grows", True)
    again = tiny_model.inject(
        values[shuffled], [targets[k] for k in shuffled.tolist()], space, layers=layers[shuffled], tap=tap
    )
    close(again.logits, found.logits[shuffled])
    differs(again.logits, found.logits)


def test_chunks_hold_every_row_once_and_tear_no_prompt_that_fits(tiny_model):
    targets = [tuple(range(5, 9 + k % 2)) for k in range(2)] + [(7, 7, 7, k) for k in range(3, 9)]
    values = torch.zeros(8, 5, tiny_model.d_model)
    rows = Rows.of(tiny_model, values, targets, tiny_model.answer_space(TARGETS), layers=[3, 0, 2, 0, 1])
    for most, whole in ((1, False), (4, False), (5, True), (11, True), (1000, True)):
        seen = []
        for prompts, here in growing._groups(tiny_model, rows, 1, 10**9):
            assert len({len(rows.prompts[p]) for p in prompts}) == 1
            chunks = list(growing._chunks(rows, here, most))
            assert torch.equal(torch.cat(chunks).sort().values, here.sort().values)
            seen += chunks
        for chunk in seen:
            assert len(chunk) <= most and rows.layers[chunk].diff().ge(0).all()
            assert not whole or (torch.bincount(rows.target[chunk]) % 5 == 0).all()
        assert torch.cat(seen).sort().values.tolist() == list(range(40))


# What is refused


def test_a_tap_that_cannot_grow_runs_padded_and_says_why(tiny_folders, monkeypatch, caplog):
    model = load_model(tiny_folders["qwen2"], device="cpu")
    values = model.states(DONORS, tap="z")
    right = growing._newest_writer
    with monkeypatch.context() as patched:
        patched.setattr(growing, "_newest_writer", lambda values, at: right(values.flip(-1), at))
        assert not model.grows_at("z") and model.grows_at("resid_post")
    assert "injection at z runs padded, the slower way: a growing batch differs by" in caplog.text
    found = model.inject(values, TARGETS, space_of(model), tap="z")
    monkeypatch.setattr(model, "grows", False)
    assert torch.equal(found.logits, model.inject(values, TARGETS, space_of(model), tap="z").logits)
    assert load_model(tiny_folders["qwen2"], device="cpu").grows_at("z")


def test_a_hook_point_whose_edits_are_dropped_is_refused(tiny_folders, monkeypatch):
    model = load_model(tiny_folders["qwen2"], device="cpu")
    values = model.states(DONORS, tap="attn_out")
    with monkeypatch.context() as patched:
        patched.setattr(injection, "_writer", lambda *args: lambda x, hook: None)
        with pytest.raises(ModelError, match=r"'attn_out', found .* others by 0; .*resid_post"):
            model.inject(values, TARGETS, space_of(model), tap="attn_out")
    with monkeypatch.context() as patched:
        patched.setattr(injection, "_writer", lambda *args: lambda x, hook: 1.01 * x)
        with pytest.raises(ModelError, match=r"own states, written there, change its answer by 0\.\d"):
            model.inject(values, TARGETS, space_of(model), tap="attn_out")
    model.inject(values, TARGETS, space_of(model), tap="attn_out")


def test_a_hook_point_that_never_runs_is_refused(tiny_model, monkeypatch):
    name = "blocks.{}.attn.hook_hidden_states"  # TransformerLens lists it, and no forward passes it
    assert name.format(0) in tiny_model.bridge.hook_dict
    monkeypatch.setattr(tiny_model, "tap", lambda tap, layer: name.format(layer))
    with pytest.raises(ModelError, match="does not use it in every layer"):
        tiny_model.states(TARGETS, tap="mlp_out")


def test_what_is_not_there_is_refused(tiny_model):
    space, values = space_of(tiny_model), tiny_model.states(DONORS, tap="z")
    with pytest.raises(ModelError, match=r"no hook point 'blocks\.0\.hook_nothing'"):
        tiny_model.states(TARGETS, tap="nothing")
    with pytest.raises(ValueError, match=r"'resid_post', 'attn_out', 'mlp_out', 'z'.*found tap 'resid_pre'"):
        tiny_model.inject(values, TARGETS, space, tap="resid_pre")
    for grows in (True, False):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(tiny_model, "grows", grows)
            with pytest.raises(ValueError, match=r"holds 32 numbers per token here, \[4, 8\].*width 31"):
                tiny_model.inject(values[..., 1:], TARGETS, space, tap="z")
    with pytest.raises(ValueError, match=r"needs values \[4, 4, 32\]"):
        tiny_model.inject(values[:, :, 0, 1:], TARGETS, space, tap="mlp_out")
    for positions in ((), (0,), (-1, -1), (-5,)):
        with pytest.raises(ValueError, match="-1 to -4 here"):
            tiny_model.states(TARGETS, positions=positions)


@pytest.mark.parametrize("tap", TAPS)
@pytest.mark.parametrize("grows", [True, False])
def test_no_hook_is_left_behind(tiny_model, tap, grows, monkeypatch):
    monkeypatch.setattr(tiny_model, "grows", grows)
    space, values = space_of(tiny_model), tiny_model.states(DONORS, tap=tap)
    tiny_model.grows_at(tap)

    def left() -> int:
        return sum(len(module._forward_hooks) for module in tiny_model.bridge.original_model.modules())

    def fail(x, hook):
        raise ArithmeticError("in the hook")

    before = left()
    tiny_model.inject_followed(values, TARGETS, space, tap=tap)
    assert left() == before
    with pytest.raises(ArithmeticError), tiny_model.hooks([("blocks.2.hook_out", fail)]):
        tiny_model.inject_followed(values, TARGETS, space, tap=tap)
    assert left() == before
