"""A training run's state in one safetensors file: tensors, and a JSON text in its header."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from brewlens.files import replacing


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file, whole or not at all."""
    data = save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=dict(metadata))
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def save_checkpoint(
    path: Path, network: nn.Module, optimisers: Mapping[str, torch.optim.Optimizer], state: Mapping[str, Any]
) -> None:
    """Store weights, the optimisers' state per weight, and ``state``.

    Args:
        path: The file, replaced whole.
        network: Its parameters' names key everything.
        optimisers: Name -> optimiser.
        state: Anything that JSON can hold.
    """
    names = {id(weight): name for name, weight in network.named_parameters()}
    tensors = {f"weight/{name}": weight.detach().cpu() for name, weight in network.named_parameters()}
    for title, optimiser in optimisers.items():
        for weight, values in optimiser.state.items():
            for key, value in values.items():
                tensors[f"{title}/{names[id(weight)]}/{key}"] = torch.as_tensor(value).detach().cpu()
    write_tensors(path, tensors, {"state": json.dumps(state)})


def load_checkpoint(
    path: Path, network: nn.Module, optimisers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Any]:
    """Restore what :func:`save_checkpoint` stored.

    Returns:
        ``state``.

    Raises:
        ValueError: If the file cannot be read whole, or belongs to another network.
    """
    weights = dict(network.named_parameters())
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            state = json.loads(file.metadata()["state"])
    except (SafetensorError, OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a whole checkpoint ({error}); train into a new folder") from error
    stored = {key.split("/", 1)[1]: tuple(t.shape) for key, t in found.items() if key.startswith("weight/")}
    wanted = {name: tuple(weight.shape) for name, weight in weights.items()}
    if stored != wanted:
        odd = sorted(name for name in stored.keys() | wanted.keys() if stored.get(name) != wanted.get(name))
        raise ValueError(f"{path} belongs to another network: {odd[:3]} differ in name or shape")
    for key, tensor in found.items():
        title, name, *rest = key.split("/")
        weight = weights[name]
        if title == "weight":
            with torch.no_grad():
                weight.copy_(tensor)
        else:
            place = "cpu" if rest[0] == "step" and weight.device.type == "cpu" else weight.device
            optimisers[title].state[weight][rest[0]] = tensor.to(place)
    return state
