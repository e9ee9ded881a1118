"""Capture: what the model holds at each prompt's last token, in memory or straight into shards on disk.

One pass serves any number of taps, and only what is asked for is kept: a hook gathers the last token of
every prompt, so no activation of a whole prompt outlives its block. Shards are safetensors files that are
filled batch by batch and read back memory-mapped; capturing or decoding ten thousand prompts takes the
memory of one batch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tqdm.auto import tqdm

from brewlens.answer_logits import AnswerLogits
from brewlens.files import replacing
from brewlens.passes import collect
from brewlens.residuals import RESID_POST, Residuals
from brewlens.tensor_file import TensorFile

if TYPE_CHECKING:
    from brewlens.answers import AnswerSpace
    from brewlens.model import HookedModel

log = logging.getLogger("brewlens")

TAPS = (RESID_POST, "resid_pre", "resid_mid", "attn_out", "mlp_out")
SHARD = 2048  # prompts per shard: what an interrupted capture loses at most
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def capture(
    model: HookedModel,
    prompts: Sequence[str],
    item_ids: Sequence[str],
    *,
    tap: str = RESID_POST,
    **options: Any,
) -> Residuals:
    """One tap of every layer at the last token of every prompt; arguments as in :func:`capture_taps`."""
    return capture_taps(model, prompts, item_ids, (tap,), **options)[tap]


def capture_taps(
    model: HookedModel,
    prompts: Sequence[str],
    item_ids: Sequence[str],
    taps: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    folder: str | Path | None = None,
    shard: int = SHARD,
    batch_tokens: int | None = None,
    progress: bool = False,
) -> dict[str, Residuals]:
    """Several taps in one pass.

    Args:
        model: The model.
        prompts: In any order and number.
        item_ids: One id per prompt.
        taps: ``resid_post`` (block output), ``resid_pre``, ``resid_mid``, ``attn_out``, ``mlp_out``.
        layers: Blocks (0-based); all by default.
        dtype: float32, bfloat16 or float16; by default the model's.
        folder: Write shards there and return them memory-mapped; in memory without. Shards that are
            there and were made from the same prompts, model and options are not made again.
        shard: Prompts per shard.
        batch_tokens: Most tokens in one forward; by default what fits 48 MiB on a processor, 2 GiB on a GPU.
        progress: Show a progress bar.

    Raises:
        ValueError: If ids, taps or layers do not fit, or the disk has no room.
        ModelError: If the model has no such tap.
    """
    ids = model.ids(prompts)
    layers = tuple(range(model.n_layers) if layers is None else layers)
    dtype = model.dtype if dtype is None else dtype
    if len(ids) != len(item_ids):
        raise ValueError(f"one id per prompt: found {len(item_ids)} ids for {len(ids)} prompts")
    if not taps or set(taps) - set(TAPS) or dtype not in DTYPES:
        raise ValueError(f"taps are {TAPS} and types {DTYPES}, found {tuple(taps)} and {dtype}")
    if folder is None:
        values, _ = collect(model, ids, taps, layers, None, batch_tokens, dtype, progress)
        return {tap: Residuals.of(v, item_ids, ids, model.name, layers, tap) for tap, v in values.items()}
    need = data_bytes(len(ids), len(layers), model.d_model, dtype, len(taps))
    size = f"{len(ids)} prompts x {len(layers)} layers x {model.d_model} x {len(taps)} taps"
    announced = f"capture: {size}, {need / 1e9:.3g} GB in {folder}"
    log.info(announced)
    if progress and not log.isEnabledFor(logging.INFO):
        tqdm.write(announced)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    there = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    if need - there > (free := shutil.disk_usage(folder).free):
        raise ValueError(f"{folder} needs {need / 1e9:.3g} GB and its disk has {free / 1e9:.3g} GB free")
    paths = []
    for number, start in enumerate(range(0, len(ids), shard)):
        part = slice(start, start + shard)
        paths.append(folder / f"{number:05d}.safetensors")
        key = _key(model, ids[part], item_ids[part], taps, layers, dtype)
        if _key_at(paths[-1]) != key:
            write_shard(
                *(paths[-1], model, ids[part], item_ids[part], taps),
                layers=layers,
                dtype=dtype,
                key=key,
                progress=progress,
                batch_tokens=batch_tokens,
            )
    return read_shards(paths)[0]


def data_bytes(n: int, layers: int, width: int, dtype: torch.dtype, taps: int = 1) -> int:
    """What the captured values take, in memory or on disk."""
    return n * layers * width * dtype.itemsize * taps


def write_shard(
    path: Path,
    model: HookedModel,
    ids: Sequence[tuple[int, ...]],
    item_ids: Sequence[str],
    taps: Sequence[str] = (RESID_POST,),
    *,
    layers: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
    space: AnswerSpace | None = None,
    key: str = "",
    progress: bool = False,
    **options: Any,
) -> None:
    """Run prompts and write their taps, their token ids and, with a space, the model's own answers.

    The file is whole or absent. Arguments as in :func:`capture_taps`.
    """
    layers = tuple(range(model.n_layers) if layers is None else layers)
    dtype = model.dtype if dtype is None else dtype
    n, lengths = len(ids), torch.tensor([len(i) for i in ids])
    shapes: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {
        tap: (dtype, (n, len(layers), model.d_model)) for tap in taps
    }
    shapes |= {"tokens": (torch.int32, (int(lengths.sum()),)), "lengths": (torch.int64, (n,))}
    if space is not None:
        shapes |= {
            "output.logits": (torch.float32, (n, len(space))),
            "output.log_other": (torch.float32, (n,)),
            "output.top_id": (torch.int64, (n,)),
        }
    metadata = {"ids": list(item_ids), "model": model.name, "layers": layers, "taps": list(taps), "key": key}
    with replacing(path) as temporary, TensorFile(temporary, shapes, metadata) as file:
        tokens = torch.tensor([t for i in ids for t in i])
        file.write("tokens", tokens)
        file.write("lengths", lengths)
        for swept in model.sweep(ids, taps=taps, layers=layers, space=space, progress=progress, **options):
            for tap, values in swept.taps.items():
                file.write(tap, values, swept.rows)
            if swept.output is not None:
                for name in ("logits", "log_other", "top_id"):
                    file.write(f"output.{name}", getattr(swept.output, name), swept.rows)


def read_shards(paths: Sequence[Path]) -> tuple[dict[str, Residuals], AnswerLogits | None]:
    """Memory-mapped residuals per tap, and the model's own answers where they were kept."""
    from safetensors.torch import load_file

    parts = [load_file(path) for path in paths]
    facts = [_facts(path) for path in paths]
    tokens = tuple(tuple(piece.tolist()) for p in parts for piece in p["tokens"].split(p["lengths"].tolist()))
    item_ids = tuple(i for fact in facts for i in fact["ids"])
    residuals = {
        tap: Residuals(
            tuple(p[tap] for p in parts), item_ids, tokens, facts[0]["model"], tuple(facts[0]["layers"]), tap
        )
        for tap in facts[0]["taps"]
    }
    if "output.logits" not in parts[0]:
        return residuals, None
    logits, log_other, top_id = (
        torch.cat([p[f"output.{name}"] for p in parts]) for name in ("logits", "log_other", "top_id")
    )
    return residuals, AnswerLogits(logits, log_other, top_id)


def _facts(path: Path) -> dict[str, Any]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return json.loads((file.metadata() or {}).get("brewlens", "{}"))


def _key(model: HookedModel, *what: object) -> str:
    """Hash of everything that a shard's content depends on."""
    content = json.dumps([model.weights_hash, str(model.dtype), *map(str, what)])
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def _key_at(path: Path) -> str | None:
    from safetensors import SafetensorError

    try:
        return _facts(path).get("key")
    except (OSError, SafetensorError):
        return None
