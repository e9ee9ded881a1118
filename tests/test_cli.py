"""The command line as a person meets it: help, mistakes, and a whole run."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from brewlens.cli import app
from brewlens.study import Plan


def brewlens(*arguments, cwd=None, **options):
    return subprocess.run(
        [sys.executable, "-m", "brewlens.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**os.environ, "COLUMNS": "100"},
        timeout=240,
        **options,
    )


def refused(result, *words, code=1):
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr
    return result.stderr


def test_a_whole_run_and_what_comes_after(tiny_folders, tmp_path):
    study = tmp_path / "study.toml"
    study.write_text(f'model = "{tiny_folders["llama"]}"\nfamilies = ["computing"]\nn = 54\n')
    dry = brewlens("run", study, "--dry-run", cwd=tmp_path)
    assert dry.returncode == 0, dry.stderr
    assert "864 = 54 items x 4 layers x 4 decoders" in dry.stdout
    assert "MB" in dry.stdout
    steps = ("reading items", "loading llama", "timing 54 forward passes", "timing one layer of probes")
    assert [dry.stderr.index(step) for step in steps] == sorted(dry.stderr.index(step) for step in steps)
    assert not (tmp_path / "runs").exists()
    result = brewlens("run", study, "--quiet", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "computing" in result.stdout
    assert "report.html" in result.stdout
    assert "warning: computing: there are only 54 samples" in result.stdout
    for noise in ("it/s", "done", "stage", "HookedModel"):
        assert noise not in result.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    share = json.loads((folder / "summary.json").read_text())["families"]["computing"]["accuracy"]["value"]
    assert f"{100 * share:.1f}" in result.stdout
    refused(brewlens("figures", folder, "--venue", "natur"), "unknown venue 'natur'; choose one of")
    assert "outcomes.tex" in brewlens("tables", folder).stdout
    assert "\\toprule" in (folder / "paper" / "outcomes.tex").read_text("utf-8")
    refused(brewlens("run", "--model", tiny_folders["llama"], "--n", 27, "--out", folder), "another plan")


RUN = Path(__file__).parents[1] / "docs" / "run"


@pytest.fixture
def two_figures(monkeypatch):
    plates = import_module("brewlens.figures.plates")
    every = plates.makers
    monkeypatch.setattr(plates, "makers", lambda trace: dict(list(every(trace).items())[:2]))


def test_a_report_anew(tmp_path, two_figures):
    """Of a folder without residuals and probes; the same bytes again."""
    run, pages = shutil.copytree(RUN, tmp_path / "run"), set()
    for _ in range(2):
        result = CliRunner().invoke(app, ["report", str(run)])
        assert result.exit_code == 0 and result.output.strip() == str(run / "report.html")
        pages.add((run / "report.html").read_bytes())
    assert len(pages) == 1 and b"Sample browser" in pages.pop()
    assert len(list((run / "figures").iterdir())) == 8


def test_figures_for_a_venue(tmp_path, two_figures):
    """On the stored run of the documentation; two figures of it."""
    run = RUN
    result = CliRunner().invoke(app, ["figures", str(run), "--venue", "neurips", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    assert str(tmp_path / "outcomes.pdf") in result.output.splitlines()
    assert 'width="396pt"' in (tmp_path / "outcomes.svg").read_text("utf-8")  # 5.5 inches
    assert len(list(tmp_path.iterdir())) == 8 and not (run / "figures").exists()


def test_mistakes_of_the_user(tiny_folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = ("--model", tiny_folders["gpt2"])
    (tmp_path / "bad.jsonl").write_text('{"prompt": "x", "answer": "1"}\n{"prompt": "x"\n')
    cases = [
        (("run", "--familes", "loop"), 2, ["No such option", "--families"]),
        (("run", "--families", "lop"), 1, ["unknown family 'lop'", "loop_unrolled"]),
        (("run", *model, "--items", "bad.jsonl"), 1, ["bad.jsonl, line 2", "not JSON"]),
        (("run", *model, "--items", "none.jsonl"), 1, ["none.jsonl", "No such file"]),
        (("report", "."), 1, ["not a run folder"]),
        (("tasks", "--families", "lop"), 1, ["unknown family 'lop'"]),
        (("run", *model, "--device", "cuda:77"), 1, ["asked for device 'cuda:77'", "give one of: cpu"]),
        (("run", *model, "--device", "gpu", "--dry-run"), 1, ["asked for device 'gpu'"]),
        (("reference", "train", "--out", "t", "--steps", 1, "--device", "gpu"), 1, ["device 'gpu'"]),
        (("run", *model, "--out", "bad.jsonl/r"), 1, ["bad.jsonl is a file", "--out"]),
        (("run", *model, "--out", "bad.jsonl/r", "--seeds", 2), 1, ["bad.jsonl is a file", "--out"]),
        (("run", *model, "--out", "/proc/r", "--dry-run"), 1, ["/proc/r", "--out"]),
        (("figures", RUN, "--out", "bad.jsonl/f"), 1, ["bad.jsonl is a file", "--out"]),
        (("tables", RUN, "--out", "/proc/t"), 1, ["/proc/t", "--out"]),
        (("tasks", "--n", 27, "--out", "bad.jsonl/t"), 1, ["bad.jsonl is a file", "--out"]),
        (("tasks", "--n", 27, "--out", "."), 1, ["found a folder", "--out"]),
    ]
    made = CliRunner().invoke(app, ["run", "--model", "no/such-model", "--n", "27"])
    assert made.exit_code == 1 and "no/such-model" in made.stderr
    monkeypatch.setattr("brewlens.loading.load_model", None)  # none of the others gets as far
    refused(brewlens("report", ".", cwd=tmp_path), "not a run folder")  # as a person would
    for arguments, code, words in cases:  # the same in here, seven times as fast
        made = CliRunner().invoke(app, [str(a) for a in arguments])
        assert made.exit_code == code and isinstance(made.exception, SystemExit), made.exception
        for word in words:
            assert word in made.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.jsonl"]


def test_tasks_prints_programs_and_baselines(tmp_path):
    result = brewlens("tasks", "--families", "loop", "--n", 54, "--out", tmp_path / "loop.jsonl")
    assert result.returncode == 0, result.stderr
    assert "for " in result.stdout or "while " in result.stdout
    assert "1-3-grams" in result.stdout
    assert len((tmp_path / "loop.jsonl").read_text().splitlines()) == 54


def test_interrupted_by_hand(tiny_folders, tmp_path):
    """Ctrl-C: one line, exit code 130, nothing half-written; the same command goes on."""
    command = ["run", "--model", tiny_folders["qwen2"], "--n", "270", "--out", tmp_path / "r", "--quiet"]
    process = subprocess.Popen(
        [sys.executable, "-m", "brewlens.cli", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests were started in the background, SIGINT is ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "r" / "items.parquet").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "goes on where it stopped" in errors
    assert "Traceback" not in errors
    assert not list((tmp_path / "r").rglob("*.tmp"))
    kept = (tmp_path / "r" / "items.parquet").stat().st_mtime_ns
    assert brewlens(*command, "--families", "loop").returncode == 1  # another plan
    assert (tmp_path / "r" / "items.parquet").stat().st_mtime_ns == kept


@pytest.mark.parametrize("arguments", [(), ("--help",), ("run", "--help"), ("reference", "--help")])
def test_help(arguments):
    result = brewlens(*arguments)
    assert "Usage" in result.stdout + result.stderr
    assert "Traceback" not in result.stderr


def test_the_help_has_the_default_of_every_option():
    command = typer.main.get_command(app).commands["run"]
    shown = {p.name: p.show_default for p in command.params}
    for name, field in Plan.model_fields.items():
        if name in shown and field.default is not None and name not in ("families", "interventions"):
            words = {"": "nothing", "False": "no"}
            default = words.get(str(field.default), str(field.default))
            assert shown[name] == default, name
    given = {p.name for p in command.params if p.param_type_name == "option" and p.default is None}
    assert all(isinstance(shown[name], str) and shown[name] for name in given)
    text = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    assert "(5)" in text and "(810; all of a file)" in text and "(a tenth of n)" in text


def test_help_does_not_load_torch():
    code = "import sys, brewlens, brewlens.cli; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
