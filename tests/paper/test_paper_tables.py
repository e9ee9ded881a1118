"""Tables for papers: every table of a trace is in one, and every number is the stored one, rounded."""

from __future__ import annotations

import io
import json
import math
import re
from dataclasses import replace
from fnmatch import fnmatch
from itertools import groupby

import numpy as np
import pandas as pd
import pytest
from every_table import FAMILIES, every_table
from read_latex import table
from synthetic import synthetic_trace

import brewlens.results
from brewlens import tasks
from brewlens.decoding import majority
from brewlens.figures import outcome_table, verdict_table
from brewlens.paper import (
    DATA_ONLY,
    SHOWN_IN,
    Column,
    PaperTable,
    paper_tables,
    seed_tables,
    write_run,
    write_tables,
)
from brewlens.study import RunFolderError
from brewlens.study import trace as trace_model
from brewlens.study.seeds import REDRAWN, Seeds
from brewlens.study.spread import spread
from brewlens.study.summary import summarise


@pytest.fixture(scope="module")
def trace():
    return every_table()


@pytest.fixture(scope="module")
def summary(trace):
    return summarise(trace, majority(trace.items, trace.folds, trace.readouts["probe"].classes))


@pytest.fixture(scope="module")
def tables(trace):
    return paper_tables(trace)


def percent(value):
    return "--" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def share(value, digits=2):
    text = f"{abs(value):.{digits}f}"
    minus = "-" if value < 0 and float(text) else ""
    return minus + (text[1:] if text.startswith("0") else text)


def ends(low, high, write, *args):
    return f"[{write(low, *args)}, {write(high, *args)}]"


def test_every_table_of_a_trace_is_printed_or_named_as_data(trace, tables):
    assert not set(SHOWN_IN) & set(DATA_ONLY)
    assert set(trace.tables) == set(SHOWN_IN) | set(DATA_ONLY)
    for name, pattern in SHOWN_IN.items():
        assert any(fnmatch(made, pattern) for made in tables), name
    told = re.search(r"tables: What the decoders.*?onsets: ", brewlens.results.Trace.__doc__, re.DOTALL)[0]
    documented = set(re.findall(r"``(\w+)``", told))
    assert documented and documented <= set(SHOWN_IN) | set(DATA_ONLY)


def test_what_was_not_run_is_not_there(trace, tables):
    bare = paper_tables(synthetic_trace(24, ("computing",), n_layers=4))
    assert "causal_use" not in bare and "calibration" not in bare and "landmark_nulls" not in bare
    assert [row[0] for row in table(bare["outcomes"].to_latex())[::2]] == ["computing"]  # none for all
    assert set(bare) < {name.replace("loop", "computing") for name in tables}


def test_outcomes_are_those_of_the_summary_and_of_the_figure(trace, summary, tables):
    for name, key, taxonomy in (
        ("outcomes", "outcomes", "repaired"),
        ("outcomes_published_rule", "outcomes_paper", "paper"),
    ):
        shown = table(tables[name].to_latex())
        groups = {**summary["families"], "overall": summary["overall"]}
        drawn = outcome_table(trace, taxonomy).set_index(["family", "outcome"])
        assert [row[0] for row in shown[::2]] == [*FAMILIES, "overall"]
        for values, intervals in zip(shown[::2], shown[1::2], strict=True):
            found = groups[values[0]][key]
            assert values[1] == str(found["resolved"]["n"])
            assert values[2:] == [percent(s["value"]) for s in found.values()]
            assert intervals[2:] == [ends(s["low"], s["high"], percent) for s in found.values()]
            stored = tables[name].frame.query(f"family == {values[0]!r}").set_index("outcome")
            assert stored["n_shapes"].to_dict() == {o: s["shapes"] for o, s in found.items()}
            same = [drawn.loc[(values[0], outcome), "share"] for outcome in found]
            assert values[2:] == [percent(value) for value in same]


def test_accuracy_has_the_model_the_decoders_and_the_text(summary, tables):
    shown = table(tables["accuracy"].to_latex())
    for family, values, intervals in zip(FAMILIES, shown[::2], shown[1::2], strict=False):
        g = summary["families"][family]
        asked = [g[k] for k in ("accuracy", "probe_best", "context_stripped_best", "surface", "majority")]
        assert [values[i] for i in (2, 3, 5, 7, 8)] == [percent(s["value"]) for s in asked]
        assert [intervals[i] for i in (2, 3, 5, 7, 8)] == [ends(s["low"], s["high"], percent) for s in asked]
        assert [values[4], values[6]] == [str(asked[1]["layer"]), str(asked[2]["layer"])]


def test_landmarks_onsets_and_nulls(trace, summary, tables):
    shown = table(tables["landmarks"].to_latex())
    for row, (name, found) in zip(shown, summary["families"][FAMILIES[0]]["landmarks"].items(), strict=False):
        interval = ends(found["low"], found["high"], share, 3)
        assert row[2:] == [str(found["n"]), share(found["mean"], 3), interval, share(found["median"], 3)], (
            name
        )
    onsets = trace.tables["onsets"].set_index(["family", "quantity"])
    first, second = table(tables["onsets"].to_latex())[:2]
    gap = onsets.loc[(FAMILIES[0], "ready_minus_available")]
    assert (first[-1], second[-1]) == (share(gap["value"], 3), ends(gap["low"], gap["high"], share, 3))
    assert first[2] == percent(onsets.loc[(FAMILIES[0], "available_share"), "value"])
    nulls = trace.tables["nulls"]
    stored = nulls[(nulls["family"] == "all") & (nulls["null"] == "answers permuted")]
    shown = table(tables["nulls_answers_permuted"].to_latex())
    assert len(shown) == len(stored)
    for row, null in zip(shown, stored.to_dict("records"), strict=True):
        assert row[2:4] == [share(null["observed"], 3), share(null["null_mean"], 3)]
        assert row[4].lstrip("+") == share(null["excess"], 3)
        p = null["p_adjusted"]
        assert row[6] == ("< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0"))
    per_family = table(tables["landmark_nulls"].to_latex())
    assert len(per_family) == 4 * len(FAMILIES)
    assert [row[0] for row in per_family] == ["computing", "", "", "", "loop", "", "", ""]


def test_claims_stand_under_their_verdict(trace, tables):
    shown = table(tables["claims"].to_latex())
    claims = trace.tables["claims"]
    verdict, statement, found = None, "", []
    for row in shown:
        if not any(row[1:]):
            verdict = row[0]
            continue
        statement = row[0] or statement
        found.append((statement, row[1], verdict))
    stored = [tuple(row) for row in claims[["statement", "scope", "verdict"]].to_numpy()]
    assert sorted(found) == sorted(stored) and {row[2] for row in stored} <= {row[2] for row in found}


def test_difficulty_is_counted_by_level(trace, tables):
    frame = tables["difficulty"].frame
    rows = [i for i, item in enumerate(trace.items) if item.factors.get("steps") == 3]
    right = trace.lifecycle.output_correct[rows]
    cell = frame.query("factor == 'steps' and level == '3' and quantity == 'right'").iloc[0]
    assert (cell["count"], cell["n"], cell["value"]) == (right.sum(), len(rows), right.mean())
    configurations = tables["configurations_computing"].frame
    assert configurations["n"].sum() == sum(item.family == "computing" for item in trace.items)


def test_verdicts_are_turned_towards_use(trace, tables):
    stored = verdict_table(trace).set_index(["family", "edit"])
    shown = table(tables["causal_use"].to_latex())
    head = list(dict.fromkeys(trace.tables["causal_verdicts"]["edit"]))
    for values, beneath in zip(shown[::2], shown[1::2], strict=True):
        for edit, told, said in zip(head, values[2:], beneath[2:], strict=True):
            row = stored.loc[(values[0], edit)]
            assert told == f"{share(row['net'])} {ends(row['low'], row['high'], share)}"
            layer = "" if pd.isna(row["used_from"]) else f", L{row['used_from']}"
            assert said == f"{row['verdict']}{layer}"


def test_effects_stand_beside_their_own_placebos(trace, tables):
    effects = trace.tables["effects"]
    made = tables["effects_layer_skipping"]
    lines = made.lines()
    treated = effects[(effects["experiment"] == "layer_skipping") & ~effects["control"]]
    assert len(lines) == len(treated)
    donors = [column.where["donor"] for column in made.columns if column.where.get("control")]
    for line, row in zip(lines[:7], treated.to_dict("records"), strict=False):
        cells = list(zip([*made.keys, *made.columns], line.cells, strict=True))
        net = next(cell for column, cell in cells if column.head == "net")
        assert net.value == share(row["net"]).replace("-", "−")
        for donor in donors:
            same = ["experiment", "family", "outcome", "edit", "site", "aligned", "at", "measure"]
            other = effects[(effects[same] == [row[name] for name in same]).all(axis=1)]
            placebo = other[other["donor"] == donor].iloc[0]
            shown = next(cell for column, cell in cells if column.where.get("donor") == donor)
            assert shown.value == share(placebo["net"]).replace("-", "−")
    both = [
        line.cells[0].beneath for line in tables["effects_causal_use"].lines() if "erased" in line.cells[0]
    ]
    assert set(both) == {"mean", "resampled"}


def test_sites_and_lone_placebos_keep_their_rows(trace):
    effects = trace.tables["effects"]
    rows = effects[(effects["experiment"] == "transplant")]
    both = pd.concat([rows, rows.assign(site="attn_out")], ignore_index=True)
    lone = both["control"] | (both["at"] != 0)  # no treatment is left at layer 0
    made = paper_tables(trace.with_tables(effects=both[lone]))["effects_transplant"]
    places = [line.cells[0].value for line in made.lines()]
    assert len(places) == len(set(places)) == 2 * rows["at"].nunique()
    assert {"layer 0, mlp_out", "layer 0, attn_out"} <= set(places)
    assert len(made.frame) == lone.sum()


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        ("share", 0.666, ".67"), ("share", -0.004, ".00"), ("share", -0.05, "−.05"), ("share", 0.999, "1.00"),
        ("share", -1.25, "−1.25"), ("number", 0.5, "0.50"), ("number", -0.001, "0.00"),
        ("percent", 1, "100.0"), ("points", 0.1, "+10.0"), ("points", -0.0001, "0.0"),
        ("points", -0.1, "−10.0"), ("p", 0.0123, ".012"),
        ("p", 0.00099, "< .001"), ("p", 0.001, ".001"), ("p", 1.0, "1.000"), ("count", 4860.0, "4860"),
        ("share", math.nan, "–"), ("count", pd.NA, "–"), ("number", None, "–"), ("number", math.inf, "–"),
        ("words", "no_brewing", "no brewing"), ("text", "a_b", "a_b"), ("mark", np.True_, "yes"),
    ],
)  # fmt: skip
def test_how_values_are_written(kind, value, text):
    assert Column("head", "value", kind).text(value) == text


def test_intervals_that_are_missing_are_explained():
    frame = pd.DataFrame(
        {"family": ["a", "b"], "value": [0.5, 0.2], "low": [0.4, np.nan], "high": [0.6, np.nan]}
    )
    columns = (Column("right", "value", "share", "low", "high"),)
    made = PaperTable("x", frame, "Caption.", "Note.", (Column("family", "family", "text"),), columns)
    assert table(made.to_latex()) == [["a", ".50", "[.40, .60]"], ["b", ".20", ""]]
    assert "Note. Without interval: samples of a single shape" in made.to_latex()
    whole = replace(made, frame=frame[:1])
    assert "Without interval" not in whole.to_latex()
    assert "Without interval" in made._repr_html_()


def test_rows_of_a_group_stand_together(tables):
    for name, made in tables.items():
        places = [(line.over, line.group) for line in made.lines()]
        runs = [place for place, _ in groupby(places)]
        assert len(runs) == len(set(runs)), name
    stored = tables["onset_fits"].frame["family"].tolist()
    assert stored == [*FAMILIES, *FAMILIES]  # a family's rows are apart there
    assert [row[0] for row in table(tables["onset_fits"].to_latex())] == ["computing", "", "loop", ""]


def test_two_numbers_for_one_place_are_refused():
    frame = pd.DataFrame({"family": ["a", "a"], "value": [0.5, 0.2]})
    made = PaperTable("x", frame, "", "", (Column("family", "family", "text"),), (Column("right", "value"),))
    with pytest.raises(ValueError, match=r"table x has room for one 'value' of \{'family': 'a'\}; found 2"):
        made.to_latex()


def test_files_are_the_same_bytes_and_the_csv_is_exact(trace, tables, tmp_path):
    paths = write_tables(trace, tmp_path / "paper")
    assert [path.name for path in paths[:2]] == ["outcomes.tex", "outcomes.csv"]
    assert {path.stem for path in paths[:-1]} == set(tables) and paths[-1].name == "preview.tex"
    assert sorted(p.name for p in (tmp_path / "paper").iterdir()) == sorted(p.name for p in paths)
    before = {path: path.read_bytes() for path in paths}
    write_tables(tables, tmp_path / "paper")
    assert {path: path.read_bytes() for path in paths} == before
    for name in ("claims", "accuracy", "effects_transplant"):
        made = tables[name]
        text = before[tmp_path / "paper" / f"{name}.csv"].decode()
        read = pd.read_csv(io.StringIO(text), dtype=str)  # its parser of floats rounds, by version
        heads = [re.sub(r" \[.*\]$", "", head) for head in read.columns]
        assert heads == list(made.frame.columns)
        assert [head for head in read.columns if "[" in head]
        for head, column in zip(read.columns, heads, strict=True):
            if pd.api.types.is_float_dtype(made.frame[column]):
                np.testing.assert_array_equal(
                    [float(x) for x in read[head]], made.frame[column].to_numpy(float)
                )
    assert (
        (tmp_path / "paper" / "outcomes.csv").read_text().startswith("family,rule,outcome,value [share of ")
    )


def test_a_given_summary_is_the_one_that_is_shown(trace, summary):
    changed = {**summary, "families": {**summary["families"]}}
    group = dict(changed["families"]["loop"])
    group["accuracy"] = {**group["accuracy"], "value": 0.123, "low": 0.1, "high": 0.2}
    changed["families"]["loop"] = group
    assert table(paper_tables(trace, changed)["accuracy"].to_latex())[2][2] == "12.3"


def test_html_is_small_and_escaped(tables):
    page = replace(tables["rescue"], caption="<b>a & b</b>")._repr_html_()
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in page and "<b>" not in page
    assert "more rows" in tables["effects_causal_use"]._repr_html_()
    assert repr(tables["outcomes"]).startswith("PaperTable(outcomes: 3 rows; How samples end")


def test_several_seeds():
    records = [
        (family, quantity, seed, value + seed / 100, value - 0.1, value + 0.1, 54)
        for family in ("loop", "overall")
        for quantity, value in (("surface", 0.2), ("onsets: ready_from", 0.4), ("accuracy", 0.8))
        for seed in (3, 4)
    ]
    columns = ["family", "quantity", "seed", "value", "low", "high", "n"]
    values = pd.DataFrame(records, columns=columns).astype({"n": "Int64"})
    said = [("it is so", "all", 3, "supported"), ("it is so", "all", 4, "contradicted")]
    verdicts = pd.DataFrame(said, columns=["statement", "scope", "seed", "verdict"])
    found = Seeds((3, 4), REDRAWN, values, spread(values), verdicts, 0.25, {})
    made = seed_tables(found)
    shown = table(made["seeds"].to_latex())
    assert [row[:2] for row in shown[:2]] == [["loop", "model right, %"], ["", "ready from, % of L"]]
    mean = spread(values).set_index(["family", "quantity"]).loc[("loop", "accuracy")]
    assert shown[0][4:8] == ["83.5", ends(mean["low"], mean["high"], percent), "0.7", "10.0"]
    assert len(shown) == 4 and "surface" in set(made["seeds"].frame["quantity"])
    assert table(made["seed_verdicts"].to_latex()) == [["it is so", "all", "1", "0", "1"]]


def test_a_run_folder_shows_its_own_summary(trace, summary, tmp_path, monkeypatch):
    group = {
        **summary["families"]["loop"],
        "format_miss": {**summary["overall"]["format_miss"], "value": 0.5},
    }
    stated = {**summary, "families": {**summary["families"], "loop": group}}
    (tmp_path / "summary.json").write_text(json.dumps(stated))
    monkeypatch.setattr("brewlens.study.loading.load_run", lambda folder: trace)
    paths = write_run(tmp_path)
    assert paths[0] == tmp_path / "paper" / "outcomes.tex"
    assert table((tmp_path / "paper" / "left_out.tex").read_text())[1][4] == "50.0"
    assert write_run(tmp_path, tmp_path / "there")[-1] == tmp_path / "there" / "preview.tex"


@pytest.mark.slow
def test_a_traced_model_has_all_its_tables(tiny_model):
    items = tasks.generate(FAMILIES, n=54, seed=0)
    options = {"prompts": "bundled", "tuned_lens": True, "near_ood_items": 10, "compat": "paper"}
    found = trace_model(tiny_model, items, **options, resamples=49, progress=False)
    assert set(found.tables) <= set(SHOWN_IN) | set(DATA_ONLY)
    made = paper_tables(found)
    for name in set(found.tables) & set(SHOWN_IN) - {"prompts_left_out"}:  # which has no rows
        assert any(fnmatch(paper, SHOWN_IN[name]) for paper in made), name
    assert all(table(paper.to_latex()) for paper in made.values())


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(RunFolderError):
        write_run(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(RunFolderError, match="is a file; choose a folder with --out"):
        write_run(tmp_path, tmp_path / "notes.txt")
    assert (tmp_path / "notes.txt").read_text() == "mine"
