"""Planted models: real transformers whose lifecycle, sample by sample, is a :class:`Truth`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import ascii_letters
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from brewlens import html
from brewlens.answers import DIGITS
from brewlens.brief import brief
from brewlens.decoding.targets import CONSTANT_SUFFIX
from brewlens.files import replacing, write_tensors
from brewlens.lifecycle.landmarks import NEVER
from brewlens.planted import network
from brewlens.planted.network import LOUDEST, MARK, Architecture, Layout
from brewlens.planted.simulated import SCALE, Simulated, simulate
from brewlens.planted.truth import Truth
from brewlens.planted.vocabulary import EVENTS, PLAIN, Vocabulary, word
from brewlens.tasks.item import Item, ItemSet
from brewlens.tasks.skeleton import identify
from brewlens.tasks.sources import write_items

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerFast

    from brewlens.model import HookedModel

FAMILY = "planted"
TWIN = "counterfactual"


@dataclass(frozen=True, eq=False)
class Event:
    """A planted token.

    Attributes:
        word: Its text.
        event: One of ``EVENTS``.
        layer: Block (0-based) in which it acts.
        to_available: Payload for ``available`` or ``request``, by digit.
        to_readout: Payload for ``readout``, by digit.
    """

    word: str
    event: str
    layer: int
    to_available: Float[np.ndarray, "10"] | None = None
    to_readout: Float[np.ndarray, "10"] | None = None

    __repr__ = brief


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A model as it is saved: a Hugging Face configuration, weights and a tokenizer."""

    config: PretrainedConfig
    weights: dict[str, Tensor]
    tokenizer: PreTrainedTokenizerFast

    def save(self, folder: str | Path) -> Path:
        """Write a folder that :func:`brewlens.load_model` reads, as does Hugging Face."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        self.config.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        write_tensors(folder / "model.safetensors", self.weights)
        return folder

    __repr__ = brief


@dataclass(frozen=True, eq=False, repr=False)
class Planted:
    """A planted model, its items, and what is so.

    Attributes:
        model: The model; it is what :func:`brewlens.load_model` gives of the saved folder.
        items: One item per sample, with a counterfactual twin as its partner. The prompt is its planted
            tokens and a question.
        truth: What is planted.
        simulated: Exact readouts: ``probe`` is what stands in ``layout.available``, ``context_stripped`` what
            context-stripped decoding gives, both to rounding.
        twins: The same of the twins, in the order of the items; ``twins.truth`` is what is planted in them.
        layout: Which dimensions of the residual stream hold what.
        checkpoint: The model as it is saved.
    """

    model: HookedModel
    items: ItemSet
    truth: Truth
    simulated: Simulated
    twins: Simulated
    layout: Layout
    checkpoint: Checkpoint

    def save(self, folder: str | Path) -> Path:
        """Write the model, ``items.jsonl`` and ``truth.csv``; of the twins ``twins.jsonl`` and ``twins.csv``.

        A file of items has no place for links: :func:`brewlens.tasks.sources.read_items` gives items
        without twins. Row ``k`` of ``twins.jsonl`` is the twin of row ``k`` of ``items.jsonl``.

        Returns:
            The folder, for :func:`brewlens.load_model`.
        """
        folder = self.checkpoint.save(folder)
        twins = ItemSet(tuple(self.items.partners[item.twins[TWIN]] for item in self.items))
        for items, truth, name, table in (
            (self.items, self.truth, "items.jsonl", "truth.csv"),
            (twins, self.twins.truth, "twins.jsonl", "twins.csv"),
        ):
            write_items(folder / name, items)
            with replacing(folder / table) as temporary:
                truth.to_frame().assign(id=list(items.ids)).set_index("id").to_csv(temporary)
        return folder

    def without(self, *events: str) -> ItemSet:
        """The items, and their twins, with the planted tokens of some events taken out of every prompt.

        Args:
            events: ``available``, ``ready``, ``write``, ``overwrite`` or ``noise``.

        Raises:
            ValueError: If an event is unknown.
        """
        if unknown := set(events) - set(EVENTS):
            raise ValueError(f"unknown events {sorted(unknown)}; there are {', '.join(EVENTS)}")
        items, partners = self.items, self.items.partners
        return ItemSet(
            tuple(_without(item, events) for item in items),
            {name: _without(twin, events) for name, twin in partners.items()},
            items.provenance,
        )

    def __repr__(self) -> str:
        kinds, counts = np.unique(self.truth.kind, return_counts=True)
        shares = ", ".join(f"{kind} {count}" for kind, count in zip(kinds, counts, strict=True))
        return (
            f"Planted({self.model.name}: {len(self.truth)} samples x {self.truth.n_layers} layers: {shares})"
        )

    def _repr_html_(self) -> str:
        """What is so by construction."""
        return html.card(repr(self), html.Html(self.truth._repr_html_()))


def plant(
    truth: Truth,
    *,
    hit: float = 0.95,
    probe_hit: float | None = None,
    correlation: float = 0.0,
    architecture: Architecture = "qwen2",
    seed: int = 0,
    device: str | torch.device | None = "cpu",
    dtype: torch.dtype | str | None = None,
) -> Planted:
    """A transformer with hand-set weights that does what the truth says, and items to trace it on.

    Its context-stripped readout is that of :func:`simulate` with the same arguments, and its residuals hold
    the scores of the simulated probe in ten dimensions. Of the others only those ten differ between samples
    that the unembedding reads. Noise comes by the prompts: a token per sample and layer.

    A probe has to find the ten dimensions and therefore hits less often than ``hit`` where samples are few,
    and more often from ``ready_from`` on, where the answer stands in the readout too, with noise of its own.

    Every item has a counterfactual twin, which no item of the set is: of its kind, layers, difficulty and
    length in tokens, with other digits (see :meth:`Truth.counterfactual`) and noise of its own.

    Args:
        truth: From :func:`draw_truth`.
        hit: Share of the layers from an onset on at which a decoder that knows the dimensions is right, where
            difficulty is 1. At 1 there is no noise.
        probe_hit: The same for ``available`` alone; ``hit`` by default.
        correlation: Of the noise of neighbouring layers.
        architecture: ``qwen2`` or ``llama``.
        seed: Of the noise, and of the digits of the twins.
        device: Where the model runs.
        dtype: ``float32`` (default) or ``bfloat16``.

    Raises:
        ValueError: If an answer becomes ready before it is available, or the noise is larger than the model
            can carry.
    """
    from brewlens.loading import load_model

    there = (truth.available_from != NEVER) & (truth.available_from <= truth.ready_from)
    if early := np.flatnonzero(truth.used & (truth.ready_from != NEVER) & ~there).tolist():
        raise ValueError(
            f"an answer is copied once it is available; {len(early)} samples are ready before, first "
            f"{early[:3]}. Let ready_from be available_from at least"
        )
    hits = {"probe": hit if probe_hit is None else probe_hit, "context_stripped": hit}
    simulated, made, events = _programs(truth, hits, correlation, seed)
    # Noise of their own: not the stream of the items.
    other = int(np.random.SeedSequence(seed).generate_state(1)[0])
    twins, partners, twin_events = _programs(truth.counterfactual(seed), hits, correlation, other, twin=True)
    planted = [event for program in (*events, *twin_events) for event in program]
    layout = Layout(truth.n_layers)
    vocabulary = Vocabulary(tuple(event.word for event in planted))
    letters = vocabulary.plain(ascii_letters)
    checkpoint = Checkpoint(
        network.config(architecture, layout, len(vocabulary)),
        network.weights(architecture, layout, _embedding(layout, planted, letters), vocabulary.plain(DIGITS)),
        vocabulary.tokenizer(),
    )
    with TemporaryDirectory() as folder:
        model = load_model(checkpoint.save(folder), device=device, dtype=dtype)
    model.name = f"planted-{architecture}"
    settings = {"hit": hits, "correlation": correlation, "architecture": architecture, "seed": seed}
    items = ItemSet(
        tuple(replace(item, twins={TWIN: twin.id}) for item, twin in zip(made, partners, strict=True)),
        {twin.id: twin for twin in partners},
        {"source": "planted", **settings, "short": {}},
    )
    return Planted(model, items, truth, simulated, twins, layout, checkpoint)


def _programs(
    truth: Truth, hits: Mapping[str, float], correlation: float, seed: int, twin: bool = False
) -> tuple[Simulated, list[Item], list[list[Event]]]:
    """What is simulated of the items or of their twins, the programs, and the planted tokens of each."""
    simulated, to_available, to_readout = _noise(truth, hits, correlation, seed)
    if twin:
        ids = tuple(f"{name}~{TWIN}" for name in simulated.readouts["probe"].item_ids)
        readouts = {name: replace(r, item_ids=ids) for name, r in simulated.readouts.items()}
        simulated = replace(simulated, readouts=readouts)
    noisy, mark = min(hits.values()) < 1, "c" if twin else ""
    events = [
        _events(truth, row, to_available[row], to_readout[row], noisy, f"{row}{mark}")
        for row in range(len(truth))
    ]
    # Of one length with its twin, and not the same even where nothing is planted.
    name = "y" if twin else "x"
    items = [
        _item(item_id, f"{name}_{row}", answer, program)
        for row, (item_id, answer, program) in enumerate(
            zip(simulated.readouts["probe"].item_ids, simulated.answers, events, strict=True)
        )
    ]
    return simulated, items, events


def _noise(
    truth: Truth, hits: Mapping[str, float], correlation: float, seed: int
) -> tuple[Simulated, Float[np.ndarray, "sample layer 10"], Float[np.ndarray, "sample layer 10"]]:
    """The simulation, and the noise in its two readouts, in answers: a noiseless answer is 1 high."""
    clean = simulate(replace(truth, difficulty=np.zeros(len(truth))))
    readouts, noise = {}, []
    for name, hit in hits.items():
        noisy = clean if hit == 1 else simulate(truth, hit=hit, correlation=correlation, seed=seed)
        readouts[name] = noisy.readouts[name]
        noise.append((readouts[name].logits - clean.readouts[name].logits) / SCALE)
    if not (largest := max(np.abs(n).max() for n in noise)) < LOUDEST:
        raise ValueError(
            f"the model carries noise up to {LOUDEST:.0f} answers high, found {largest:.3g}; lower the "
            "difficulty of the truth or raise hit"
        )
    output = readouts["context_stripped"].predicted[:, -1]
    return Simulated(truth, readouts, clean.answers, output), noise[0], noise[1]


def _events(
    truth: Truth,
    row: int,
    to_available: Float[np.ndarray, "layer 10"],
    to_readout: Float[np.ndarray, "layer 10"],
    noisy: bool,
    program: str,
) -> list[Event]:
    """The planted tokens of one sample, given its noise and the name of its program."""
    digit = np.eye(len(DIGITS))
    right, wrong = digit[truth.answer[row]], digit[truth.wrong[row]]
    onset, ready, lost = (
        int(layers[row]) for layers in (truth.available_from, truth.ready_from, truth.ready_until)
    )
    found = []
    if onset != NEVER:
        found.append(Event(word("available", program), "available", onset, right))
    if ready != NEVER and truth.used[row]:
        # With the answer its noise is copied; the readout has noise of its own.
        found.append(Event(word("ready", program), "ready", ready, None, -to_available[ready]))
    elif ready != NEVER:
        found.append(Event(word("write", program), "write", ready, None, right))
    elif truth.kind[row] == "misresolved":
        found.append(Event(word("write", program), "write", int(truth.written[row]), None, wrong))
    if lost != NEVER:
        found.append(Event(word("overwrite", program), "overwrite", lost, wrong))
    if noisy:
        steps = (np.diff(noise, axis=0, prepend=0) for noise in (to_available, to_readout))
        for layer, payload in enumerate(zip(*steps, strict=True)):
            found.append(Event(word("noise", program, layer), "noise", layer, *payload))
    return found


def _embedding(layout: Layout, planted: list[Event], letters: list[int]) -> Float[Tensor, "token d_model"]:
    found = torch.zeros(PLAIN + len(planted), layout.d_model)
    found[:, layout.one] = 1
    found[letters, layout.rest] = MARK
    rows = torch.arange(PLAIN, len(found))
    found[rows, [layout.layer(event.layer) for event in planted]] = MARK
    found[rows, [layout.event(event.event) for event in planted]] = MARK
    nothing = np.zeros(len(DIGITS))
    for name, where in (("to_available", layout.to_available), ("to_readout", layout.to_readout)):
        payloads = [getattr(event, name) for event in planted]
        payload = np.array([nothing if p is None else p for p in payloads], dtype=np.float32)
        found[PLAIN:, where] = torch.from_numpy(payload.reshape(-1, len(DIGITS)))
    return found


def _item(item_id: str, name: str, answer: str, events: list[Event]) -> Item:
    # A letter stands first, so that heads have where to rest at every planted token.
    code = f"{name} =" + "".join(event.word for event in events) + "\n"
    skeleton, shape = identify(code)
    return Item(
        id=item_id,
        family=FAMILY,
        factors={},
        code=code,
        suffix=CONSTANT_SUFFIX,
        prompt=code + CONSTANT_SUFFIX,
        answer=answer,
        skeleton=skeleton,
        shape=shape,
    )


def _without(item: Item, events: tuple[str, ...]) -> Item:
    start, *words = item.code.removesuffix("\n").split(" ")
    kept = [w for w in words if w.split("_")[0] not in events]
    code = " ".join([start, *kept]) + "\n"
    skeleton, shape = identify(code)
    return replace(item, code=code, prompt=code + item.suffix, skeleton=skeleton, shape=shape)
