"""The recipe of the reference model: one loop, resumable, planned by wall clock or by steps."""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor
from tqdm.auto import tqdm

from brewlens.reference.checkpoint import load_checkpoint, save_checkpoint, write_tensors, write_text
from brewlens.reference.config import TrainConfig, hardware, has_bfloat16
from brewlens.reference.data import Batch, Feed, Source, chunk_seed, training_programs
from brewlens.reference.evaluate import accuracy, score
from brewlens.reference.muon import StackedMuon
from brewlens.reference.network import StackedQwen2
from brewlens.reference.tokenizer import check_tokenizer, save_tokenizer, train_tokenizer
from brewlens.tasks.item import Item

logger = logging.getLogger(__name__)

_LOG_EVERY = 20  # steps between lines of the log
_EVAL_SEED = 1_000_003  # of the small set that is watched during training; the card uses another


@dataclass(frozen=True)
class TrainResult:
    """How a call of :func:`train` ended.

    Attributes:
        finished: Whether the plan was carried out; if not, the run can be resumed.
        step: Steps done in all.
        programs: Programs seen in all.
        seconds: Training time in all, interruptions not counted.
        model: Folder of the model in Hugging Face format; None before the end.
    """

    finished: bool
    step: int
    programs: int
    seconds: float
    model: Path | None


@dataclass
class _Progress:
    step: int = 0
    programs: int = 0
    tokens: int = 0
    seconds: float = 0.0
    last_eval: float = 0.0


def train(
    config: TrainConfig,
    out_dir: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    source: Source = training_programs,
    held_out: Sequence[Item] | None = None,
    background: bool = True,
) -> TrainResult:
    """Train a reference model, or go on with a run that was interrupted.

    On a processor that is shared with other work, start Python with ``OMP_WAIT_POLICY=passive`` in the
    environment: threads that spin while they wait made a step nine times slower there.

    Args:
        config: The recipe and the plan.
        out_dir: Folder of the run: ``config.json``, ``tokenizer.json``, ``log.jsonl``,
            ``checkpoint.safetensors``, and at the end ``model/``.
        resume: Go on with the run in ``out_dir``; where there is none yet, start it.
        progress: Whether to show a progress bar.
        source: Where the programs come from.
        held_out: Items for the periodic evaluation; by default ``config.eval_items`` generated ones of
            each family, from the evaluation universe.
        background: Whether a second process generates the programs.

    Returns:
        How it ended. Ctrl-C and SIGTERM end it after the current step, with a checkpoint.

    Raises:
        ValueError: If the folder holds a run and ``resume`` is not set, or the recipe differs from the
            stored one.
    """
    out = Path(out_dir)
    run = _Run(config, out, resume, source, held_out, background)
    threads = torch.get_num_threads()
    try:
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        with _interruption() as interrupted:
            return run.train(progress, interrupted)
    finally:
        torch.set_num_threads(threads)


class _Run:
    """The state of one run and the loop over it."""

    def __init__(
        self,
        config: TrainConfig,
        out: Path,
        resume: bool,
        source: Source,
        held_out: Sequence[Item] | None,
        background: bool,
    ) -> None:
        self.config, self.out = config, out
        self.checkpoint, self.log_path = out / "checkpoint.safetensors", out / "log.jsonl"
        stored = out / "config.json"
        if stored.exists():
            if not resume:
                raise ValueError(f"{out} holds a training run; resume it or choose another folder")
            config.check_resume(json.loads(stored.read_text(encoding="utf-8")))
        out.mkdir(parents=True, exist_ok=True)
        if config.precision == "auto":
            self.dtype = torch.bfloat16 if has_bfloat16(config.device) else torch.float32
        else:
            self.dtype = torch.bfloat16 if config.precision == "bfloat16" else torch.float32
        self.held_out = _held_out(config) if held_out is None else list(held_out)
        self.tokenizer = self._tokenizer(source)
        model_config = config.model_config(self.tokenizer.get_vocab_size())
        self.network = StackedQwen2(model_config, config.seed).to(config.device)
        if config.compile:
            self.network.compile_blocks()
        matrices, others = self.network.matrices(), self.network.others()
        self.optimisers: dict[str, torch.optim.Optimizer] = {
            "muon": StackedMuon(matrices, config.matrix_lr, config.momentum, config.weight_decay),
            "adamw": torch.optim.AdamW(
                others, config.other_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True
            ),
        }
        self.at = _Progress()
        plan, position = None, 0
        if self.checkpoint.exists():
            state = load_checkpoint(self.checkpoint, self.network, self.optimisers)
            self.at = _Progress(**state["progress"])
            plan, position = [tuple(asked) for asked in state["plan"]], state["position"]
        self._cut_log()
        write_text(stored, json.dumps(config.to_dict(), indent=2) + "\n")
        self.feed = Feed(
            source, self.tokenizer.to_str(), config.seed,
            size=config.chunk, batch=config.batch, background=background, plan=plan, position=position,
        )  # fmt: skip

    def _tokenizer(self, source: Source) -> Tokenizer:
        path = self.out / "tokenizer.json"
        if path.exists():
            return Tokenizer.from_file(str(path))
        programs = islice(source(chunk_seed(self.config.seed, -1), "all"), self.config.tokenizer_programs)
        items = list(programs)
        tokenizer = train_tokenizer((item.prompt + item.answer for item in items), self.config.vocab_size)
        check_tokenizer(tokenizer, [i.prompt for i in items], [i.answer for i in items])
        write_text(path, tokenizer.to_str(pretty=True))
        return tokenizer

    def train(self, show: bool, interrupted: threading.Event) -> TrainResult:
        config, at = self.config, self.at
        self._log({"event": "start", "step": at.step, "precision": str(self.dtype).removeprefix("torch."),
                   "threads": torch.get_num_threads(), **hardware(config.device)})  # fmt: skip
        begun, before = time.perf_counter(), at.seconds
        saved = logged = before
        tokens_then = at.tokens
        losses: list[tuple[Tensor, Tensor]] = []
        with self.feed, tqdm(total=1000, disable=not show, unit="‰", bar_format=_BAR) as bar:
            while (fraction := config.fraction(at.step, at.seconds)) < 1.0 and not interrupted.is_set():
                rate = config.rate(at.step, fraction)
                batch = self.feed.next(config.stage(fraction))
                losses.append(self._step(batch, rate))
                at.step += 1
                at.programs += len(batch.lengths)
                at.tokens += int(batch.lengths.sum())
                at.seconds = before + time.perf_counter() - begun
                if at.step % _LOG_EVERY == 0:
                    line = self._mean_losses(losses) | {"rate": round(rate, 5)}
                    pace = (at.tokens - tokens_then) / max(1e-9, at.seconds - logged)
                    self._log({"event": "step", **self._where(), **line, "tokens_per_second": round(pace)})
                    bar.n = int(1000 * config.fraction(at.step, at.seconds))
                    bar.set_postfix_str(f"answer loss {line['answer_loss']:.3f}, {pace:.0f} tokens/s")
                    losses, logged, tokens_then = [], at.seconds, at.tokens
                if self.held_out and at.seconds - at.last_eval >= 60 * config.eval_minutes:
                    self._evaluate()
                    at.last_eval = at.seconds = before + time.perf_counter() - begun
                if at.seconds - saved >= 60 * config.checkpoint_minutes:
                    self._save()
                    saved = at.seconds
            finished = config.fraction(at.step, at.seconds) >= 1.0
            self._save()
        if finished and self.held_out:
            self._evaluate()
        self._log({"event": "end" if finished else "interrupted", **self._where()})
        model = export(self.network, self.tokenizer, self.out / "model") if finished else None
        return TrainResult(finished, at.step, at.programs, at.seconds, model)

    def _step(self, batch: Batch, rate: float) -> tuple[Tensor, Tensor]:
        """One step; returns the mean loss of the answers and of the other tokens, in nats."""
        config = self.config
        tokens = torch.from_numpy(batch.tokens).to(config.device, torch.long)
        lengths = torch.from_numpy(batch.lengths).to(config.device, torch.long)
        target = torch.arange(1, tokens.shape[1], device=config.device)[None]
        is_answer, is_text = target == lengths[:, None] - 1, target < lengths[:, None] - 1
        weights = config.answer_weight * is_answer + config.text_weight * is_text
        for optimiser, lr in zip(self.optimisers.values(), (config.matrix_lr, config.other_lr), strict=True):
            optimiser.zero_grad(set_to_none=True)
            for group in optimiser.param_groups:
                group["lr"] = lr * rate
        loss, each = self.network.loss(tokens, weights, self.dtype)
        loss.backward()
        for optimiser in self.optimisers.values():
            optimiser.step()
        return each[is_answer].mean(), each[is_text].mean()

    @staticmethod
    def _mean_losses(losses: list[tuple[Tensor, Tensor]]) -> dict[str, float]:
        answer, text = torch.tensor([[float(a), float(t)] for a, t in losses], dtype=torch.float64).mean(0)
        return {"answer_loss": float(answer), "text_loss": float(text)}

    def _evaluate(self) -> None:
        def forward(tokens: Tensor, last: Tensor) -> Tensor:
            hidden = self.network.hidden(tokens, self.dtype)
            return hidden[torch.arange(len(last), device=last.device), last] @ self.network.embed.T

        frame = score(forward, self.tokenizer, self.held_out, device=self.config.device)
        table = accuracy(frame)
        right = dict(zip(table["family"], table["accuracy"].round(4), strict=True))
        self._log({"event": "evaluation", **self._where(), "n": len(frame), "accuracy": right})
        logger.info("step %d: held-out accuracy %s", self.at.step, right)

    def _where(self) -> dict[str, float | int]:
        at = self.at
        return {
            "step": at.step,
            "programs": at.programs,
            "tokens": at.tokens,
            "seconds": round(at.seconds, 2),
        }

    def _save(self) -> None:
        state = {"progress": vars(self.at), "plan": self.feed.plan, "position": self.feed.position}
        save_checkpoint(self.checkpoint, self.network, self.optimisers, state)

    def _log(self, record: dict[str, Any]) -> None:
        with self.log_path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps(record) + "\n")

    def _cut_log(self) -> None:
        """Drop what was logged behind the checkpoint, as after a crash: those steps are done again."""
        if self.log_path.exists():
            lines = self.log_path.read_text(encoding="utf-8").splitlines(keepends=True)
            kept = [
                line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= self.at.step
            ]
            write_text(self.log_path, "".join(kept))


_BAR = "{desc}{percentage:3.0f}%|{bar}| {elapsed} {postfix}"


def _held_out(config: TrainConfig) -> list[Item]:
    if not config.eval_items:
        return []
    from brewlens import tasks

    return list(tasks.generate(n=config.eval_items, seed=_EVAL_SEED, universe="eval"))


def export(network: StackedQwen2, tokenizer: Tokenizer, folder: Path, limit_mb: float = 15.0) -> Path:
    """Write a model folder that ``AutoModelForCausalLM`` and ``AutoTokenizer`` load.

    Args:
        network: The trained network.
        tokenizer: Its tokenizer.
        folder: Where to; made if missing.
        limit_mb: Weights are float32 where they fit into so many megabytes, else bfloat16.

    Returns:
        ``folder``.
    """
    state = network.hf_state()
    fits = sum(weight.numel() * 4 for weight in state.values()) <= limit_mb * 1e6
    dtype = torch.float32 if fits else torch.bfloat16
    folder.mkdir(parents=True, exist_ok=True)
    network.config.dtype = dtype
    network.config.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)
    weights = {name: weight.to(dtype) for name, weight in state.items()}
    write_tensors(folder / "model.safetensors", weights, {"format": "pt"})
    return folder


@contextlib.contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C and SIGTERM set, so that a step is never cut in two."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    old: dict[int, Any] = {}
    handler: Callable[[int, Any], None] = lambda number, frame: event.set()  # noqa: E731
    for number in (signal.SIGINT, signal.SIGTERM):
        old[number] = signal.signal(number, handler)
    try:
        yield event
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
