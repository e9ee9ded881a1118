"""Loading: a bundled model, a Hugging Face folder or a hub id, with raw weights, or a clear refusal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError  # what torch.load raises for weights that it refuses
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError

from brewlens.devices import usable
from brewlens.model import HookedModel, ModelError
from brewlens.model_source import shown_name, source

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase

# What reading a folder or starting a bridge raises for files that are not what they should be.
_UNREADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError, UnpicklingError)


def load_model(
    name_or_path: str | Path,
    *,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    device_map: str | dict[str, str | int] | None = None,
    check_prompts: Sequence[str] | None = None,
) -> HookedModel:
    """Load a model and its tokenizer, and check that what brewlens needs holds for it.

    Args:
        name_or_path: ``"reference"`` (bundled), a local Hugging Face folder, or a hub id.
        device: Default: the first CUDA device if there is one, else the CPU.
        dtype: ``float32`` (default), ``bfloat16`` or ``float16``, as a torch type or its name.
        device_map: Spread the blocks over several devices, as Hugging Face does: ``"auto"`` or a dictionary.
            Instead of ``device``.
        check_prompts: Prompts of the self-check, which end where a digit must follow. Default: two
            short assignments, each followed by ``# The value of x is "``.

    Raises:
        ModelError: If it cannot be loaded, fails the self-check, or the device is not there.
    """
    name = str(name_or_path)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(f"{name}: asked for dtype {dtype!r}; use 'float32', 'bfloat16' or 'float16'")
    if device is not None and device_map is not None:
        raise ModelError(
            f"{name}: asked for device {device!r} and device_map {device_map!r}; give one of them"
        )
    target = usable(device, f"{name}: ")
    for part in device_map.values() if isinstance(device_map, dict) else ():
        if part != "disk":
            usable(f"cuda:{part}" if isinstance(part, int) else part, f"{name}: ")
    bridge, tokenizer = _boot(name, source(name), target, dtype, device_map)
    revision = getattr(bridge.original_model.config, "_commit_hash", None)
    return HookedModel.from_bridge(
        bridge, tokenizer, name=shown_name(name), revision=revision, check_prompts=check_prompts
    )


def _boot(
    name: str,
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    device_map: str | dict[str, str | int] | None,
) -> tuple[TransformerBridge, PreTrainedTokenizerBase]:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=dtype,
            attn_implementation="eager",
            device_map=device_map,
            output_loading_info=True,
            trust_remote_code=False,
        )
        network, report = loaded
        if absent := sorted(report["missing_keys"] | set(report["mismatched_keys"])):
            # transformers fills such weights with random numbers and only logs it.
            raise ModelError(f"{len(absent)} weights are not in the checkpoint, first: {absent[:3]}")
        if any(p.is_meta for p in network.parameters()):
            raise ModelError("weights were left on disk, where they cannot be checked; leave disk out")
        network = network.eval() if device_map is not None else network.to(device).eval()
        bridge = TransformerBridge.boot_transformers(
            source,
            hf_model=network,
            # A second one: the bridge changes the settings of the tokenizer that it is given.
            tokenizer=AutoTokenizer.from_pretrained(source, trust_remote_code=False),
            device=None if device_map is not None else device,
            dtype=dtype,
        )
        _keep_dtype(bridge, dtype)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:400]
        raise ModelError(
            f"asked for the model {name!r}, found {type(error).__name__}: {reason}. Check that it is a "
            "causal language model that TransformerLens supports, that its files are whole and, for a hub "
            "id, that the hub can be reached or the model is in the local cache"
        ) from error
    return bridge, tokenizer


def _keep_dtype(bridge: TransformerBridge, dtype: torch.dtype) -> None:
    """Cast rotated queries and keys back, as Hugging Face does where embeddings are float32 (OLMo 2)."""
    if dtype == torch.float32:
        return
    for name in ("hook_rot_q", "hook_rot_k"):
        for block in bridge.blocks:
            point = getattr(getattr(block, "attn", None), name, None)
            if point is not None:
                point.add_perma_hook(lambda x, hook: x.to(dtype))
