"""Tuned lenses as files: those of brewlens, written and read, and the published format, read only.

A lens of brewlens is a folder with ``lens.safetensors`` and ``config.json``. The published format, of the
``tuned-lens`` package (Belrose et al., arXiv 2303.08112), is a folder with ``params.pt`` and a
``config.json`` of its own. Its translator ``k`` reads the *input* of block ``k``: translator 0 belongs to
the embeddings, and translator ``l + 1`` to the output of block ``l``, which is layer ``l`` here. Both add
the translated residual to the residual.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises for a file that it refuses
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from brewlens.decoding.tuned_lens import LensTraining, TunedLens, unembedding_hash
from brewlens.files import file_hash, write_json, write_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from brewlens.model import HookedModel

FORMAT = 1
KIND = "brewlens tuned lens"
CONFIG, TENSORS, PUBLISHED_TENSORS = "config.json", "lens.safetensors", "params.pt"


def save_lens(lens: TunedLens, folder: str | Path) -> Path:
    """Write ``lens.safetensors`` and then ``config.json``, which names its hash.

    Args:
        lens: The lens.
        folder: Made when it is not there; a lens that is there is replaced.

    Returns:
        The folder.
    """
    folder = Path(folder)
    write_tensors(folder / TENSORS, {"weight": lens.weight.cpu(), "bias": lens.bias.cpu()})
    config = {
        "kind": KIND,
        "format": FORMAT,
        "model": lens.model,
        "n_layers": lens.n_layers,
        "d_model": lens.d_model,
        "unembedding_hash": lens.unembedding_hash,
        "source": lens.source,
        "training": None if lens.training is None else asdict(lens.training),
        "tensors_blake2b": file_hash(folder / TENSORS),
    }
    write_json(folder / CONFIG, config)
    return folder


def load_lens(folder: str | Path) -> TunedLens:
    """Read what :func:`save_lens` wrote.

    Raises:
        ValueError: If the folder holds no lens of brewlens, one of another format version, or a damaged one.
    """
    from safetensors.torch import load_file

    folder = Path(folder)
    config = _read_config(folder)
    if config.get("kind") != KIND:
        hint = (
            f"it has a {PUBLISHED_TENSORS}, so read it with load_published"
            if (folder / PUBLISHED_TENSORS).exists()
            else "give the folder that TunedLens.save wrote"
        )
        raise ValueError(
            f"asked for a tuned lens of brewlens, found another kind of {CONFIG} in {folder}; {hint}"
        )
    if config.get("format") != FORMAT:
        raise ValueError(
            f"{folder} holds a tuned lens of format {config.get('format')!r}, this version of brewlens reads "
            f"{FORMAT}; read it with the version that wrote it, or train it again"
        )
    if not (folder / TENSORS).is_file() or file_hash(folder / TENSORS) != config.get("tensors_blake2b"):
        raise ValueError(
            f"{folder / TENSORS} is missing, or not the file whose hash is in {CONFIG}; fetch or train it "
            "again"
        )
    tensors = load_file(folder / TENSORS)
    try:
        return TunedLens(
            tensors["weight"],
            tensors["bias"],
            str(config["model"]),
            str(config["unembedding_hash"]),
            _training(config["training"]),
            str(config["source"]),
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / CONFIG} is damaged: {type(error).__name__} {error}; fetch or train the lens again"
        ) from error


def load_published(folder: str | Path, model: HookedModel, *, allow_other_model: bool = False) -> TunedLens:
    """Import a lens of the published format.

    The published hash of the unembedding sees only the corners of the matrix, to one decimal (see
    ``published_hash``), so it tells models apart but hardly a model from its fine-tuned versions.

    Args:
        folder: Holds ``config.json`` and ``params.pt``.
        model: The model that it is to read.
        allow_other_model: Import it though its hash is another one, or none. To use it on the model needs
            the same permission again.

    Returns:
        The translators of layers ``0 .. n_layers - 2``, in float32. That of the embeddings is left out.

    Raises:
        ValueError: If the files are missing, damaged or of another kind, or do not belong to the model.
    """
    folder = Path(folder)
    config = _read_config(folder)
    if (
        config.get("lens_type", "linear_tuned_lens") != "linear_tuned_lens"
        or "num_hidden_layers" not in config
    ):
        raise ValueError(
            f"asked for a published tuned lens (linear_tuned_lens), found in {folder / CONFIG} the keys "
            f"{sorted(config)[:8]}; a lens of brewlens is read by TunedLens.load"
        )
    shape = (config["num_hidden_layers"], config.get("d_model"))
    if shape != (model.n_layers, model.d_model):
        raise ValueError(
            f"asked for a lens of {model.name}, {model.n_layers} layers x {model.d_model}; found one of "
            f"{config.get('base_model_name_or_path')}, {shape[0]} layers x {shape[1]}"
        )
    theirs, ours = config.get("unembed_hash"), published_hash(model)
    if theirs != ours and not allow_other_model:
        raise ValueError(
            f"asked for a lens of {model.name}, whose unembedding has the published hash {ours}; found "
            f"{theirs or 'no hash'} in {folder / CONFIG}, of {config.get('base_model_name_or_path')}. Load "
            "that model, or pass allow_other_model=True if the lens is known to fit"
        )
    state = _published_state(folder / PUBLISHED_TENSORS)
    width = model.d_model
    expected = {f"{k}.{name}" for k in range(model.n_layers) for name in ("weight", "bias")}
    shapes = {"weight": (width, width), "bias": (width,)}
    if set(state) != expected or any(tuple(t.shape) != shapes[n.partition(".")[2]] for n, t in state.items()):
        raise ValueError(
            f"{folder / PUBLISHED_TENSORS} must hold {len(expected)} tensors, 0.weight [{width}, {width}] "
            f"and 0.bias [{width}] to {model.n_layers - 1}.bias; found {len(state)}: "
            f"{[(n, list(t.shape)) for n, t in sorted(state.items())[:4]]}"
        )
    layers = range(1, model.n_layers)
    return TunedLens(
        torch.stack([state[f"{k}.weight"].float() for k in layers]),
        torch.stack([state[f"{k}.bias"].float() for k in layers]),
        str(config.get("base_model_name_or_path")),
        unembedding_hash(model) if theirs == ours else f"published {theirs}",
        source=f"tuned-lens format, {folder.name}",
    )


def published_hash(model: HookedModel) -> str:
    """The hash of the unembedding as the ``tuned-lens`` package computes it.

    SHA-256 over numpy's *printed* form of the matrix at one decimal, which numpy abridges to the three
    first and last rows and columns.
    """
    matrix = model.unembedding.detach().float().cpu().numpy()
    # numpy's defaults, which a caller may have changed.
    with np.printoptions(
        threshold=1000, edgeitems=3, linewidth=75, suppress=False, floatmode="maxprec", sign="-"
    ):
        text = np.array_str(matrix, precision=1)
    return hashlib.sha256(text.encode()).hexdigest()


def _published_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``params.pt``.

    The one place where brewlens opens a torch file: an import of a foreign format. ``weights_only`` admits
    tensors and plain containers and forbids code. brewlens writes no such file.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"asked for a published tuned lens, found no {path}") from None
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise ValueError(
            f"{path} is damaged, or holds more than tensors and was refused; fetch it again from a source "
            f"that you trust ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(t, torch.Tensor) for t in state.values()):
        raise ValueError(f"{path} must hold a dictionary of tensors, found {type(state).__name__}")
    return state


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
    except OSError:
        raise ValueError(f"asked for a tuned lens in {folder}, found no {CONFIG} there") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{folder / CONFIG} is damaged ({error}); fetch or train the lens again") from None
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG} must hold a JSON object, found {type(config).__name__}")
    return config


def _training(entry: Any) -> LensTraining | None:
    if entry is None:
        return None
    found: dict[str, Any] = {field.name: entry[field.name] for field in fields(LensTraining)}
    found.update({name: tuple(value) for name, value in found.items() if isinstance(value, list)})
    return LensTraining(**found)
