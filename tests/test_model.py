"""The model room, held against naive loops and against Hugging Face's own forward."""

from __future__ import annotations

import shutil
import time

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, normalizers
from transformers import AutoModelForCausalLM, AutoTokenizer

from brewlens import injection
from brewlens.answers import DIGITS, AnswerSpace
from brewlens.batching import Batch, length_sorted
from brewlens.kv_cache import PrefixCache
from brewlens.loading import load_model
from brewlens.model import AnswerLogits, HookedModel, ModelError

EXACT = 5e-5
CODE = ("a = 1\n", "b = 2\nb = b + 3\n", "", "c = 4\nfor i in range(3):\n    c += i\n", "a = 1\n", "d=7\n")
SUFFIX = ('# The value of a is "', '# The value of total is "', 'x: "', '# The value of c is "', '"', 'd "')
PROMPTS = tuple(code + suffix for code, suffix in zip(CODE, SUFFIX, strict=True))
# From one token to more than Gemma-2's sliding window of 16; one of them twice.
TARGETS = (SUFFIX[0], SUFFIX[1], SUFFIX[4], SUFFIX[2], SUFFIX[0], SUFFIX[5])


def close(found, expected, tolerance=EXACT):
    assert found.shape == expected.shape
    error = float((found - expected).abs().max() / expected.abs().max().clamp(min=1))
    assert error <= tolerance, f"relative error {error:.2g}"


def same(found: AnswerLogits, expected: AnswerLogits, tolerance=EXACT):
    close(found.logits, expected.logits, tolerance)
    close(found.log_other, expected.log_other, tolerance)
    assert torch.equal(found.top_id, expected.top_id)


def hooks_left(model):
    return sum(len(m._forward_hooks) for m in model.bridge.original_model.modules())


@torch.no_grad()
def naive_pass(model, prompt, space, layer=None, vector=None):
    """One forward of one prompt by TransformerLens' own means; optionally one residual overwritten."""
    seen = {}

    def save(at):
        def hook(x, hook):
            seen[at] = x[0, x.shape[1] - 1].clone()

        return hook

    def write(x, hook):
        x = x.clone()
        x[0, x.shape[1] - 1] = vector
        return x

    pairs = [(f"blocks.{at}.hook_resid_post", save(at)) for at in range(model.n_layers)]
    if layer is not None:
        pairs = [(f"blocks.{layer}.hook_resid_post", write)]
    ids = torch.tensor([model.token_ids(prompt)])
    logits = model.bridge.run_with_hooks(ids, fwd_hooks=pairs)[0, len(ids[0]) - 1]
    other = logits.clone()
    other[list(space.token_ids)] = -torch.inf
    output = AnswerLogits(logits[list(space.token_ids)], other.logsumexp(0), logits.argmax())
    return torch.stack([seen[at] for at in range(model.n_layers)]) if seen else None, output


def stacked(outputs, *rows):
    parts = [o.reshape(1) for o in outputs]
    return AnswerLogits.concatenate(parts).reshape(*rows)


@pytest.fixture
def space(any_model):
    return any_model.answer_space(PROMPTS)


# Batches


def test_batch_gathers_and_replaces_at_the_last_token_of_each_row():
    batch = Batch.of([[5], [6, 7, 8], [9, 10]])
    assert batch.tokens.tolist() == [[5, 0, 0], [6, 7, 8], [9, 10, 0]]
    assert batch.last.tolist() == [0, 2, 1]
    x = batch.tokens.float().unsqueeze(-1)
    assert batch.gather(x).squeeze(1).tolist() == [5, 8, 10]
    changed = batch.replace(x, torch.tensor([[-1.0]]), torch.tensor([2]))
    assert changed.squeeze(2).tolist() == [[5, 0, 0], [6, 7, 8], [9, -1, 0]]
    assert x.min() == 0, "the input must not change"


@pytest.mark.parametrize("ids", [[], [[1], []]])
def test_batch_refuses_rows_without_tokens(ids):
    with pytest.raises(ValueError, match="at least one token"):
        Batch.of(ids)


def test_length_sorted_covers_every_row_once_within_the_bound():
    lengths = [3, 9, 1, 4, 4, 20, 2]
    batches = [rows.tolist() for rows in length_sorted(lengths, 12, max_rows=3)]
    assert sorted(row for rows in batches for row in rows) == list(range(7))
    for rows in batches:
        assert len(rows) <= 3
        assert len(rows) == 1 or len(rows) * max(lengths[r] for r in rows) <= 12
    with pytest.raises(ValueError, match="batch_tokens"):
        list(length_sorted(lengths, 0))


# Residuals and outputs


@pytest.mark.parametrize("batch_tokens", [1, 60, 16384])
def test_forward_equals_naive_hooks(any_model, space, batch_tokens):
    result = any_model.forward(PROMPTS, space, batch_tokens=batch_tokens)
    naive = [naive_pass(any_model, prompt, space) for prompt in PROMPTS]
    close(result.residuals, torch.stack([r for r, _ in naive]))
    same(result.output, stacked([o for _, o in naive], len(PROMPTS)))
    assert result.tokens == tuple(any_model.token_ids(p) for p in PROMPTS)
    residuals, tokens = any_model.last_residuals(PROMPTS, batch_tokens=batch_tokens)
    assert torch.equal(residuals, result.residuals) and tokens == result.tokens
    same(any_model.answer_logits(PROMPTS, space, batch_tokens=batch_tokens), result.output, 1e-6)


def test_naive_hooks_can_tell_layers_and_prompts_apart(any_model, space):
    residuals = any_model.forward(PROMPTS, space).residuals
    for wrong in (residuals.roll(1, 0), residuals.roll(1, 1)):
        with pytest.raises(AssertionError, match="relative error"):
            close(wrong, residuals)


def test_padding_on_the_left_would_show(any_model):
    """Negative control of the padding: a prompt moved to the right by pad tokens reads differently."""
    ids = any_model.token_ids(PROMPTS[0])
    with torch.no_grad():
        moved = any_model.bridge(torch.tensor([[0] * 5 + list(ids)]))[0, len(ids) + 4]
        plain = any_model.bridge(torch.tensor([list(ids)]))[0, len(ids) - 1]
    with pytest.raises(AssertionError):
        close(moved, plain)


def test_parity_with_hugging_face(any_model, tiny_folders, space):
    raw = AutoModelForCausalLM.from_pretrained(
        tiny_folders[any_model.name], attn_implementation="eager"
    ).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_folders[any_model.name])
    result = any_model.forward(PROMPTS, space)
    for row, prompt in enumerate(PROMPTS):
        with torch.no_grad():
            out = raw(**tokenizer(prompt, return_tensors="pt"), output_hidden_states=True)
        last = out.logits.shape[1] - 1
        close(result.output.logits[row], out.logits[0, last, list(space.token_ids)])
        probabilities = out.logits[0, last].softmax(0)
        mass = 1 - probabilities[list(space.token_ids)].sum()
        close(result.output.other_mass[row], mass)
        # Entry l+1 is the output of block l, but the very last entry is behind the final norm.
        for layer in range(any_model.n_layers - 1):
            close(result.residuals[row, layer], out.hidden_states[layer + 1][0, last])
        with pytest.raises(AssertionError):
            close(
                result.residuals[row, any_model.n_layers - 1], out.hidden_states[any_model.n_layers][0, last]
            )


def test_read_out_of_the_last_residual_is_the_output_and_of_others_is_not(any_model, space):
    result = any_model.forward(PROMPTS, space)
    lens = any_model.read_out(result.residuals, space, chunk=5)
    assert lens.logits.shape == (len(PROMPTS), any_model.n_layers, 10)
    last = any_model.n_layers - 1
    same(lens[:, last], result.output)
    with pytest.raises(AssertionError):
        same(lens[:, last - 1], result.output)


def test_order_and_duplicates_are_kept(tiny_model):
    space = tiny_model.answer_space(PROMPTS)
    forwards = tiny_model.forward(PROMPTS, space, batch_tokens=80)
    backwards = tiny_model.forward(PROMPTS[::-1], space, batch_tokens=80)
    close(backwards.residuals.flip(0), forwards.residuals)
    twice = tiny_model.forward([PROMPTS[0], PROMPTS[1], PROMPTS[0]], space)
    close(twice.residuals[0], twice.residuals[2], 1e-6)
    assert not torch.allclose(twice.residuals[0], twice.residuals[1])
    base = tiny_model.base_logits(TARGETS, space)
    same(base, tiny_model.answer_logits(TARGETS, space))


def test_residuals_take_the_dtype_asked_for(tiny_model):
    exact, _ = tiny_model.last_residuals(PROMPTS)
    half, _ = tiny_model.last_residuals(PROMPTS, dtype=torch.bfloat16)
    assert exact.dtype == torch.float32 and half.dtype == torch.bfloat16
    assert torch.equal(half, exact.bfloat16())


# Injection


def inject_naively(model, residuals, targets, space, layers):
    outputs = [
        naive_pass(model, target, space, layer, residuals[sample, at])[1]
        for sample, target in enumerate(targets)
        for at, layer in enumerate(layers[sample])
    ]
    return stacked(outputs, len(targets), len(layers[0]))


@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize("memory", [50_000, None])
def test_inject_equals_one_forward_per_sample_and_layer(any_model, space, grows, memory, monkeypatch):
    assert any_model.grows and any_model.check.grows
    monkeypatch.setattr(any_model, "grows", grows)
    residuals, _ = any_model.last_residuals(PROMPTS)
    found = any_model.inject(residuals, TARGETS, space, memory=memory)
    layers = [range(any_model.n_layers)] * len(TARGETS)
    same(found, inject_naively(any_model, residuals, TARGETS, space, layers))
    with pytest.raises(AssertionError):
        same(found, any_model.inject(residuals.roll(1, 1), TARGETS, space))


@pytest.mark.parametrize("grows", [True, False])
def test_inject_at_chosen_layers(tiny_model, grows, monkeypatch):
    monkeypatch.setattr(tiny_model, "grows", grows)
    space = tiny_model.answer_space(PROMPTS)
    residuals = tiny_model.last_residuals(PROMPTS)[0][:, :2]
    shared = tiny_model.inject(residuals, TARGETS, space, layers=[3, 1])
    same(shared, inject_naively(tiny_model, residuals, TARGETS, space, [[3, 1]] * len(TARGETS)))
    own = torch.tensor([[0, 1], [3, 2], [2, 2], [1, 0], [3, 3], [0, 3]])
    found = tiny_model.inject(residuals, TARGETS, space, layers=own)
    same(found, inject_naively(tiny_model, residuals, TARGETS, space, own.tolist()))


@pytest.mark.parametrize("grows", [True, False])
@pytest.mark.parametrize("positions", [(-1,), (-3,), (-4, -2), (-1, -5)])
def test_inject_before_the_end_and_at_several_positions(any_model, space, positions, grows, monkeypatch):
    monkeypatch.setattr(any_model, "grows", grows)
    targets = [SUFFIX[0], SUFFIX[1], "abcde", SUFFIX[0]]  # "abcde" may begin at the first written token
    generator = torch.Generator().manual_seed(1)
    values = torch.randn(4, any_model.n_layers, len(positions), any_model.d_model, generator=generator)
    found = any_model.inject(values, targets, space, positions=positions, memory=200_000)
    for sample, target in enumerate(targets):
        ids = torch.tensor([any_model.token_ids(target)])
        for layer in range(any_model.n_layers):

            def write(x, hook, here=values[sample, layer]):
                x = x.clone()
                for k, position in enumerate(positions):
                    x[0, x.shape[1] + position] = here[k]
                return x

            with torch.no_grad():
                logits = any_model.bridge.run_with_hooks(
                    ids, fwd_hooks=[(f"blocks.{layer}.hook_resid_post", write)]
                )
            expected = AnswerLogits.of(logits[:, ids.shape[1] - 1], space)
            same(found[sample][layer : layer + 1], expected)


@pytest.mark.parametrize("grows", [True, False])
def test_inject_takes_token_ids_and_a_lone_token_is_nothing_but_the_residual(
    any_model, space, grows, monkeypatch
):
    monkeypatch.setattr(any_model, "grows", grows)
    residuals, _ = any_model.last_residuals(PROMPTS)
    texts = any_model.inject(residuals, TARGETS, space)
    same(any_model.inject(residuals, [any_model.token_ids(t) for t in TARGETS], space), texts)
    lone = [any_model.inject(residuals, [(token,)] * len(PROMPTS), space) for token in (7, 90)]
    same(lone[0], lone[1], 2e-6)
    with pytest.raises(AssertionError):
        same(lone[0], texts)


def test_a_growing_batch_that_does_not_match_the_plain_forward_is_refused(tiny_model):
    """A hook that counts rows would go unnoticed but for the un-written row."""
    space = tiny_model.answer_space(PROMPTS)
    residuals, _ = tiny_model.last_residuals(PROMPTS)

    def spoil(x, hook):
        return x * 2 if len(x) > 1 else x

    with (
        tiny_model.hooks([("blocks.3.hook_mlp_out", spoil)]),
        pytest.raises(ModelError, match="un-written row"),
    ):
        tiny_model.inject(residuals, TARGETS, space)


# Answers of several tokens

WORDS = ("True", "False", "12", "7")


def naive_sequences(model, prompt, space, write=None):
    """Log-probability of each class's tokens, token by token, one forward per token."""
    ids, scores = model.token_ids(prompt), []
    for sequence in space.sequences:
        total = 0.0
        for step, token in enumerate(sequence):
            hooks = [] if write is None else [write(len(ids) - 1)]
            tokens = torch.tensor([[*ids, *sequence[:step]]])
            with torch.no_grad():
                logits = model.bridge.run_with_hooks(tokens, fwd_hooks=hooks)
            total += float(logits[0, tokens.shape[1] - 1].log_softmax(0)[token])
        scores.append(total)
    return torch.tensor(scores)


def test_sequences_are_scored_token_by_token(any_model):
    space = any_model.answer_space(PROMPTS, WORDS, scoring="sequence", end='"')
    assert not space.single and len(space.continuations) == 4
    found = any_model.answer_logits(PROMPTS, space)
    for row, prompt in enumerate(PROMPTS):
        expected = naive_sequences(any_model, prompt, space)
        close(found.logits[row], expected)
        assert abs(float(found.other_mass[row]) - (1 - float(expected.exp().sum()))) < EXACT
    firsts = any_model.answer_logits(PROMPTS, any_model.answer_space(PROMPTS, WORDS, scoring="first"))
    assert torch.equal(found.top_id, firsts.top_id)


@pytest.mark.parametrize("grows", [True, False])
def test_injection_scores_sequences_as_one_forward_per_row_and_token(any_model, grows, monkeypatch):
    monkeypatch.setattr(any_model, "grows", grows)
    space = any_model.answer_space(PROMPTS, WORDS, scoring="sequence", end='"')
    residuals, _ = any_model.last_residuals(PROMPTS[:3])
    found = any_model.inject(residuals, TARGETS[:3], space)
    for sample in range(3):
        for layer in range(any_model.n_layers):

            def write(at, layer=layer, value=residuals[sample, layer]):
                def hook(x, hook):
                    x = x.clone()
                    x[0, at] = value
                    return x

                return f"blocks.{layer}.hook_resid_post", hook

            close(found.logits[sample, layer], naive_sequences(any_model, TARGETS[sample], space, write))
    source = any_model.answer_logits(PROMPTS[:3], space)
    # The first token follows the residual; the later ones would need the program again.
    assert torch.equal(found.top_id[:, any_model.n_layers - 1], source.top_id)


def test_sequences_of_one_token_rank_as_their_logits_do(tiny_model):
    one = tiny_model.answer_logits(PROMPTS, tiny_model.answer_space(PROMPTS))
    digits = tiny_model.answer_space(PROMPTS).sequences
    forced = AnswerSpace((*DIGITS, "no"), (*digits, (80, 81)))
    several = tiny_model.answer_logits(PROMPTS, forced)
    close(several.logits[:, :10].softmax(-1), one.logits.softmax(-1), 1e-6)


def test_answers_that_begin_one_another_need_an_end(tiny_model):
    with pytest.raises(ValueError, match=r"begins with the tokens of '4'.*end="):
        tiny_model.answer_space(PROMPTS, ("4", "42"), scoring="sequence")
    space = tiny_model.answer_space(PROMPTS, ("4", "42"), scoring="sequence", end='"')
    assert [len(ids) for ids in space.sequences] == [2, 3]
    four, quote, two = (tiny_model.token_ids(c)[0] for c in '4"2')
    assert space.sequences == ((four, quote), (four, two, quote))
    assert space.continuations == ((four, two),)
    with pytest.raises(ValueError, match="distinct"):
        tiny_model.answer_space(PROMPTS, ("42", "43"), scoring="first")
    with pytest.raises(ValueError, match="one position"):
        tiny_model.read_out(tiny_model.last_residuals(PROMPTS)[0], space)


def test_inject_identities(any_model, space):
    source, target = any_model.forward(PROMPTS, space), any_model.forward(TARGETS, space)
    last = any_model.n_layers - 1
    same(any_model.inject(source.residuals, TARGETS, space)[:, last], source.output)
    unchanged = any_model.inject(target.residuals, TARGETS, space)
    for layer in range(any_model.n_layers):
        same(unchanged[:, layer], target.output, 2e-6)
    changed = any_model.inject(source.residuals, TARGETS, space)
    for layer in range(any_model.n_layers):
        with pytest.raises(AssertionError):
            same(changed[:, layer], target.output)


def test_prefix_cache_is_not_written_to(tiny_model):
    filled = tiny_model.prefix_cache(tiny_model.encode(["abc"]))
    cache = PrefixCache(filled, torch.zeros(1, dtype=int))
    before = [layer.keys.clone() for layer in cache.layers]
    for _ in range(2):
        tiny_model.read_from(tiny_model.encode(["d"]), lambda x, hook: x, cache)
    assert cache.get_seq_length() == 3
    for layer, keys in zip(cache.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)


# Hooks


def test_hooks_edit_while_open_and_are_gone_after(tiny_model):
    space = tiny_model.answer_space(PROMPTS)
    before, left = tiny_model.answer_logits(PROMPTS, space), hooks_left(tiny_model)
    with tiny_model.hooks([("blocks.1.hook_mlp_out", lambda x, hook: torch.zeros_like(x))]):
        assert hooks_left(tiny_model) == left + 1
        during = tiny_model.answer_logits(PROMPTS, space)
    assert not torch.allclose(during.logits, before.logits, atol=1e-2)
    assert hooks_left(tiny_model) == left
    same(tiny_model.answer_logits(PROMPTS, space), before, 0)


def test_hooks_around_the_unembedding_are_applied_once(any_model, space):
    """It runs on the kept rows by itself, which a hook on its input has seen already."""
    double = [("unembed.hook_in", lambda x, hook: 2 * x), ("unembed.hook_out", lambda x, hook: x + 1)]
    with any_model.hooks(double):
        found = any_model.answer_logits(PROMPTS[:2], space)
        residuals, _ = any_model.last_residuals(PROMPTS[:2])
        injected = any_model.inject(residuals, TARGETS[:2], space)
        lens = any_model.read_out(residuals[:, any_model.n_layers - 1], space)
        plain = []
        for prompt in PROMPTS[:2]:
            ids = torch.tensor([any_model.token_ids(prompt)])
            with torch.no_grad():
                plain.append(AnswerLogits.of(any_model.bridge(ids)[:, ids.shape[1] - 1], space))
    same(found, AnswerLogits.concatenate(plain))
    same(lens, found)
    same(injected[:, any_model.n_layers - 1], found)


@pytest.mark.parametrize("grows", [True, False])
def test_no_hook_is_left_after_an_exception(tiny_model, grows, monkeypatch):
    monkeypatch.setattr(tiny_model, "grows", grows)
    space, left = tiny_model.answer_space(PROMPTS), hooks_left(tiny_model)
    residuals, _ = tiny_model.last_residuals(PROMPTS)

    def fail(x, hook):
        raise ArithmeticError("in the hook")

    for call in (
        lambda: tiny_model.forward(PROMPTS, space),
        lambda: tiny_model.last_residuals(PROMPTS),
        lambda: tiny_model.inject(residuals, TARGETS, space),
        lambda: tiny_model.read_out(residuals, space),
    ):
        name = "blocks.2.hook_out" if call.__code__.co_names[0] != "read_out" else "ln_final.hook_in"
        with pytest.raises(ArithmeticError), tiny_model.hooks([(name, fail)]):
            assert hooks_left(tiny_model) > left
            call()
        assert hooks_left(tiny_model) == left


def test_unknown_hook_name_is_refused_and_nothing_attached(tiny_model):
    left = hooks_left(tiny_model)
    pairs = [("blocks.0.hook_out", lambda x, hook: None), ("blocks.9.hook_out", lambda x, hook: None)]
    named = r"no hook point 'blocks\.9\.hook_out'.*blocks\.0\.hook_out"
    with pytest.raises(ModelError, match=named), tiny_model.hooks(pairs):
        pytest.fail("must not be entered")
    assert hooks_left(tiny_model) == left


# Inputs


def test_useless_inputs_are_refused(tiny_model):
    space = tiny_model.answer_space(PROMPTS)
    residuals, _ = tiny_model.last_residuals(PROMPTS)
    for call in (tiny_model.encode, tiny_model.last_residuals, tiny_model.answer_space):
        for prompts in ([], "one prompt, not a list"):
            with pytest.raises(ValueError, match="list of at least one prompt"):
                call(prompts)
    with pytest.raises(ValueError, match="0 tokens"):
        tiny_model.last_residuals(["fine", ""])
    with pytest.raises(ValueError, match=r"has 1300 tokens; .* reads 1 to 1024"):
        tiny_model.last_residuals(["x" * 1300])
    with pytest.raises(ValueError, match="6 targets"):
        tiny_model.inject(residuals[:2], TARGETS, space)
    with pytest.raises(ValueError, match=r"layers \[2\]"):
        tiny_model.inject(residuals, TARGETS, space, layers=[0, 1])
    for positions in ((0,), (-2,), (-1, -1)):
        values = residuals.unsqueeze(2).repeat(1, 1, len(positions), 1)
        with pytest.raises(ValueError, match="-1 to -1 here"):
            tiny_model.inject(values, TARGETS, space, positions=positions)
    for ids, found in (((), "has 0 tokens"), ((5, 300), "run from 0 to 258, found .*300")):
        with pytest.raises(ValueError, match=found):
            tiny_model.inject(residuals, [ids, *TARGETS[1:]], space)
    with pytest.raises(ValueError, match="0 to 3"):
        tiny_model.inject(residuals[:, :1], TARGETS, space, layers=[4])
    with pytest.raises(ValueError, match="width 32"):
        tiny_model.read_out(residuals[..., :5], space)
    with pytest.raises(ValueError, match="not one token"):
        tiny_model.answer_space(PROMPTS, classes=("10", "11"))


def test_tokens_are_those_of_the_tokenizer(tiny_models):
    for name, bos in (("qwen2", False), ("llama", True), ("gpt2", False), ("gemma2", True)):
        model = tiny_models[name]
        ids = model.token_ids("x = 3")
        assert (ids[0] == model.tokenizer.bos_token_id) is bos
        assert model.decode(ids[bos:]) == "x = 3"
        space = model.answer_space(PROMPTS)
        assert space.classes == DIGITS and [model.decode([i]) for i in space.token_ids] == list(DIGITS)


def test_nothing_global_changes(tiny_model):
    space = tiny_model.answer_space(PROMPTS)
    state, side = torch.random.get_rng_state(), tiny_model.tokenizer.padding_side
    result = tiny_model.forward(PROMPTS, space)
    tiny_model.inject(result.residuals, TARGETS, space)
    tiny_model.read_out(result.residuals, space)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.is_grad_enabled() and tiny_model.tokenizer.padding_side == side
    assert not result.residuals.requires_grad


def test_answer_logits_never_keep_the_vocabulary():
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(0))
    space = AnswerSpace(("a", "b"), ((3,), (40,)))
    found = AnswerLogits.of(logits, space)
    assert torch.equal(found.logits, logits[:, [3, 40]]) and torch.equal(found.top_id, logits.argmax(1))
    close(found.other_mass, 1 - logits.softmax(1)[:, [3, 40]].sum(1), 1e-6)
    assert found.reshape(7, 1)[2:4].logits.shape == (2, 1, 2)
    assert repr(found) == "AnswerLogits(7 rows, 2 classes)"


# Loading


def test_a_loaded_model_says_what_it_is(tiny_model, tiny_folders):
    assert (tiny_model.n_layers, tiny_model.d_model, tiny_model.d_vocab) == (4, 32, tiny.VOCABULARY)
    assert tiny_model.dtype == torch.float32 and tiny_model.device.type == "cpu"
    assert tiny_model.name == "qwen2" and tiny_model.revision is None
    assert "4 layers x 32" in repr(tiny_model)
    assert str(tiny_model.check).startswith("self-check passed: residual additivity")
    assert "10 answer tokens distinct" in str(tiny_model.check)


def test_hashes_follow_weights_and_tokenizer(tiny_model, tiny_folders, tiny_models, tmp_path):
    again = load_model(tiny_folders["qwen2"], device="cpu")
    assert again.weights_hash == tiny_model.weights_hash
    assert again.tokenizer_hash == tiny_model.tokenizer_hash
    other = load_model(tiny.build("qwen2", tmp_path, seed=1), device="cpu")
    assert other.weights_hash != tiny_model.weights_hash
    assert other.tokenizer_hash == tiny_model.tokenizer_hash
    assert tiny_models["llama"].tokenizer_hash != tiny_model.tokenizer_hash


def test_from_bridge(tiny_model):
    model = HookedModel.from_bridge(tiny_model.bridge, tiny_model.tokenizer)
    space = model.answer_space(PROMPTS)
    same(model.answer_logits(PROMPTS, space), tiny_model.answer_logits(PROMPTS, space), 0)
    assert HookedModel.from_bridge(tiny_model.bridge).tokenizer is tiny_model.bridge.tokenizer


def test_bfloat16(any_model, tiny_folders):
    model = load_model(tiny_folders[any_model.name], device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    exact, _ = any_model.last_residuals(PROMPTS)
    rounded, _ = model.last_residuals(PROMPTS)
    assert rounded.dtype == torch.float32
    close(rounded, exact, 5e-2)


def test_device_map(tiny_folders, tiny_model):
    """Blocks placed one by one; here all on the CPU, which goes through the same dispatch."""
    folder = tiny_folders["qwen2"]
    spread = {f"model.layers.{layer}": "cpu" for layer in range(4)}
    spread |= {name: "cpu" for name in ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head")}
    for device_map in ("auto", spread):
        model = load_model(folder, device_map=device_map)
        close(model.last_residuals(PROMPTS)[0], tiny_model.last_residuals(PROMPTS)[0])
        assert model.grows
    with pytest.raises(ModelError, match="give one of them"):
        load_model(folder, device="cpu", device_map="auto")


@pytest.mark.parametrize("dtype", ["float33", "int8", torch.int64])
def test_dtype_must_be_a_floating_one(tiny_folders, dtype):
    with pytest.raises(ModelError, match="dtype"):
        load_model(tiny_folders["qwen2"], dtype=dtype)


@pytest.fixture
def folder(tiny_folders, tmp_path):
    """A copy of a good folder, to be damaged."""
    return shutil.copytree(tiny_folders["qwen2"], tmp_path / "model")


def test_a_good_copy_loads(folder):
    load_model(folder, device="cpu")


def test_folder_without_tokenizer(folder):
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match=r"no tokenizer there .*save_pretrained"):
        load_model(folder)


def test_folder_without_config(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_model(folder)


def test_corrupt_config(folder):
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="asked for the model"):
        load_model(folder)


def test_unsupported_architecture(folder):
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"qwen2"', '"nosuch"').replace("Qwen2For", "NosuchFor"))
    with pytest.raises(ModelError, match=r"nosuch.*TransformerLens supports"):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 4, 100, -1000])
def test_truncated_weights(folder, keep):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(ModelError, match="its files are whole"):
        load_model(folder)


def test_no_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="its files are whole"):
        load_model(folder)


def test_weights_that_lack_a_tensor_are_not_filled_with_noise(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"1 weights are not in the checkpoint.*layers\.1\.mlp\.up_proj"):
        load_model(folder)


@pytest.mark.parametrize("name", ["/no/such/folder", "./no-such-folder", "no such/model"])
def test_missing_folder(name):
    with pytest.raises(ModelError, match="no such folder"):
        load_model(name)


def test_hub_id_without_network():
    with pytest.raises(ModelError, match=r"brewlens-nobody/no-such-model.*hub can be reached"):
        load_model("brewlens-nobody/no-such-model")


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(ModelError, match=r"no-such-model.*hub cannot be reached"):
        load_model("brewlens-nobody/no-such-model")
    assert time.monotonic() - start < 12


# The self-check refuses


@pytest.mark.parametrize(("digit", "reason"), [("_", "must be distinct"), ("_d", "not one token")])
def test_digits_that_share_a_first_piece_are_refused(tiny_folders, tmp_path, digit, reason):
    """The first piece of every digit is the same; taking it for the answer would look fine."""
    # Not from Qwen-2's folder: its tokenizer class drops a normalizer that is not its own.
    folder = shutil.copytree(tiny_folders["llama"], tmp_path / "model")
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.normalizer = normalizers.Replace(Regex("[0-9]"), digit)
    backend.save(str(folder / "tokenizer.json"))
    with pytest.raises(ModelError, match=f"distinct single tokens, found: .*{reason}"):
        load_model(folder)


class Scaled(torch.nn.Module):
    """Wrong by a little: what a norm with the wrong epsilon or offset would do."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return 1.01 * self.inner(x)


def test_a_read_out_that_is_not_the_models_is_refused(any_model, tiny_folders):
    bridge = load_model(tiny_folders[any_model.name], device="cpu").bridge
    bridge._modules["ln_final"] = Scaled(bridge.ln_final).eval()
    with pytest.raises(ModelError, match=r"self-check failed.*found read_out 0\.0"):
        HookedModel.from_bridge(bridge, any_model.tokenizer)


def test_a_residual_that_does_not_add_up_is_refused(any_model, tiny_folders):
    bridge = load_model(tiny_folders[any_model.name], device="cpu").bridge
    sabotage = bridge.hooks(fwd_hooks=[("blocks.2.hook_out", lambda x, hook: 1.01 * x)])
    with sabotage, pytest.raises(ModelError, match="additivity"):
        HookedModel.from_bridge(bridge, any_model.tokenizer)
    HookedModel.from_bridge(bridge, any_model.tokenizer)


def test_an_edit_that_does_nothing_is_refused(tiny_model, tiny_folders):
    """A hook behind the last block that ignores what it is given hides every edit."""
    bridge = load_model(tiny_folders["qwen2"], device="cpu").bridge
    sabotage = bridge.hooks(fwd_hooks=[("ln_final.hook_in", lambda x, hook: torch.ones_like(x))])
    with sabotage, pytest.raises(ModelError, match="edit"):
        HookedModel.from_bridge(bridge, tiny_model.tokenizer)


def test_compatibility_mode_and_training_mode_are_refused(tiny_model, tiny_folders):
    bridge = load_model(tiny_folders["qwen2"], device="cpu").bridge
    bridge.original_model.train()
    with pytest.raises(ModelError, match="training mode"):
        HookedModel.from_bridge(bridge, tiny_model.tokenizer)
    bridge.original_model.eval()
    bridge.enable_compatibility_mode()
    with pytest.raises(ModelError, match="compatibility mode"):
        HookedModel.from_bridge(bridge, tiny_model.tokenizer)


def test_a_model_whose_batch_cannot_grow_gets_the_padded_way(tiny_model, monkeypatch):
    for broken in (RuntimeError("sizes do not match"), None):

        def growing(*args, broken=broken):
            if broken:
                raise broken
            for rows, output in injection.padded(*args):
                yield rows.flip(0), output

        monkeypatch.setattr(injection, "growing", growing)
        model = HookedModel.from_bridge(tiny_model.bridge, tiny_model.tokenizer)
        assert not model.grows and "padded" in str(model.check)


def test_longrope_ends_where_its_embeddings_would_switch(tmp_path):
    """Beyond that, a long prompt would change what a short one beside it reads."""
    from transformers import Phi3Config, Phi3ForCausalLM

    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    config = Phi3Config(
        **{**tiny._ROTARY, "max_position_embeddings": 256},
        original_max_position_embeddings=64,
        rope_parameters={**rope, "original_max_position_embeddings": 64},
    )
    Phi3ForCausalLM(config).save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    model = load_model(tmp_path, device="cpu")
    assert model.context == 64
    model.last_residuals(["x" * 64])
    for prompt in ("x" * 65, (5,) * 65):
        with pytest.raises(ValueError, match="reads 1 to 64"):
            model.last_residuals([prompt])


def test_a_forward_that_fails_is_told_with_the_model_and_what_to_do(tiny_model, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("Original component not set for rotary_emb")

    monkeypatch.setattr(type(tiny_model.bridge), "forward", fail)
    with pytest.raises(ModelError, match=r"cannot run this architecture.*another version"):
        HookedModel.from_bridge(tiny_model.bridge, tiny_model.tokenizer)
