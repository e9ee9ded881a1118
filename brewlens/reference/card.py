"""The model card: what the reference model is, written from the run's own files and one evaluation."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from brewlens.reference.checkpoint import write_text
from brewlens.reference.config import EASY_LEVELS, TrainConfig
from brewlens.reference.data import BARE_SHARE
from brewlens.reference.evaluate import accuracy, evaluate
from brewlens.tasks import ItemSet, universe_of

_PLAN = ("minutes", "steps", "seed", "device", "threads", "compile")


def write_card(
    run_dir: str | Path,
    items: ItemSet,
    *,
    baseline: Mapping[str, float] | None = None,
    command: str | None = None,
    card_command: str | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run's model, and write ``README.md`` and ``training.json`` beside its weights.

    Args:
        run_dir: Folder of the run, as :func:`brewlens.reference.train.train` left it.
        items: Held-out items, every skeleton in the evaluation universe.
        baseline: Family -> accuracy of the text-only baseline on ``items``.
        command: The command that trained the model; by default it is put together from the run's plan.
        card_command: The command that measured the accuracies, if there is one to state.

    Returns:
        The facts, as ``training.json`` holds them.

    Raises:
        ValueError: If the run is not finished, or an item belongs to the training universe.
    """
    run = Path(run_dir)
    folder = run / "model"
    if not (folder / "model.safetensors").is_file():
        raise ValueError(f"{run} holds no finished run: there is no model/model.safetensors; resume it first")
    if seen := [item.id for item in items if universe_of(item.skeleton) != "eval"]:
        raise ValueError(f"{len(seen)} items belong to the training universe, first: {seen[:3]}")
    facts = run_facts(run) | {"command": command or _command(run), "card_command": card_command}
    frame = evaluate(folder, items)
    facts["evaluation"] = evaluation_facts(frame, items, baseline)
    write_text(folder / "training.json", json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
    write_text(folder / "README.md", render(facts))
    return facts


def run_facts(run: Path) -> dict[str, Any]:
    """What the files of a finished run say: recipe, plan carried out, machine, model.

    Raises:
        ValueError: If the log has no end.
    """
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    log = [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    ends = [record for record in log if record["event"] == "end"]
    if not ends:
        raise ValueError(f"{run} is not finished: its log has no end; resume it first")
    starts = [record for record in log if record["event"] == "start"]
    machines = [{k: v for k, v in record.items() if k not in ("event", "step")} for record in starts]
    steps = [record for record in log if record["event"] == "step"]
    model = json.loads((run / "model" / "config.json").read_text(encoding="utf-8"))
    weights = run / "model" / "model.safetensors"
    return {
        "brewlens": version("brewlens"),
        "recipe": config,
        "easy_levels": EASY_LEVELS,
        "machines": [m for k, m in enumerate(machines) if m not in machines[:k]],
        "sessions": len(starts),
        "steps": ends[-1]["step"],
        "programs": ends[-1]["programs"],
        "tokens": ends[-1]["tokens"],
        "seconds": ends[-1]["seconds"],
        "final_answer_loss": steps[-1]["answer_loss"] if steps else None,
        "architecture": {
            "type": model["architectures"][0],
            "layers": model["num_hidden_layers"],
            "d_model": model["hidden_size"],
            "heads": model["num_attention_heads"],
            "kv_heads": model["num_key_value_heads"],
            "mlp_width": model["intermediate_size"],
            "vocabulary": model["vocab_size"],
            "dtype": str(model["dtype"]),
            "parameters": _parameters(weights),
            "bytes": weights.stat().st_size,
            "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        },
    }


def evaluation_facts(
    frame: pd.DataFrame, items: ItemSet, baseline: Mapping[str, float] | None
) -> dict[str, Any]:
    """Accuracies with n and interval, overall, per family and per configuration."""
    families = accuracy(frame, ["family"])
    if baseline is not None:
        families["baseline"] = [baseline.get(name) for name in families["family"]]
    return {
        "items": len(frame),
        "provenance": dict(items.provenance),
        "fingerprint": items.fingerprint,
        "interval": "Wilson, 95 %",
        "factors": {item.family: list(item.factors) for item in items},
        "families": families.to_dict("records"),
        "configurations": accuracy(frame, ["family", "configuration"]).to_dict("records"),
    }


def render(facts: Mapping[str, Any]) -> str:
    """The card's text; every number in it is one of ``facts``."""
    arch, recipe, measured = facts["architecture"], facts["recipe"], facts["evaluation"]
    machines = "; ".join(
        f"{m['cores']} cores ({m['processor']})"
        + (f", {m['device']}" if m["device"] != "cpu" else f", {m['threads']} threads")
        + f", matrix products in {m['precision']}, torch {m['torch']}"
        for m in facts["machines"]
    )
    with_baseline = any("baseline" in row for row in measured["families"])
    head = ["family", "n", "right", "95 % interval", "full vocabulary"]
    family_rows = [
        [row["family"], *_numbers(row), *([_share(row["baseline"])] if with_baseline else [])]
        for row in measured["families"]
    ]
    sections = []
    for family, names in measured["factors"].items():
        rows = [
            [*row["configuration"].split("/"), *_numbers(row)]
            for row in measured["configurations"]
            if row["family"] == family
        ]
        sections.append(f"### {family}\n\n{_table([*names, *head[1:]], rows)}")
    easy = ", ".join(f"{name} {levels[0]}" for name, levels in facts["easy_levels"].items())
    seed = measured["provenance"].get("seed", "not stated")
    how = f"\n\n```\n{facts['card_command']}\n```" if facts.get("card_command") else ""
    configurations = "\n\n".join(sections)
    return f"""---
license: mit
library_name: transformers
pipeline_tag: text-generation
tags: [code, interpretability]
---

# brewlens reference model

A small causal language model that reads short Python programs and says the final value of a variable, one
digit. It is a specimen for brewlens: something real to measure where no model hub can be reached.

## What it is

* {arch["type"]}: {arch["layers"]} blocks, residual width {arch["d_model"]}, {arch["heads"]} heads
  ({arch["kv_heads"]} for keys and values), SwiGLU width {arch["mlp_width"]}, tied embeddings.
* {arch["parameters"]:,} parameters in {arch["dtype"]}, {arch["bytes"] / 1e6:.1f} MB, safetensors
  (SHA-256 `{arch["sha256"]}`).
* Byte-level BPE of {arch["vocabulary"]:,} tokens, learned on {recipe["tokenizer_programs"]:,} training
  programs; every digit is a token of its own; no token for the beginning of a text.
* Prompt: a program, then `# The value of NAME is "`; the next token is the answer.

## Data

Programs of the six brewlens families, drawn without end from the *training universe*: programs are divided
into two universes by a hash of their skeleton (the syntax tree with names abstracted and literals kept),
whatever the seed. Evaluation items and all of their twins have skeletons in the other one. No text written
by people was used.

## Training

```
{facts["command"]}
```

{facts["seconds"] / 60:.0f} minutes in {_plural(facts["sessions"], "session")} on {machines}:
{facts["steps"]:,} steps, {facts["programs"]:,} programs, {facts["tokens"]:,} tokens. Batches of
{recipe["batch"]} programs of like length; Muon (learning rate {recipe["matrix_lr"]:g}, momentum
{recipe["momentum"]:g}, weight decay {recipe["weight_decay"]:g}) for the matrices in the blocks, AdamW
({recipe["other_lr"]:g}) for the rest, linear decay to zero; cross-entropy weighted
{recipe["answer_weight"]:g} on the answer and {recipe["text_weight"]:g} on every other token; only the
easiest levels ({easy}) for the first {recipe["easy_fraction"]:.0%} of the plan;
after {recipe["bare_from"]:.0%} of it one program in {round(1 / BARE_SHARE)} was
a question alone, with any digit for an answer. Seed {recipe["seed"]}.
`training.json` beside this card holds these facts for programs to read.

## Accuracy on held-out programs

{measured["items"]:,} items of the evaluation universe (generator seed {seed}). *right*: the arg max over the
ten digits is the answer; *full vocabulary*: the arg max over all tokens is.{how}

{_table(head + (["text-only baseline"] if with_baseline else []), family_rows)}

## Accuracy per configuration

{configurations}

## What it is not

It knows these six families, this layout of programs and this question, and nothing else: it cannot write code
or chat. It is often wrong, on the hard configurations above most of all. That a finding holds in this
model says nothing about larger models trained on text; measure those too.
"""


def _numbers(row: Mapping[str, Any]) -> list[str]:
    interval = f"{row['low']:.2f}–{row['high']:.2f}"
    return [str(row["n"]), _share(row["accuracy"]), interval, _share(row["accuracy_vocab"])]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def _command(run: Path) -> str:
    """The call that repeats the run, from its plan and from what differs from the default recipe."""
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    defaults = {f.name: f.default for f in fields(TrainConfig)}
    given = {k: v for k, v in stored.items() if k in ("minutes", "seed") or v != defaults.get(k)}
    if set(given) <= set(_PLAN) - {"compile", "threads"}:
        flags = " ".join(f"--{name} {value:g}" if isinstance(value, float) else f"--{name} {value}"
                         for name, value in given.items() if value is not None)  # fmt: skip
        return f"brewlens reference train --out DIR {flags}"
    arguments = ", ".join(f"{name}={value!r}" for name, value in given.items() if value is not None)
    return f'brewlens.reference.train.train(TrainConfig({arguments}), "DIR")'


def _parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as file:
        shapes = [file.get_slice(key).get_shape() for key in file.keys()]  # noqa: SIM118
    total = 0
    for shape in shapes:
        size = 1
        for length in shape:
            size *= length
        total += size
    return total
