"""Training: the schedule, that it learns, and that an interruption changes nothing."""

import json
import os
import signal
import threading

import pytest
import torch
from toy_programs import toy_programs
from transformers import AutoModelForCausalLM, AutoTokenizer

from brewlens.reference.checkpoint import load_checkpoint, save_checkpoint
from brewlens.reference.config import TrainConfig, hardware
from brewlens.reference.evaluate import evaluate
from brewlens.reference.train import train

TINY = {
    "layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "mlp_width": 64, "vocab_size": 300, "batch": 8,
    "chunk": 32, "tokenizer_programs": 200, "warmup_steps": 3, "eval_items": 0, "precision": "float32",
    "matrix_lr": 1e-2, "other_lr": 1e-2, "eval_minutes": 1e9,
}  # fmt: skip

STEPS = 160


def run(out, source=toy_programs, *, held_out=(), resume=False, **changes):
    config = TrainConfig(**{"steps": 40, **TINY, **changes})
    return train(
        config, out, progress=False, source=source, background=False, held_out=held_out, resume=resume
    )


def log(out, event="step"):
    lines = (out / "log.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["event"] == event]


def stop_after(n):
    """A source that asks this process to stop, as Ctrl-C does, when its ``n``-th stream is opened."""
    opened = []

    def source(seed, stage):
        opened.append(seed)
        if len(opened) == n:
            os.kill(os.getpid(), signal.SIGINT)
        return toy_programs(seed, stage)

    return source


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    held_out = [item for item, _ in zip(toy_programs(99, False), range(60), strict=False)]
    return out, run(out, steps=STEPS, held_out=held_out), held_out


def test_it_learns(whole):
    out, result, _ = whole
    first, *_, last = log(out)
    assert result.finished and result.step == STEPS and result.programs == 8 * STEPS
    assert last["text_loss"] < 0.5 * first["text_loss"]
    assert last["answer_loss"] < first["answer_loss"]
    assert set(first) >= {"step", "programs", "tokens", "seconds", "rate", "tokens_per_second"}
    assert log(out, "start")[0]["cores"] >= 1


def test_model_folder_is_the_trained_network(whole):
    out, result, held_out = whole
    model = AutoModelForCausalLM.from_pretrained(result.model)
    tokenizer = AutoTokenizer.from_pretrained(result.model)
    assert model.dtype == torch.float32 and model.config.model_type == "qwen2"
    frame = evaluate(model, held_out, tokenizer=tokenizer)
    assert len(frame) == 60
    logged = log(out, "evaluation")[-1]["accuracy"]
    assert round(float(frame["correct_digit"].mean()), 4) == logged["toy"]


def test_an_interrupted_run_ends_as_if_it_had_not_been(tmp_path, whole):
    out, want, _ = whole
    before = signal.getsignal(signal.SIGINT)
    stopped = run(tmp_path, stop_after(9), steps=STEPS)
    assert not stopped.finished and stopped.model is None and 0 < stopped.step < STEPS
    assert log(tmp_path, "interrupted")
    assert signal.getsignal(signal.SIGINT) is before
    again = run(tmp_path, steps=STEPS, resume=True)
    assert again.finished and again.programs == want.programs and again.seconds > stopped.seconds
    losses = [[(r["step"], r["answer_loss"], r["text_loss"]) for r in log(o)] for o in (out, tmp_path)]
    assert losses[0][-1] == pytest.approx(losses[1][-1], abs=1e-6)
    for name in ("config.json", "tokenizer.json"):
        assert (out / "model" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    first = AutoModelForCausalLM.from_pretrained(want.model).state_dict()
    second = AutoModelForCausalLM.from_pretrained(again.model).state_dict()
    for name, weight in first.items():
        torch.testing.assert_close(weight, second[name], atol=1e-6, rtol=0)


def test_a_killed_run_forgets_what_it_logged_behind_the_checkpoint(tmp_path):
    run(tmp_path, stop_after(9))
    step = log(tmp_path, "interrupted")[0]["step"]
    with (tmp_path / "log.jsonl").open("a") as handle:
        handle.write(json.dumps({"event": "step", "step": step + 7}) + '\n{"event": "st')
    run(tmp_path, resume=True)
    assert step + 7 not in [r["step"] for r in log(tmp_path)]
    assert [r["step"] for r in log(tmp_path)] == [20, 40]


def test_another_recipe_or_a_used_folder_is_refused(tmp_path):
    run(tmp_path, steps=2)
    with pytest.raises(ValueError, match="holds a training run; resume it"):
        run(tmp_path, steps=2)
    with pytest.raises(ValueError, match=r"another recipe.*matrix_lr \(0.01, 0.5\)"):
        run(tmp_path, steps=2, resume=True, matrix_lr=0.5)
    (tmp_path / "checkpoint.safetensors").write_bytes(b"half")
    with pytest.raises(ValueError, match="not a whole checkpoint"):
        run(tmp_path, steps=2, resume=True)


def test_another_network_is_refused(tmp_path):
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, torch.nn.Linear(2, 3), {}, {"step": 1})
    assert load_checkpoint(path, torch.nn.Linear(2, 3), {}) == {"step": 1}
    with pytest.raises(ValueError, match=r"another network: \['bias', 'weight'\]"):
        load_checkpoint(path, torch.nn.Linear(2, 4), {})


def test_schedule():
    plan = TrainConfig(steps=100, minutes=10, warmup_steps=10)
    assert plan.fraction(25, 60) == 0.25 and plan.fraction(25, 300) == 0.5 and plan.fraction(0, 9999) == 1.0
    assert TrainConfig(minutes=10).fraction(10**6, 60) == pytest.approx(0.1)
    assert [plan.rate(step, 0.0) for step in (0, 4, 9, 50)] == [0.1, 0.5, 1.0, 1.0]
    assert plan.rate(50, 0.75) == 0.25 and plan.rate(100, 1.0) == 0.0


def test_config_refuses():
    with pytest.raises(ValueError, match="needs a plan"):
        TrainConfig()
    with pytest.raises(ValueError, match="multiple of batch"):
        TrainConfig(steps=1, batch=7)
    with pytest.raises(ValueError, match="found 'int8'"):
        TrainConfig(steps=1, precision="int8")


def test_easy_programs_come_first(tmp_path):
    asked = []

    def source(seed, stage):
        asked.append(stage)
        return toy_programs(seed, stage)

    run(tmp_path, source, steps=60, easy_fraction=0.4, bare_from=0.7)
    _, *chunks = asked  # the first stream was for the tokenizer
    order = ["easy", "all", "bare"]
    assert [order.index(stage) for stage in chunks] == sorted(order.index(stage) for stage in chunks)
    assert set(chunks) == set(order)


def test_outside_the_main_thread_signals_are_left_alone(tmp_path):
    results = []
    thread = threading.Thread(target=lambda: results.append(run(tmp_path, steps=2)))
    thread.start()
    thread.join()
    assert results[0].finished


def test_hardware_is_read_from_the_machine():
    found = hardware()
    assert found["processor"] and found["cores"] >= 1 and found["torch"] == torch.__version__
