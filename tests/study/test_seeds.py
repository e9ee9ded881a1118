"""Several seeds: ordinary runs side by side, nothing made twice, and a spread that is that of the numbers."""

from __future__ import annotations

import json
import shutil
from importlib import import_module
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy.stats import t as student
from synthetic import synthetic_summary, synthetic_trace
from typer.testing import CliRunner

import brewlens as bl
from brewlens.cli import app
from brewlens.lifecycle.nulls import PERMUTED
from brewlens.study import RunFolderError, load_run, make_plan, run
from brewlens.study import pipeline as pipeline_module
from brewlens.study.plan import PlanError
from brewlens.study.seeds import FOLDS_REDRAWN, REDRAWN, load_seeds, run_seeds, seed_plans, seeds_folder
from brewlens.study.show_seeds import seeds_tables
from brewlens.study.spread import quantities, spread

run_module = import_module("brewlens.study.run")


@pytest.fixture(scope="module", autouse=True)
def without_pages():
    """Runs write a stand-in for their report, whose figures take longer than all else here."""

    def write(folder, trace):
        (folder / "report.html").write_text("report")
        return ["report.html"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_module, "write_report", write)
        yield


@pytest.fixture(scope="module")
def plan(tiny_folders):
    return make_plan(
        model=str(tiny_folders["qwen2"]),
        families=("computing",),
        n=54,
        seed=3,
        prompts="own",
        probe_c=1.0,
        resamples=99,
    )


@pytest.fixture(scope="module")
def finished(plan, tmp_path_factory):
    folder = tmp_path_factory.mktemp("seeds") / "done"
    run_seeds(plan, 2, folder, progress=False)
    return folder


def times(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.parent != folder}


def test_each_seed_is_an_ordinary_run_with_items_of_its_own(finished, plan):
    assert sorted(p.name for p in finished.iterdir()) == ["seed-3", "seed-4", "seeds.json", "seeds.parquet"]
    runs = [load_run(finished / f"seed-{seed}") for seed in (3, 4)]
    assert set(runs[0].items.prompts) != set(runs[1].items.prompts)
    assert runs[1].manifest["plan"]["seed"] == 4
    before = times(finished)
    run(plan.model_copy(update={"seed": 4}), finished / "seed-4", progress=False)
    assert times(finished) == before


def test_the_spread_is_that_of_the_summaries(finished):
    found = load_seeds(finished)
    assert (found.seeds, found.redrawn) == ((3, 4), REDRAWN)
    summaries = [json.loads((finished / f"seed-{s}" / "summary.json").read_text()) for s in (3, 4)]
    row = found.to_frame().set_index(["family", "quantity"]).loc[("computing", "accuracy")]
    accuracy = [s["families"]["computing"]["accuracy"] for s in summaries]
    assert [row["seed_3"], row["seed_4"]] == [a["value"] for a in accuracy]
    assert row["mean"] == pytest.approx(np.mean([a["value"] for a in accuracy]))
    assert row["sd"] == pytest.approx(np.std([a["value"] for a in accuracy], ddof=1))
    half = student.ppf(0.975, 1) * row["sd"] / np.sqrt(2)
    assert (row["low"], row["high"]) == pytest.approx((row["mean"] - half, row["mean"] + half))
    assert row["within"] == pytest.approx(np.mean([(a["high"] - a["low"]) / 2 for a in accuracy]))
    assert (row["n_least"], row["n_most"], row["seeds"]) == (54, 54, 2)
    content = json.loads((finished / "seeds.json").read_text())
    told = content["spread"]["computing"]["accuracy"]
    assert told["values"] == {"3": accuracy[0]["value"], "4": accuracy[1]["value"]}
    assert told["n"] == {"3": 54, "4": 54}
    assert content["plan"]["model"] == summaries[0].get("model", content["plan"]["model"])
    assert {len(c["verdicts"]) for c in content["claims"]} == {2}
    skeletons = [set(pd.read_parquet(finished / f"seed-{s}" / "items.parquet")["skeleton"]) for s in (3, 4)]
    assert found.shared_skeletons == pytest.approx(len(skeletons[0] & skeletons[1]) / 54)


def test_a_second_time_recomputes_nothing(finished, plan, monkeypatch):
    before, content = times(finished), (finished / "seeds.json").read_bytes()
    monkeypatch.setattr(bl.HookedModel, "forward", None)
    monkeypatch.setattr(run_module, "load_items", None)
    again = run_seeds(plan, 2, finished, progress=False)
    assert times(finished) == before
    assert (finished / "seeds.json").read_bytes() == content
    loaded = load_seeds(finished)
    pd.testing.assert_frame_equal(again.values, loaded.values)
    pd.testing.assert_frame_equal(again.spread, loaded.spread)
    pd.testing.assert_frame_equal(again.verdicts, loaded.verdicts)
    assert again.folders == loaded.folders


def test_killed_in_the_second_seed_it_goes_on(finished, plan, tmp_path, monkeypatch):
    folder = tmp_path / "killed"
    (folder / "seed-3").parent.mkdir()
    shutil.copytree(finished / "seed-3", folder / "seed-3")
    before = times(folder)

    def stop(inputs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setitem(pipeline_module.DECODERS, "probe", stop)
        with pytest.raises(KeyboardInterrupt):
            run_seeds(plan, 2, folder, progress=False)
    assert not (folder / "seeds.json").exists()
    with pytest.raises(RunFolderError, match=r"no seeds\.json; the command that began it goes on"):
        load_seeds(folder)
    monkeypatch.setattr(bl.HookedModel, "forward", None)  # the residuals are there
    run_seeds(plan, 2, folder, progress=False)
    assert {p: t for p, t in times(folder).items() if p in before} == before
    for name in ("seeds.json", "seed-4/summary.json", "seed-4/readouts.safetensors"):
        assert (folder / name).read_bytes() == (finished / name).read_bytes(), name
    assert not list(folder.rglob("*.tmp"))


def test_folders_that_hold_something_else_are_refused_before_the_work(finished, plan, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "load_items", None)
    with pytest.raises(RunFolderError, match="the folder of one run"):
        run_seeds(plan, 2, finished / "seed-3")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match=r"holds notes\.txt, which is no seed's"):
        run_seeds(plan, 2, tmp_path)
    with pytest.raises(RunFolderError, match="is a file"):
        run_seeds(plan, 2, tmp_path / "notes.txt")
    other = plan.model_copy(update={"n": 55})
    with pytest.raises(RunFolderError, match="n: 54 there, 55 asked"):
        run_seeds(other, 3, finished)
    assert not (finished / "seed-5").exists()
    with pytest.raises(RunFolderError, match=r"has no seeds\.json"):
        load_seeds(tmp_path)
    (tmp_path / "seeds.json").write_text("{")
    (tmp_path / "seeds.parquet").write_text("")
    with pytest.raises(RunFolderError, match="damaged"):
        load_seeds(tmp_path)


@pytest.mark.parametrize("seeds", [0, 1, -2, [4], [4, 4]])
def test_one_seed_has_no_spread(plan, seeds):
    with pytest.raises(PlanError, match="at least two different seeds"):
        seed_plans(plan, seeds)


def test_seeds_by_number_and_by_name(plan):
    assert [p.seed for p in seed_plans(plan, 3).values()] == [3, 4, 5]
    assert list(seed_plans(plan, [9, 2])) == [9, 2]
    assert len({p.key for p in seed_plans(plan, 3).values()}) == 3
    assert seeds_folder(plan).name.startswith("qwen2-") and seeds_folder(plan).name.endswith("-seeds")


def test_items_of_a_file_stay_and_the_table_says_so(tiny_folders, tmp_path):
    lines = [
        {"prompt": f'a{k} = {k % 10}\n# The value of a{k} is "', "answer": str(k % 10)} for k in range(60)
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    plan = make_plan(
        model=str(tiny_folders["gpt2"]), items=str(path), prompts="own", probe_c=1.0, resamples=99
    )
    found = run_seeds(plan, 2, tmp_path / "r", progress=False)
    assert found.redrawn == FOLDS_REDRAWN
    assert found.shared_skeletons == 1
    rows = found.spread[found.spread["quantity"] == "accuracy"]
    assert (rows["sd"] == 0).all()  # the model's answers have no folds
    folds = [load_run(found.folders[seed]).folds for seed in (0, 1)]
    assert (folds[0] != folds[1]).any()
    assert "the items, those of a file, stay" in " ".join(printed(found, tmp_path).split())


def printed(found, folder, width=100):
    console = Console(width=width, file=StringIO())
    with console.capture() as capture:
        seeds_tables(found, folder, console)
    return capture.get()


def test_what_is_printed_is_the_spread(finished):
    found = load_seeds(finished)
    text = printed(found, finished)
    rows = found.spread.set_index(["family", "quantity"])
    for quantity in ("accuracy", "outcomes.resolved", "onsets: ready_from"):
        row = rows.loc[("computing", quantity)]
        assert f"{100 * row['mean']:.1f}±{100 * row['sd']:.1f}" in text
        assert f"±{100 * row['within']:.1f}" in text
    assert "2 seeds (3, 4)" in text
    assert "of 2" in text  # verdicts
    assert text.count("report.html") == 2


def test_the_command_line(plan, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    study = tmp_path / "study.toml"
    study.write_text(
        f'model = "{plan.model}"\nfamilies = ["computing"]\nn = 54\nprompts = "own"\nprobe_c = 1.0\n'
        "resamples = 99\n"
    )
    command = ["run", str(study), "--seed", "3", "--quiet"]
    runner = CliRunner()
    again = runner.invoke(app, [*command, "--seeds", "2", "--out", str(finished)])
    assert again.exit_code == 0, again.output
    assert "2 seeds (3, 4)" in again.output
    dry = runner.invoke(app, [*command, "--seeds", "3", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "3 times the above" in dry.output and "3, 4, 5" in dry.output
    assert [p.name for p in tmp_path.iterdir()] == ["study.toml"]
    refused = runner.invoke(app, [*command, "--seeds", "1"])
    assert refused.exit_code == 1
    assert "at least two different seeds" in refused.output


def test_every_number_of_a_summary_is_walked():
    trace = synthetic_trace(30, ("computing", "loop"), n_layers=6)
    summary = json.loads(json.dumps(synthetic_summary(trace)))
    found = {(family, quantity): numbers for family, quantity, *numbers in quantities(summary)}
    assert len(found) == len(list(quantities(summary)))
    for family, group in {**summary["families"], "overall": summary["overall"]}.items():
        share = group["outcomes"]["resolved"]
        assert found[family, "outcomes.resolved"] == [share[k] for k in ("value", "low", "high", "n")]
        mark = group["landmarks"]["fjc"]
        assert found[family, "landmarks.fjc"] == [mark[k] for k in ("mean", "low", "high", "n")]
        assert found[family, "landmarks.fjc.median"] == [mark["median"], None, None, mark["n"]]
        assert found[family, "probe_best.layer"][0] == group["probe_best"]["layer"]
    for claim in summary["claims"]:
        name = f"claims: {claim['statement']}; {claim['scope']}"
        assert found["claims", name] == [claim[k] for k in ("effect", "low", "high", "n")]
    null = next(n for n in summary["nulls"] if n["family"] == "all" and n["statistic"] == "fpcl")
    assert null["null"] == PERMUTED
    assert found["overall", f"nulls: fpcl; {PERMUTED}"][0] == null["excess"]
    assert not [q for _, q in found if q.endswith((".count", ".n", ".low", ".high", ".detectable"))]


def test_spread_with_missing_values():
    rows = [("f", "a", seed, value, 0.0, 0.2, 10) for seed, value in enumerate((0.1, np.nan, 0.3))]
    rows += [("f", "b", seed, value, np.nan, np.nan, pd.NA) for seed, value in enumerate((1, np.nan, np.nan))]
    values = pd.DataFrame(rows, columns=["family", "quantity", "seed", "value", "low", "high", "n"])
    found = spread(values.astype({"n": "Int64"})).set_index("quantity")
    assert found.loc["a", "seeds"] == 2
    assert found.loc["a", "mean"] == pytest.approx(0.2)
    assert found.loc["a", "sd"] == pytest.approx(np.std([0.1, 0.3], ddof=1))
    assert found.loc["a", "within"] == pytest.approx(0.1)
    assert found.loc["b", "mean"] == 1
    assert found.loc["b", ["sd", "low", "high", "within"]].isna().all()


def test_the_interval_over_seeds_covers_the_truth():
    """Five seeds whose own chances differ: the interval of one of them does not."""
    rng = np.random.default_rng(0)
    own = np.clip(0.5 + rng.normal(0, 0.08, (400, 5)), 0, 1)
    value = rng.binomial(100, own) / 100
    half = 1.96 * np.sqrt(value * (1 - value) / 100)
    rows = [
        (f"simulation {k}", "a", s, value[k, s], value[k, s] - half[k, s], value[k, s] + half[k, s], 100)
        for k in range(400)
        for s in range(5)
    ]
    table = pd.DataFrame(rows, columns=["family", "quantity", "seed", "value", "low", "high", "n"])
    found = spread(table.astype({"n": "Int64"}))
    assert 0.92 <= ((found["low"] <= 0.5) & (found["high"] >= 0.5)).mean() <= 0.98
    assert (np.abs(value[:, 0] - 0.5) <= half[:, 0]).mean() < 0.9
    assert found["within"].to_numpy() == pytest.approx(half.mean(axis=1))
