"""The run folder: complete, resumable, and never a mixture of two plans."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from importlib import import_module

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import SafetensorError, safe_open

import brewlens as bl
from brewlens.decoding import majority
from brewlens.files import write_json, write_tensors
from brewlens.study import RunFolderError, load_run, make_plan, run, trace
from brewlens.study import pipeline as pipeline_module
from brewlens.study.store import Store
from brewlens.study.summary import summarise

# The module; the package exports the function under the same name.
run_module = import_module("brewlens.study.run")
finished_module = import_module("brewlens.study.finished")

FAMILIES = ("computing", "loop", "loop_unrolled")


@pytest.fixture(scope="module")
def plan(tiny_folders):
    return make_plan(model=str(tiny_folders["qwen2"]), families=FAMILIES, n=54, near_ood=10)


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "done"
    run(plan, folder, progress=False)
    return folder


def copy(folder, to):
    return shutil.copytree(folder, to / "copy")


def test_every_file_of_the_contract_is_there(finished):
    names = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()}
    assert {
        "manifest.json", "items.parquet", "twins.parquet", "samples.parquet", "layers.parquet",
        "readouts.safetensors", "residuals/00000.safetensors", "summary.json", "report.html",
    } <= names  # fmt: skip
    assert {
        "figures/outcomes.pdf",
        "figures/outcomes.svg",
        "figures/outcomes.png",
        "figures/outcomes.csv",
    } <= names
    assert not [n for n in names if n.endswith((".tmp", ".pkl"))]
    manifest = json.loads((finished / "manifest.json").read_text())
    assert {"plan", "plan_key", "model", "versions", "seeds", "items", "stages"} <= set(manifest)
    assert len(manifest["model"]["weights_hash"]) == 32


def test_tables_agree_with_the_arrays(finished):
    items = pd.read_parquet(finished / "items.parquet")
    samples = pd.read_parquet(finished / "samples.parquet")
    layers = pd.read_parquet(finished / "layers.parquet")
    assert items["id"].tolist() == samples["id"].tolist()
    with safe_open(finished / "readouts.safetensors", "np") as file:
        probe, raw = file.get_tensor("probe"), file.get_tensor("context_stripped_raw")
    assert probe.dtype == np.float32
    assert probe.shape == (len(items), 4, 10)
    rows = layers[layers["decoder"] == "probe"]
    assert (rows["predicted"].to_numpy().reshape(len(items), 4) == probe.argmax(-1).astype(str)).all()
    right = rows["correct"].to_numpy().reshape(len(items), 4)
    first = [next((k for k in range(4) if r[k]), None) for r in right]
    assert [None if pd.isna(v) else int(v) for v in samples["fpcl"]] == first
    assert (samples["output"].to_numpy() == raw[:, -1].argmax(-1).astype(str)).all()
    assert layers[layers["decoder"] == "surface"]["layer"].isna().all()
    assert layers[layers["decoder"] == "surface"]["other_mass"].isna().all()
    # The probe has learnt near-OOD programs as one more class.
    assert layers[layers["decoder"] == "probe"]["other_mass"].between(0, 1).all()


@pytest.fixture
def not_loaded(monkeypatch):
    """A model that is loaded is an error."""

    def load(*args, **options):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("brewlens.loading.load_model", load)


def test_a_finished_run_loads_no_model(finished, plan, not_loaded, caplog):
    caplog.set_level("INFO", logger="brewlens")
    again = run(plan, finished, progress=False)
    assert again.lifecycle.to_frame().equals(load_run(finished).lifecycle.to_frame())
    stages = json.loads((finished / "manifest.json").read_text())["stages"]
    told = [record.message for record in caplog.records]
    assert {f"{stage}: already there" for stage in ("items", "tokens", "readouts", "report")} <= set(told)
    assert {line.split(": ")[0] for line in told} <= set(stages)


@pytest.mark.parametrize(
    "change",
    [
        lambda manifest: manifest["model"].update(content=None),
        lambda manifest: manifest["model"]["content"].update({"config.json": "0"}),
        lambda manifest: manifest["versions"].update(transformers="0"),
        lambda manifest: manifest["stages"].pop("report"),
        lambda manifest: manifest["stages"]["tables"].update(key="0"),
    ],
)
def test_a_run_that_may_not_be_finished_loads_it(finished, plan, tmp_path, not_loaded, change):
    manifest = json.loads((finished / "manifest.json").read_text())
    change(manifest)
    store = Store(finished, plan)
    store.manifest = manifest
    assert finished_module.finished(plan, store) is None
    assert finished_module.finished(plan, Store(finished, plan))


@pytest.mark.parametrize("name", ["summary.json", "residuals/00000.safetensors", "tables/claims.parquet"])
def test_a_removed_file_is_noticed(finished, plan, tmp_path, not_loaded, name):
    folder = copy(finished, tmp_path)
    (folder / name).unlink()
    with pytest.raises(AssertionError, match="was loaded"):
        run(plan, folder, progress=False)


def test_a_finished_run_imports_no_library_of_models(finished, plan):
    code = (
        "import sys; from brewlens.study import make_plan, run; "
        f"run(make_plan(model={plan.model!r}, families={FAMILIES!r}, n=54, near_ood=10), {str(finished)!r}, "
        "progress=False); sys.exit('transformers' in sys.modules or 'transformer_lens' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr


def test_a_changed_weight_makes_the_run_anew(tiny_folders, tmp_path, monkeypatch):
    """Of the same size and age; back as it was, the run is not made with what was read in between."""
    from safetensors.torch import load_file, save_file

    monkeypatch.setattr(run_module, "write_report", lambda folder, trace: [])
    model = shutil.copytree(tiny_folders["qwen2"], tmp_path / "m")
    plan = make_plan(model=str(model), families=("computing",), n=54, prompts="own")
    before = run(plan, tmp_path / "r", progress=False)
    weights, age = load_file(model / "model.safetensors"), (model / "model.safetensors").stat()
    weights["model.norm.weight"] = weights["model.norm.weight"].neg()
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert (model / "model.safetensors").stat().st_size == age.st_size
    os.utime(model / "model.safetensors", ns=(age.st_atime_ns, age.st_mtime_ns))
    after = run(plan, tmp_path / "r", progress=False)
    assert after.lifecycle.output != before.lifecycle.output
    monkeypatch.setattr("brewlens.loading.load_model", None)
    assert run(plan, tmp_path / "r", progress=False).lifecycle.output == after.lifecycle.output


def test_a_model_that_is_given_says_nothing_of_the_plans(plan, tiny_models, tmp_path, monkeypatch):
    """A manifest made with another model in memory does not vouch for the folder's."""
    monkeypatch.setattr(run_module, "write_report", lambda folder, trace: [])
    run(plan, tmp_path / "r", model=tiny_models["llama"], progress=False)
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["model"]["content"] is None


def test_no_path_of_the_machine_in_what_is_shown(finished, tiny_folders):
    root = str(tiny_folders["qwen2"].parent)
    shown = [p for p in finished.rglob("*") if p.suffix in (".html", ".svg", ".csv", ".json", ".pdf")]
    assert len(shown) > 10
    for path in shown:
        text = path.read_bytes()
        if path.name == "manifest.json":
            manifest = json.loads(text)
            assert manifest["plan"].pop("model").startswith(root)
            text = json.dumps(manifest).encode()
        assert root.encode() not in text, path.name
    assert b"qwen2" in (finished / "report.html").read_bytes()
    loaded = load_run(finished)
    assert loaded.model == "qwen2" and "Trace(qwen2: " in repr(loaded)
    assert root not in repr(loaded.residuals) + repr(loaded.probes) + loaded._repr_html_()


@pytest.mark.parametrize("out", ["file/run", "file/a/b"])
def test_a_folder_that_cannot_be_is_refused_before_the_work(plan, tmp_path, not_loaded, out):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match=r"file is a file; choose another folder with --out"):
        run(plan, tmp_path / out, progress=False)
    with pytest.raises(RunFolderError, match="found /proc/run"):
        run(plan, "/proc/run", progress=False)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


@pytest.mark.unchecked("no decoders in their places")
def test_a_second_run_recomputes_nothing(finished, plan, monkeypatch):
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}
    monkeypatch.setattr(bl.HookedModel, "forward", None)
    monkeypatch.setattr(run_module, "load_items", None)
    for name in pipeline_module.DECODERS:
        monkeypatch.setitem(pipeline_module.DECODERS, name, None)
    run(plan, finished, progress=False)
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()} == before


def test_a_run_that_was_killed_goes_on(finished, plan, tmp_path, monkeypatch):
    """Stopped in the third decoder: what was whole stays, and the end is that of one run."""
    calls = []

    def stop(inputs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(pipeline_module.DECODERS, "context_stripped", stop)
        with pytest.raises(KeyboardInterrupt):
            run(plan, tmp_path / "r", progress=False)
    assert not (tmp_path / "r" / "readouts.safetensors").exists()
    assert not list((tmp_path / "r").rglob("*.tmp"))
    with pytest.raises(RunFolderError, match="did not finish"):
        load_run(tmp_path / "r")
    forward = bl.HookedModel.forward
    monkeypatch.setattr(bl.HookedModel, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k))
    monkeypatch.setattr(run_module, "write_report", lambda folder, trace: [])  # it takes longer than the run
    run(plan, tmp_path / "r", progress=False)
    assert not calls
    for name in (
        "readouts.safetensors",
        "summary.json",
        "samples.parquet",
        "layers.parquet",
        "items.parquet",
    ):
        assert (tmp_path / "r" / name).read_bytes() == (finished / name).read_bytes(), name


@pytest.mark.parametrize("name", ["residuals/00000.safetensors", "readouts.safetensors", "summary.json"])
def test_a_damaged_file_is_made_again(finished, plan, tmp_path, name):
    folder = copy(finished, tmp_path)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2])
    run(plan, folder, progress=False)
    assert (folder / name).read_bytes() == whole


def test_a_folder_of_another_plan_is_refused(finished, tiny_folders):
    other = make_plan(model=str(tiny_folders["qwen2"]), families=FAMILIES, n=55)
    before = (finished / "manifest.json").read_bytes()
    with pytest.raises(RunFolderError, match="n: 54 there, 55 asked"):
        run(other, finished, progress=False)
    assert (finished / "manifest.json").read_bytes() == before


def test_folders_that_are_no_run(plan, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="not empty and holds no manifest"):
        Store(tmp_path, plan)
    with pytest.raises(RunFolderError, match="is a file"):
        Store(tmp_path / "notes.txt", plan)
    with pytest.raises(RunFolderError, match="not a run folder"):
        load_run(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        load_run(tmp_path)


def test_too_small_a_disk_is_refused_before_the_work(plan, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module.shutil, "disk_usage", lambda p: type("Usage", (), {"free": 1000})())
    with pytest.raises(RunFolderError, match="free some or choose"):
        run(plan, tmp_path / "r", progress=False)
    assert not (tmp_path / "r").exists()


def test_writing_is_all_or_nothing(tmp_path):
    target = tmp_path / "a.json"
    write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(target, {"a": float("nan")})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_fills_up_leaves_nothing_half_written(tmp_path, monkeypatch):
    def full(tensors, path, metadata):
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left") as error:
        write_tensors(tmp_path / "a.safetensors", {"a": torch.zeros(3)})
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.iterdir())


def test_loading_gives_what_the_session_had(finished, tiny_model, plan):
    loaded = load_run(finished)
    items = bl.tasks.generate(FAMILIES, n=54)
    live = trace(tiny_model, items, near_ood_items=10, progress=False)
    assert loaded.items.fingerprint == items.fingerprint
    assert loaded.items[0] == items[0]
    assert loaded.lifecycle.to_frame().equals(live.lifecycle.to_frame())
    for name, readout in live.readouts.items():
        np.testing.assert_array_equal(loaded.readouts[name].logits, readout.logits)
    np.testing.assert_array_equal(loaded.residuals.values, live.residuals.values)
    assert loaded.residuals.tokens == live.residuals.tokens


def test_a_folder_that_lost_its_largest_files_is_read_without_them(finished, tmp_path):
    small, whole = copy(finished, tmp_path), load_run(finished)
    shutil.rmtree(small / "residuals")
    (small / "probes.safetensors").unlink()
    loaded = load_run(small)
    assert loaded.residuals is None and loaded.probes is None
    assert whole.residuals is not None and whole.probes is not None
    assert loaded.to_frame().equals(whole.to_frame())
    assert loaded.tables.keys() == whole.tables.keys()


def test_tokens_are_those_that_the_model_read(finished):
    loaded = load_run(finished)
    tokens = loaded.tables["tokens"].set_index("id")["token_ids"]
    read = dict(zip(loaded.residuals.item_ids, loaded.residuals.tokens, strict=True))
    assert all(tuple(tokens[i]) == read[i] for i in loaded.items.ids)


def test_a_folder_of_several_runs_names_them(finished, tmp_path):
    with pytest.raises(RunFolderError, match=r"no manifest\.json; it holds the runs done"):
        load_run(finished.parent)
    with pytest.raises(RunFolderError, match=r"no manifest\.json$"):
        load_run(tmp_path)


def test_summary_numbers_by_hand(finished):
    tr = load_run(finished)
    summary = summarise(tr, majority(tr.items, tr.folds))
    assert summary == json.loads((finished / "summary.json").read_text())
    rows = [r for r, i in enumerate(tr.items) if i.family == "loop"]
    life = tr.lifecycle.select(rows)
    group = summary["families"]["loop"]
    with_fpcl = [o for o in life.outcome if o != "no_brewing"]
    assert group["outcomes"]["resolved"]["n"] == len(with_fpcl)
    assert group["outcomes"]["resolved"]["count"] == with_fpcl.count("resolved")
    assert sum(s["count"] for s in group["outcomes"].values()) == len(with_fpcl)
    assert sum(s["count"] for s in group["outcomes_paper"].values()) == len(with_fpcl)
    assert group["accuracy"]["count"] == int(life.output_correct.sum())
    assert summary["first_hit_chance"]["no_fpcl"] == pytest.approx(0.9**4)
    assert len(summary["configurations"]) == 81
    assert summary["last_layer_identity"]["value"] == 1


def test_own_items(tiny_folders, tmp_path):
    rng = np.random.default_rng(0)
    lines = []
    for k in range(40):
        value = int(rng.integers(10))
        lines.append(
            json.dumps({"prompt": f'a{k} = {value}\n# The value of a{k} is "', "answer": str(value)})
        )
    (tmp_path / "mine.jsonl").write_text("\n".join(lines))
    plan = make_plan(model=str(tiny_folders["gpt2"]), items=str(tmp_path / "mine.jsonl"))
    found = run(plan, tmp_path / "r", progress=False)
    assert found.items.families == ("mine",)
    assert load_run(tmp_path / "r").items.ids == found.items.ids


def test_answers_of_several_tokens(tiny_folders, tmp_path):
    """Two-digit answers from a file, by their whole token sequence, through every decoder."""
    lines = [
        {"prompt": f'v{k} = {k % 7}\n# {k * k} is "', "answer": f"{10 + k % 3}", "family": "mine"}
        for k in range(60)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = dict(model=str(tiny_folders["llama"]), items=str(path), prompts="own")
    with pytest.raises(ValueError, match="not one of the answer classes"):
        run(make_plan(**options), tmp_path / "digits", progress=False)
    with pytest.raises(ValueError, match="scoring='sequence'"):
        run(make_plan(**options, classes="items"), tmp_path / "one", progress=False)
    assert not (tmp_path / "digits").exists() and not (tmp_path / "one").exists()
    made = run(
        make_plan(**options, classes="items", scoring="sequence", end='"', tuned_lens=True),
        tmp_path / "several",
        progress=False,
    )
    assert {r.classes for r in made.readouts.values()} == {("10", "11", "12")}
    assert {"probe", "logit_lens", "tuned_lens", "context_stripped", "surface"} <= set(made.readouts)
    own = bl.load_model(tiny_folders["llama"], device="cpu")
    space = own.answer_space(made.items.prompts, ("10", "11", "12"), scoring="sequence", end='"')
    expected = own.answer_logits(made.items.prompts, space)
    np.testing.assert_allclose(made.readouts["logit_lens"].logits[:, -1], expected.logits, atol=2e-4)
    np.testing.assert_allclose(made.readouts["tuned_lens"].logits[:, -1], expected.logits, atol=2e-4)
    assert made.lifecycle.output == tuple(np.array(["10", "11", "12"])[expected.predicted])
    summary = json.loads((tmp_path / "several" / "summary.json").read_text())
    assert summary["last_layer_identity"] is None and summary["checks"]["target_prompts"] is None
