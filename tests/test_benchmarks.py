"""The benchmarks at toy size: they run, compare what they time, and count right. No time is asserted."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import causal_use, clock, injection, memory, models, output, probes, scaling
from benchmarks.__main__ import main
from benchmarks.records import Line, Record
from benchmarks.settings import ACCELERATOR, PROCESSOR, QUICK, Limit, Shape

SHAPE = Shape.of(4, 64)


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    """The command sets it for its own process; here it is put back."""
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return models.hooked(SHAPE, tmp_path_factory.mktemp("model"))


def test_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(memory, "apart", memory.watched)  # a process each takes too long here
    main(["--quick", "--out", str(tmp_path)])
    assert {path.name for path in tmp_path.iterdir()} == {
        *("results.json", "results.md", "results.csv"),
        *(f"scaling.{kind}" for kind in ("pdf", "svg", "png", "csv")),
    }
    found = json.loads((tmp_path / "results.json").read_text())
    lines = {line["key"]: line for line in found["lines"]}
    assert lines["injection.error"]["measured"] <= 5e-5
    assert lines["causal.error"]["measured"] <= 5e-5
    assert lines["capture.error"]["measured"] <= 5e-5
    assert lines["probes.agreement_0.1"]["measured"] >= 99
    assert set(lines) >= set(PROCESSOR.limits) | set(ACCELERATOR.limits)
    assert all(line["met"] is None for line in lines.values())  # toy sizes are held to nothing
    ways = {timing["way"] for timing in found["timings"]}
    assert ways >= {injection.OWN, injection.LOOP, injection.BARE, injection.TRACED, probes.ADAM}
    assert found["machine"]["versions"]["torch"]
    assert "Toy sizes" in (tmp_path / "results.md").read_text()
    assert "share of the GEMM peak" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--only", "injection,weather"], ["--device", "weather"]])
def test_what_is_not_there_is_refused(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main([*arguments, "--out", str(tmp_path)])
    assert "weather" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_accelerator_path_in_bfloat16(tmp_path):
    """What runs on a GPU, on the processor: the same code, in its dtype, with a large vocabulary."""
    record = Record(replace(QUICK, dtype="bfloat16", shape=replace(SHAPE, vocabulary=4096)))
    injection.measure(record, tmp_path)
    assert next(line for line in record.lines if line.key == "injection.error").measured <= 1e-2


def test_every_way_of_injection_gives_the_same_and_a_slip_would_show(model):
    work = injection.work_for(model, QUICK, 3)
    bare = models.network(SHAPE, attention="eager")
    reference = injection.naive_bare(bare, work)
    for way in (injection.growing, injection.full_prompts, injection.naive):
        assert injection.difference(way(model, work), reference) <= 5e-5
    slipped = injection.difference(reference.roll(1, dims=1), reference)
    assert slipped > 100 * 5e-5


def test_a_grid_of_exchanges_is_its_naive_loop_and_a_slip_would_show():
    from brewlens import load_model

    reference = load_model("reference")
    work = causal_use.work_for(reference, 2)
    assert len({(arm.edit, arm.donor) for arm in work.arms}) == len(work.arms) == 20
    assert work.cells == 21 * 2 * reference.n_layers
    found, looped = causal_use.grid(reference, work), causal_use.naive(reference, work, 1)
    assert causal_use.difference(found, looped) <= 5e-5
    assert causal_use.difference(found, np.roll(looped, 1, axis=2)) > 100 * 5e-5


def test_traces_give_the_same(model):
    pytest.importorskip("nnsight")
    work = injection.work_for(model, QUICK, 2)
    bare = models.network(SHAPE, attention="eager")
    assert injection.difference(injection.traced(bare, work), injection.naive_bare(bare, work)) <= 5e-5


def test_operations_are_those_of_the_blocks_matrices():
    for shape in (SHAPE, Shape(2, 56, 7, 1, 96)):
        block = models.network(shape).model.layers[0]
        matrices = sum(p.numel() for p in block.parameters() if p.ndim == 2)
        assert shape.block_flops == 2 * matrices
    rows = sum(SHAPE.layers - 1 - layer for _ in range(5) for layer in range(SHAPE.layers))
    assert SHAPE.injection_flops(5) == rows * SHAPE.block_flops


def test_random_model_is_a_folder_that_loads(tmp_path):
    from brewlens import load_model

    model = load_model(models.random_model(2, 64, tmp_path), device="cpu")
    assert (model.n_layers, model.d_model) == (2, 64)
    lengths = {len(model.token_ids(prompt)) for prompt in models.random_prompts(60, (3, 5))}
    assert lengths == {3, 4, 5}


def test_exponent_of_a_power_law():
    x = np.array([4, 8, 16, 32])
    fit = scaling.exponent(x.tolist(), (3 * x**2.0).tolist())
    assert (fit.slope, fit.factor) == pytest.approx((2, 3))
    assert fit.error < 1e-6


def test_standard_error_of_an_exponent_covers_the_truth():
    rng, x = np.random.default_rng(0), 2.0 ** np.arange(3, 13)
    fits = [scaling.exponent(x.tolist(), (x * rng.lognormal(0, 0.1, len(x))).tolist()) for _ in range(300)]
    covered = np.mean([abs(fit.slope - 1) < 2.31 * fit.error for fit in fits])  # Student, 8 degrees
    assert 0.91 < covered < 0.98
    assert min(fit.error for fit in fits) > 0


@pytest.mark.parametrize("x, y", [([1, 2], [1, 2]), ([1, 2, 3], [1, 0, 2])])
def test_exponent_refuses(x, y):
    with pytest.raises(ValueError, match="three points"):
        scaling.exponent(x, y)


@pytest.mark.parametrize(
    "limit, measured, met, asked",
    [
        (None, 3.0, None, ""),
        (Limit(at_least=2), 2.0, True, "at least 2"),
        (Limit(at_least=2), 1.9, False, "at least 2"),
        (Limit(at_most=2), 2.1, False, "at most 2"),
        (Limit(0.9, 1.1), 1.0, True, "0.9 to 1.1"),
        (Limit(at_most=2), math.nan, False, "at most 2"),
    ],
)
def test_a_line_says_whether_its_limit_is_kept(limit, measured, met, asked):
    line = Line("part.name", "", measured, "", limit, "")
    assert (line.met, line.asked) == (met, asked)


def test_a_missed_target_is_said(tmp_path, capsys):
    record = Record(PROCESSOR)
    record.line("injection.peak", "share of the peak", 0.3, "")
    record.line("injection.memory", "memory", math.nan, "MB")
    machine = {"accelerator": None, "processor": "p", "cores": 2, "date": "d", "system": "s", "python": "3"}
    text = output.table(record, machine)
    assert "| share of the peak | 0.3 | at least 0.5 | **missed** |" in text
    assert "| memory | not measured MB | at most 64 | **missed** |" in text
    assert "missed" in capsys.readouterr().out
    output.write(record, machine, tmp_path)
    assert json.loads((tmp_path / "results.json").read_text())["lines"][1]["measured"] is None


def test_ways_are_timed_in_turns():
    order: list[str] = []
    ways = {name: lambda name=name: order.append(name) or name for name in "ab"}
    times = clock.race(ways, 3)
    assert order == list("ababab")
    assert times["a"].result == "a" and len(times["a"].seconds) == 3
    assert times["a"].best <= times["a"].median


def test_threads_are_put_back():
    before = torch.get_num_threads()
    with clock.threads(2):
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == before


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_watch_sees_what_is_taken_and_nothing_else():
    with memory.Watch() as watch:
        block = torch.ones(10_000_000)
    # The kernel counts pages in lots, per core.
    assert 37e6 < watch.peak().anonymous < 60e6
    del block
    with memory.Watch() as watch:
        pass
    assert watch.peak().resident < 5e6


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_measurements_run(tmp_path, capsys):
    memory.shards(QUICK, tmp_path, QUICK.stripped_items[0])
    for what in ("injection", "capture", f"stripped-{QUICK.stripped_items[0]}"):
        memory.main(what, "cpu", "quick", str(tmp_path))
        peak = memory.Peak(**json.loads(capsys.readouterr().out))
        assert peak.seconds > 0 and peak.resident >= 0 and math.isnan(peak.device)
    assert peak.results == QUICK.stripped_items[0] * QUICK.stripped_shape.layers * (2 * 10 + 1) * 4
    with pytest.raises(ValueError, match="weather"):
        memory.main("weather", "cpu", "quick", str(tmp_path))


def test_planted_signal_grows_and_is_read_by_every_probe():
    data = probes.plant(3, 400, 16, 5)
    n = len(data.items)
    theirs, _ = probes.one_by_one(data, [0, 1, 2], range(5), 0.1, 200, 1)
    accuracy = (theirs == data.target[:, None]).mean(0)
    assert 0.3 < accuracy[0] < accuracy[2]
    assert (probes.adam(data, 2, 100, "cpu")[:, 0] == data.target).mean() > 0.3
    shuffled = replace(data, target=np.random.default_rng(0).permutation(data.target))
    nothing, _ = probes.one_by_one(shuffled, [2], range(5), 0.1, 200, 1)
    assert (nothing[:, 0] == shuffled.target).mean() < 0.1 + 4 * np.sqrt(0.09 / n)
