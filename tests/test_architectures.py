"""The matrix of architectures, held against Hugging Face's own forward.

What is compared with owes nothing to TransformerLens: transformers loads the weights a second time, and one
prompt at a time runs through it with plain torch hooks on its decoder layers.

In float32 the two must agree. In bfloat16 two right computations differ by rounding, which large random
weights amplify, so a fixed bound would say more about the weights than about the engine. There both are held
against a float32 run of the same rounded weights and written values: brewlens may be as far off as the naive
bfloat16 loop, up to :data:`NOISE`. A naive loop whose linear layers round at random, by half a unit in the
last place, was up to 1.6 times as far off as the plain one (48 runs); a shift by one layer is 40 and more.

Where experts are chosen, rounding can break a near-tie the other way, in either loop, and the row becomes
another one. That concerns single rows: there the median row is compared, and float32 answers for every row.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

import architectures
import pytest
import torch
from architectures import WINDOW
from tiny import LAYERS, WIDTH
from torch import Tensor
from transformers import AutoModelForCausalLM, PreTrainedModel

from brewlens import growing, injection, kv_cache
from brewlens.answer_logits import AnswerLogits
from brewlens.answers import AnswerSpace
from brewlens.kv_cache import PrefixCache
from brewlens.loading import load_model
from brewlens.model import HookedModel, ModelError
from brewlens.rows import Rows

# Whether injection may let a batch grow from block to block, or must run every row's whole target. BLOOM
# and Falcon repeat their position bias for the rows that enter the first block, GPT-BigCode's keys have no
# axis of heads, and the three hybrid models carry a recurrent state beside keys and values.
GROWS = {
    "qwen2": True,
    "qwen3": True,
    "llama2": True,
    "llama2_linear": True,
    "llama3": True,
    "mistral": True,
    "gemma2": True,
    "gemma3": True,
    "gpt2": True,
    "pythia": True,
    "starcoder2": True,
    "olmo2": True,
    "phi3": True,
    "gptj": True,
    "mixtral": True,
    "deepseek_v2": True,
    "bloom": False,
    "recurrent_gemma": False,
    "qwen3_next": False,
    "jamba": False,
    "opt": True,
    "gpt_bigcode": False,
    "falcon_alibi": False,
    "mpt": True,
    "cohere2": True,
    "smollm3": True,
    "exaone4": True,
    "bitnet": True,
    "jetmoe": True,
}
# TransformerLens' attention bridge of each, where it is not the one with rotary embeddings handed in.
ROTARY = "PositionEmbeddingsAttentionBridge"
BRIDGES = {
    "gpt2": "JointQKVAttentionBridge",
    "pythia": "JointQKVPositionEmbeddingsAttentionBridge",
    "phi3": "JointQKVPositionEmbeddingsAttentionBridge",
    "gptj": "AttentionBridge",
    "deepseek_v2": "MLAAttentionBridge",
    "bloom": "BloomAttentionBridge",
    "recurrent_gemma": None,
    "jamba": "AttentionBridge",
    "opt": "AttentionBridge",
    "gpt_bigcode": "JointQKVAttentionBridge",
    "falcon_alibi": "ALiBiJointQKVAttentionBridge",
    "mpt": "MPTALiBiAttentionBridge",
    "cohere2": "_Cohere2AttentionBridge",
    "smollm3": "_SmolLM3AttentionBridge",
    "exaone4": "_Exaone4AttentionBridge",
    "bitnet": "_BitNetAttentionBridge",
    "jetmoe": "_JetMoeAttentionBridge",
}
# Bridges of encoders, of models whose code is not part of transformers, and bases that no architecture uses.
NOT_BUILT = {
    "CodeGenAttentionBridge": "TransformerLens 4.3 cannot run CodeGen: no embed_positions",
    "GlmMoeDsaAttentionBridge": "TransformerLens 4.3 calls its indexer with a deprecated keyword",
    "NativeForwardAttentionBridge": "T5Gemma: an encoder",
    "T5Gemma2MergedAttentionBridge": "T5Gemma 2: an encoder",
    "_BaichuanAttentionBridge": "code of its own on the hub",
    "_InternLM2AttentionBridge": "code of its own on the hub",
    "_LLaDAAttentionBridge": "code of its own on the hub",
    "_LLaDA2FusedAttentionBridge": "code of its own on the hub",
    "_OpenAIGPTJointQKVAttentionBridge": "the first GPT keeps no cache",
}
# Of transformers below 5.23, which compile its scaling so, with a torch that is newer.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")
ROUTED = ("mixtral", "deepseek_v2", "qwen3_next", "jamba")
# OPT's blocks run their MLP on rows and positions in one axis, which a batch that grows upsets.
PADDED_TAPS = {("opt", "mlp_out")}
# What makes an architecture special; without it the logits must change, or the matrix would not test it.
PECULIAR = (
    ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 100.0}}),
    ("llama2_linear", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}),
    ("llama3", {"rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}),
    ("mistral", {"sliding_window": None}),
    ("gemma2", {"layer_types": ["full_attention"] * LAYERS}),
    ("gemma2", {"attn_logit_softcapping": None}),
    ("gemma2", {"final_logit_softcapping": None}),
    ("gemma3", {"layer_types": ["full_attention"] * LAYERS}),
    ("pythia", {"use_parallel_residual": False}),
    ("starcoder2", {"sliding_window": None}),
    ("phi3", {"sliding_window": None}),
    ("gptj", {"rotary_dim": 8}),
    ("mixtral", {"num_experts_per_tok": 1}),
    ("deepseek_v2", {"num_experts_per_tok": 1}),
    ("recurrent_gemma", {"attention_window_size": 1024}),
    ("recurrent_gemma", {"logits_soft_cap": 30.0}),
)
EXACT = 5e-5
NOISE = 2.0

CODE = ("a = 1\n", "b = 2\nb = b + 3\n", "", "c = 4\nfor i in range(3):\n    c += i\n")
# One token; within the window; past it; twice past it.
TARGETS = ('"', 'x: "', '# Value of c: "', '# The value of total is "')
PROMPTS = tuple(code + target for code in CODE for target in TARGETS[1::2])


@torch.no_grad()
def run(
    network: PreTrainedModel,
    ids: tuple[int, ...],
    layer: int | None = None,
    value: Tensor | None = None,
    positions: tuple[int, ...] = (-1,),
) -> tuple[Tensor, Tensor]:
    """One prompt through a plain network: ``[layer, d_model]`` behind every block, and ``[vocabulary]``."""
    body = network.base_model
    seen = {}

    def hook_of(at):
        def hook(module, inputs, output):
            x, *rest = output if isinstance(output, tuple) else (output,)
            if at == layer:
                x = x.clone()
                x[0, [len(ids) + position for position in positions]] = value.to(x)
            seen[at] = x[0, len(ids) - 1].float()
            return (x, *rest) if isinstance(output, tuple) else x

        return hook

    blocks = next(m for m in body.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == LAYERS)
    handles = [block.register_forward_hook(hook_of(at)) for at, block in enumerate(blocks)]
    try:
        logits = network(torch.tensor([ids]), use_cache=False).logits[0, len(ids) - 1]
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([seen[at] for at in range(len(blocks))]), logits.float()


def reduced(logits: Tensor, space: AnswerSpace) -> Tensor:
    """``[vocabulary]`` -> class logits and the logsumexp of the rest."""
    classes = list(space.token_ids)
    other = logits.clone()
    other[classes] = -torch.inf
    return torch.cat([logits[classes], other.logsumexp(0, keepdim=True)])


def columns(found: AnswerLogits) -> Tensor:
    return torch.cat([found.logits, found.log_other.unsqueeze(-1)], -1)


@dataclass
class Subject:
    """One architecture in one dtype, as brewlens has it and as Hugging Face does."""

    architecture: str
    model: HookedModel
    raw: PreTrainedModel
    exact: PreTrainedModel  # the same weights, computed in float32

    @cached_property
    def space(self) -> AnswerSpace:
        return self.model.answer_space(PROMPTS)

    @cached_property
    def residuals(self) -> Tensor:
        return self.model.last_residuals(PROMPTS)[0]

    @property
    def written(self) -> Tensor:
        """What goes into the targets: ``[target, layer, d_model]``."""
        return self.residuals[: len(TARGETS)]

    @cached_property
    def naive_passes(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Residuals and answers of the prompts, by the naive loop and in float32."""
        return self.both(self._passes)

    @cached_property
    def naive_injection(self) -> tuple[Tensor, Tensor]:
        """Answers after every residual went into every target, by the naive loop and in float32."""
        return self.both(self._injected)

    def both(self, measure: Callable[[PreTrainedModel], Any]) -> tuple[Any, Any]:
        """The naive loop's and the float32 one's, which in float32 are one."""
        naive = measure(self.raw)
        return naive, naive if self.model.dtype == torch.float32 else measure(self.exact)

    def _passes(self, network: PreTrainedModel) -> tuple[Tensor, Tensor]:
        passes = [run(network, self.model.token_ids(prompt)) for prompt in PROMPTS]
        return torch.stack([r for r, _ in passes]), torch.stack([reduced(z, self.space) for _, z in passes])

    def _injected(self, network: PreTrainedModel) -> Tensor:
        return self.injected_at(network, self.written.unsqueeze(2), TARGETS, (-1,))

    def injected_at(
        self, network: PreTrainedModel, values: Tensor, targets: tuple[str, ...], positions: tuple[int, ...]
    ) -> Tensor:
        rows = []
        for sample, target in enumerate(targets):
            ids = self.model.token_ids(target)
            for layer in range(LAYERS):
                logits = run(network, ids, layer, values[sample, layer], positions)[1]
                rows.append(reduced(logits, self.space))
        return torch.stack(rows).unflatten(0, (len(targets), LAYERS))

    def error(self, found: Tensor, naive: Tensor, exact: Tensor) -> float:
        """Above 1 is wrong: the error as a share of what is allowed."""
        assert found.shape == naive.shape == exact.shape
        if self.model.dtype == torch.float32:
            return float((found - naive).abs().max() / naive.abs().max() / EXACT)
        ours, theirs = ((x - exact).norm(dim=-1) / exact.norm(dim=-1) for x in (found, naive))
        if self.architecture in ROUTED:
            return float(ours.median() / (NOISE * theirs.median()))
        return float(ours.square().mean().sqrt() / (NOISE * theirs.square().mean().sqrt()))


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Architecture -> folder of its tiny model, built when first asked for."""
    built = {}

    def folder(architecture):
        if architecture not in built:
            built[architecture] = architectures.build(
                architecture, tmp_path_factory.mktemp("matrix") / architecture
            )
        return built[architecture]

    return folder


@pytest.fixture(
    scope="session",
    params=[
        pytest.param((name, dtype), id=f"{name}-{dtype}")
        for name in GROWS
        for dtype in (("float32",) if name in architectures.FURTHER else ("float32", "bfloat16"))
    ],
)
def subject(request, folders):
    architecture, dtype = request.param
    folder = folders(architecture)

    def plain() -> PreTrainedModel:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager").eval()

    raw = plain()
    exact = raw if dtype == "float32" else plain().float()
    return Subject(architecture, load_model(folder, device="cpu", dtype=dtype), raw, exact)


@pytest.fixture(params=["growing", "padded"])
def grows(request, subject, monkeypatch):
    """Each engine that the architecture can run, in turn."""
    if request.param == "growing" and not GROWS[subject.architecture]:
        pytest.skip("cannot grow: see test_a_fall_back_is_needed")
    monkeypatch.setattr(subject.model, "grows", request.param == "growing")
    return subject.model.grows


def test_the_matrix_is_whole():
    assert set(GROWS) == set(architectures.CONFIGS)
    lengths = [len(target) for target in TARGETS]
    assert lengths[0] == 1 and lengths[1] < WINDOW < lengths[2] and lengths[3] >= 2 * WINDOW
    assert max(map(len, PROMPTS)) > 2 * WINDOW > min(map(len, PROMPTS))


@pytest.mark.parametrize(("architecture", "changes"), PECULIAR)
def test_what_is_special_reaches_the_logits(architecture, changes):
    ids = tuple(range(40, 65))
    _, as_it_is = run(architectures.network(architecture), ids)
    _, without = run(architectures.network(architecture, **changes), ids)
    assert (as_it_is - without).abs().max() > 0.01 * as_it_is.abs().max()


def test_it_loads_and_says_how_it_injects(subject):
    assert subject.model.grows == subject.model.check.grows == GROWS[subject.architecture]
    assert bool(subject.model.check.refused) != subject.model.grows
    assert ("padded" in str(subject.model.check)) != subject.model.grows


def test_it_has_the_attention_that_is_listed(subject):
    found = {type(part).__name__ for part in kv_cache._attentions(subject.model.bridge)}
    listed = BRIDGES.get(subject.architecture, ROTARY)
    assert found == (set() if listed is None else {listed})


def test_every_attention_bridge_is_in_the_matrix():
    """A new one of TransformerLens must be looked at: give it a small model, or a reason."""
    from transformer_lens import model_bridge
    from transformer_lens.model_bridge.generalized_components.attention import AttentionBridge

    there = set()
    for part in ("generalized_components", "supported_architectures"):
        package = import_module(f"{model_bridge.__name__}.{part}")
        for module in iter_modules(package.__path__, f"{package.__name__}."):
            for name, kind in inspect.getmembers(import_module(module.name), inspect.isclass):
                if issubclass(kind, AttentionBridge) and kind.__module__ == module.name:
                    there.add(name)
    assert there == {ROTARY, *BRIDGES.values()} - {None} | set(NOT_BUILT)


@pytest.mark.parametrize(
    "subject", [(name, "float32") for name, grows in GROWS.items() if grows], indirect=True, ids=str
)
def test_tokens_behind_a_prefix_say_what_the_whole_prompt_says(subject):
    """The prefix reaches every attention: without it they say something else."""
    model = subject.model
    for tokens in model.ids(TARGETS[2:]):
        whole = model.read_from(model.batch([tokens]), lambda x, hook: x[:, len(x[0]) - 2 :])
        filled = model.prefix_cache(model.batch([tokens[:-2]]))
        cache = PrefixCache(filled, torch.zeros(1, dtype=torch.long))
        behind = model.read_from(model.batch([tokens[-2:]]), lambda x, hook: x, cache)
        alone = model.read_from(model.batch([tokens[-2:]]), lambda x, hook: x)
        assert (behind - whole).abs().max() <= EXACT * whole.abs().max()
        assert (alone - whole).abs().max() > 1e-2 * whole.abs().max()


def test_capture_equals_one_prompt_at_a_time(subject):
    (naive, _), (exact, _) = subject.naive_passes
    assert subject.residuals.shape == (len(PROMPTS), LAYERS, WIDTH)
    assert subject.error(subject.residuals, naive, exact) <= 1
    assert subject.error(subject.residuals.roll(1, 1), naive, exact) > 3
    assert subject.error(subject.residuals.roll(1, 0), naive, exact) > 3


def test_answers_and_the_read_out_of_the_last_residual_equal_the_logits(subject):
    (_, naive), (_, exact) = subject.naive_passes
    answers = subject.model.answer_logits(PROMPTS, subject.space)
    read = subject.model.read_out(subject.residuals, subject.space)
    assert subject.error(columns(answers), naive, exact) <= 1
    assert subject.error(columns(read[:, LAYERS - 1]), naive, exact) <= 1
    assert subject.error(columns(read[:, LAYERS - 2]), naive, exact) > 3


def test_injection_equals_the_naive_loop(subject, grows):
    naive, exact = subject.naive_injection
    found = subject.model.inject(subject.written, TARGETS, subject.space)
    assert subject.error(columns(found), naive, exact) <= 1
    wrong = subject.model.inject(subject.written.roll(1, 1), TARGETS, subject.space)
    assert subject.error(columns(wrong), naive, exact) > 3


def test_injection_of_several_tokens_equals_the_naive_loop(subject, grows):
    """A tail of three tokens, so that windows and masks see several queries; two targets share a batch."""
    targets, positions = (TARGETS[2], "# Value of d: '", TARGETS[3]), (-3, -1)
    values = torch.stack([subject.residuals[:3], subject.residuals[3:6]], 2)
    found = subject.model.inject(values, targets, subject.space, positions=positions)
    naive, exact = subject.both(lambda network: subject.injected_at(network, values, targets, positions))
    assert subject.error(columns(found), naive, exact) <= 1
    wrong = subject.model.inject(values.flip(2), targets, subject.space, positions=positions)
    assert subject.error(columns(wrong), naive, exact) > 3


@pytest.mark.parametrize("subject", [(name, "float32") for name in GROWS], indirect=True, ids=str)
@pytest.mark.parametrize("tap", ["attn_out", "mlp_out", "z"])
def test_injection_inside_blocks_grows_where_injection_does(subject, tap):
    """Hybrid models have a tap in some of their blocks; a batch grows there as it does at block outputs."""
    model, targets, positions = subject.model, [*TARGETS[2:], "# Value of d: '"], (-3, -1)
    layers = [layer for layer in range(LAYERS) if model.tap(tap, layer) in model.bridge.hook_dict]
    if not layers:
        with pytest.raises(ModelError, match=f"write at '{tap}', found no such hook point in any block"):
            model.grows_at(tap)
        return
    grows = GROWS[subject.architecture] and (subject.architecture, tap) not in PADDED_TAPS
    assert model.grows_at(tap) == grows
    own = model.states(targets, tap=tap, positions=positions, layers=layers)
    plain = columns(model.base_logits(targets, subject.space)).unsqueeze(1).expand(-1, len(layers), -1)
    options = {"layers": layers, "tap": tap, "positions": positions}
    ids = model.ids(targets)
    rows = [Rows.of(model, values, ids, subject.space, **options) for values in (own, own.roll(1, 0))]
    by_padding = [injection.run(model, row, grows=False)[0] for row in rows]
    assert subject.error(columns(by_padding[0]), plain.flatten(0, 1), plain.flatten(0, 1)) <= 1
    assert subject.error(columns(by_padding[1]), plain.flatten(0, 1), plain.flatten(0, 1)) > 3
    if grows:
        for row, expected in zip(rows, map(columns, by_padding), strict=True):
            grown = columns(injection.run(model, row, grows=True)[0])
            assert subject.error(grown, expected, expected) <= 1


@pytest.mark.parametrize(
    "subject", [(name, "float32") for name, grows in GROWS.items() if not grows], indirect=True, ids=str
)
def test_a_fall_back_is_needed(subject, monkeypatch):
    """There, a batch that grows is refused by the model itself or by its un-written row, never just wrong."""
    monkeypatch.setattr(subject.model, "grows", True)
    with pytest.raises((RuntimeError, ModelError), match=r"size|un-written row"):
        subject.model.inject(subject.written, TARGETS, subject.space)


def test_the_prior_equals_the_plain_forward(subject, monkeypatch):
    """Of the targets alone, and of the un-written row that travels with a growing batch."""
    ids = [subject.model.token_ids(target) for target in TARGETS]

    def plain(network):
        return torch.stack([reduced(run(network, one)[1], subject.space) for one in ids])

    naive, exact = subject.both(plain)
    prior = subject.model.base_logits(TARGETS, subject.space)
    assert subject.error(columns(prior), naive, exact) <= 1
    assert subject.error(columns(prior).roll(1, 0), naive, exact) > 3
    carriers = []

    def keep(model, target, found, space):
        carriers.append(columns(found)[0])

    monkeypatch.setattr(growing, "_compare", keep)
    for sample, target in enumerate(TARGETS):
        subject.model.inject(subject.residuals[[sample]], [target], subject.space)
    if subject.model.grows:
        assert subject.error(torch.stack(carriers), naive, exact) <= 1
    else:
        assert not carriers
