"""Loading: a bundled model, a Hugging Face folder or a hub id, with raw weights, or a clear refusal."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch

from brewlens import reference
from brewlens.model import HookedModel, ModelError

if TYPE_CHECKING:
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerBase

BUNDLED = ("reference",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


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
        ModelError: If it cannot be loaded or fails the self-check.
    """
    name = str(name_or_path)
    source = _source(name)
    if isinstance(dtype, str):
        dtype = getattr(torch, dtype, dtype)
    dtype = torch.float32 if dtype is None else dtype
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ModelError(f"{name}: asked for dtype {dtype!r}; use 'float32' or 'bfloat16'")
    if device is not None and device_map is not None:
        raise ModelError(
            f"{name}: asked for device {device!r} and device_map {device_map!r}; give one of them"
        )
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    bridge, tokenizer = _boot(name, source, torch.device(device), dtype, device_map)
    revision = getattr(bridge.original_model.config, "_commit_hash", None)
    return HookedModel.from_bridge(
        bridge, tokenizer, name=name, revision=revision, check_prompts=check_prompts
    )


def _source(name: str) -> str:
    """The folder or hub id behind a name."""
    if name in BUNDLED:
        try:
            return str(reference.path())
        except FileNotFoundError as error:
            raise ModelError(
                f"asked for the bundled model {name!r}, found no weights in this installation; "
                "reinstall brewlens, or train it: brewlens reference train"
            ) from error
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists() or not _HUB_ID.fullmatch(name):
            raise ModelError(
                f"asked for the model {name!r}, found no such folder; give {list(BUNDLED)}, a folder with "
                "config.json, weights and tokenizer, or a hub id such as 'Qwen/Qwen2.5-Coder-0.5B'"
            )
        _check_hub(name)
        return name
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"asked for the model in {name!r}, found no config.json there; save it with save_pretrained()"
        )
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(
            f"asked for the model in {name!r}, found no tokenizer there (none of "
            f"{', '.join(_TOKENIZER_FILES)}); save it there with tokenizer.save_pretrained()"
        )
    return str(folder)


def _check_hub(name: str) -> None:
    """Say at once that the hub cannot be reached, instead of after a minute of retries."""
    from huggingface_hub import constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE or try_to_load_from_cache(name, "config.json"):
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except HTTPError:
        return  # it answered
    except OSError as error:
        raise ModelError(
            f"asked for the model {name!r}, found no folder and no cached model of that name, and the hub "
            f"cannot be reached ({error}); go online, set HF_ENDPOINT to a mirror, or give a local folder"
        ) from error


def _boot(
    name: str,
    source: str,
    device: torch.device,
    dtype: torch.dtype,
    device_map: str | dict[str, str | int] | None,
) -> tuple[TransformerBridge, PreTrainedTokenizerBase]:
    from safetensors import SafetensorError
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
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
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
