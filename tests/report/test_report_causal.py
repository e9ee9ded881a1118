"""The page on interventions: every number in its place, verdicts in words, nothing where there is nothing."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markupsafe import Markup, escape
from synthetic import synthetic_manifest, synthetic_summary, synthetic_trace
from synthetic_effects import with_effects
from test_report_page import ATTACK, Page, table_of

from brewlens.figures import verdict_table
from brewlens.figures.plates import makers
from brewlens.report import build, page
from brewlens.report.causal import causal, verdict_sentence

FAMILIES = ("computing", "loop")


@pytest.fixture(scope="module")
def bare():
    return synthetic_trace(30, FAMILIES, n_layers=5)


@pytest.fixture(scope="module")
def trace(bare):
    """Interventions, whose names try to break out of the page."""
    made = with_effects(bare)
    rescue = made.tables["rescue"].replace({"policy": {"no edit": ATTACK}})
    return replace(made, tables={**made.tables, "rescue": rescue})


@pytest.fixture(scope="module")
def unsaved():
    """Figures of interventions are drawn, and their files are empty: saving takes most of the time."""

    def some(trace):
        for name, make in makers(trace).items():
            if name.startswith(("causal", "contributions")):
                yield make()

    def inline(plate, folder, glyphs):
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for kind in ("pdf", "svg", "png", "csv"):
            (folder / "figures" / f"{plate.name}.{kind}").touch()
        return Markup(f'<svg class="plot" role="img" aria-label="{escape(plate.alt)}"></svg>')

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "plates", some)
        patch.setattr(page, "inline", inline)
        yield


def page_of(trace, folder):
    return build(folder, trace, synthetic_summary(trace), synthetic_manifest(trace))


@pytest.fixture(scope="module")
def run(trace, unsaved, tmp_path_factory):
    path = page_of(trace, tmp_path_factory.mktemp("run"))
    return path, path.read_text("utf-8")


def plain(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", html)).strip()


def section_of(text):
    (found,) = re.findall(r'<section id="causal".*?</section>', text, flags=re.DOTALL)
    return found


ROW = {
    "family": "loop",
    "measure": "follows",
    "n": 540,
    "net": 0.414,
    "low": 0.35,
    "high": 0.47,
    "p_adjusted": 0.001,
    "placebo": "same_answer",
    "placebo_net": 0.011,
    "placebo_low": -0.013,
    "placebo_high": 0.034,
    "used_from": 3,
    "logit_difference": 0.45,
    "logit_low": 0.4,
    "logit_high": 0.5,
    "margin": 0.1,
    "nil": False,
    "cosine": 0.4,
    "verdict": "used",
}


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (
            {},
            "used, from layer 3 on (0.41 [0.35, 0.47] of outputs follow the twin; strongest placebo 0.01 "
            "[−0.01, 0.03]; n = 540)",
        ),
        (
            {"used_from": None, "placebo": None, "measure": "changed"},
            "used (0.41 [0.35, 0.47] of outputs change; n = 540)",
        ),
        (
            {"verdict": "not used", "net": -0.001, "low": -0.04, "high": 0.042},
            "not used: at most 0.04 of outputs follow the twin, and 0.50 of the logit difference (n = 540)",
        ),
        (
            {"verdict": "not used", "net": -0.05, "low": -0.09, "high": -0.01},
            "not used: at most 0.00 of outputs follow the twin, and 0.50 of the logit difference (n = 540)",
        ),
        (
            {"verdict": "cannot tell", "net": -0.004, "low": -0.1, "p_adjusted": 0.4, "n": 12},
            "cannot tell: 0.00 [−0.10, 0.47] of outputs follow the twin (n = 12)",
        ),
        (
            {"verdict": "cannot tell", "net": 0.0, "low": -0.02, "high": 0.02, "p_adjusted": 0.9},
            "cannot tell: 0.00 [−0.02, 0.02] of outputs follow the twin, but the logits move by 0.45 "
            "[0.40, 0.50] of the difference (n = 540)",
        ),
        (
            {"verdict": "cannot tell", "placebo_net": 0.39, "placebo_low": 0.3, "placebo_high": 0.5},
            "cannot tell: 0.41 [0.35, 0.47] of outputs follow the twin, but not more than with every placebo "
            "(strongest placebo 0.39 [0.30, 0.50]) (n = 540)",
        ),
        (
            {"verdict": "cannot tell", "nil": True, "cosine": 0.9993},
            "cannot tell: as good as no edit (cosine 0.999) (n = 540)",
        ),
        (
            {"verdict": "cannot tell", "low": None, "high": None, "p_adjusted": None},
            "cannot tell: 0.41 (no interval: one shape) of outputs follow the twin (n = 540)",
        ),
    ],
)
def test_a_verdict_is_a_sentence_with_its_numbers(changed, sentence):
    assert verdict_sentence(ROW | changed).replace("\N{NO-BREAK SPACE}", " ") == sentence


def test_without_interventions_there_is_no_word_of_them(bare, unsaved, tmp_path):
    text = page_of(bare, tmp_path).read_text("utf-8")
    assert 'id="causal"' not in text and '#causal"' not in text and "brewed answer used" not in text
    assert causal(bare, {}) is None
    empty = {
        name: table.iloc[:0] for name, table in with_effects(bare).tables.items() if name not in bare.tables
    }
    assert causal(replace(bare, tables={**bare.tables, **empty}), {}) is None


def test_every_verdict_is_said_all_families_first(trace, run):
    section = section_of(run[1])
    told = re.findall(
        r'<span class="said">(.*?)</span>(?=<span class="said">|</dd>)', section, flags=re.DOTALL
    )
    rows = verdict_table(trace).astype(object).where(lambda t: t.notna(), None).to_dict("records")
    rows = [r for r in rows if r["family"] == "overall"] + [r for r in rows if r["family"] != "overall"]
    assert len(told) == len(rows) == 12
    for said, row in zip(told, rows, strict=True):
        assert verdict_sentence(row) in said and f'class="verdict {row["verdict"].split()[0]}"' in said
    assert re.findall(r"<dt>(overall|computing|loop)</dt>", section) == ["overall", "computing", "loop"]


def test_the_verdict_table_has_each_number_in_its_row_and_column(trace, run):
    head, rows = table_of(run[1], "All samples with a brewing stretch")
    assert head[1:4] == ["n", "Effect", "p, adjusted"] and head[-2:] == ["From layer", "Verdict"]
    table = verdict_table(trace)
    names = {"whole": "whole state", "erase": "probe’s subspace erased"}
    for row in table[table["edit"].isin(list(names))].itertuples():
        cells = rows[row.family + names[row.edit]]
        assert cells[0] == f"{row.n}{row.n_shapes} shapes"
        assert cells[1] == f"{row.net:.3f}{row.low:.3f} to {row.high:.3f}".replace("-0.000", "0.000")
        assert cells[3] == f"{row.placebo_net:.3f}{row.placebo_low:.3f} to {row.placebo_high:.3f}same answer"
        assert cells[4] == f"{row.beyond:.3f}{row.beyond_low:.3f} to {row.beyond_high:.3f}"
        assert cells[5].startswith("3") == (row.verdict == "used") and cells[6] == row.verdict
    other, _ = table_of(run[1], "Samples that end overprocessed")
    assert other == head


def test_the_published_experiments_stand_beside_their_own_placebos(trace, run):
    effects = trace.tables["effects"]
    for title, name in (
        ("The state of a layer around", "fjc_patching"),
        ("What an MLP adds in a loop", "transplant"),
    ):
        _, rows = table_of(run[1], title)
        found = effects[(effects["experiment"] == name) & (effects["measure"] == "right")]
        treated = found[~found["control"]]
        assert len(rows) == len(treated)
        for row in treated.itertuples():
            where = f"layer {row.at}" if row.aligned == "layer" else "FJC"
            if row.aligned == "fjc" and row.at:
                where += f" {'+' if row.at > 0 else '−'} {abs(row.at)}"
            cells = rows[f"{where}, {row.edit.replace('_', ' ')}all samples"]
            assert cells[0] == f"{row.n}{row.n_shapes} shapes"
            assert cells[1] == f"{row.before:.2f}{row.after:.2f}"
            assert cells[2].startswith(f"{round(row.net, 3) + 0.0:.3f}")
            beside = found[found["control"] & (found["at"] == row.at) & (found["edit"] == row.edit)]
            assert len(beside) >= 2
            for placebo in beside.itertuples():
                assert f"{placebo.donor.replace('_', ' ')} {round(placebo.net, 2) + 0.0:.2f} [" in cells[5]


def test_an_edit_without_a_dose_is_told(trace, run):
    _, rows = table_of(run[1], "The sample’s own state at its FPCL")
    nil = {head for head, cells in rows.items() if "as good as no edit" in cells[4]}
    assert nil and nil == {head for head in rows if "blend 0.3" in head}
    assert all(cells[5].count("no dose") == 3 for head, cells in rows.items() if head in nil)


def test_rescues_say_what_they_repair_break_and_need(trace, run):
    _, rows = table_of(run[1], "Shares with 95&nbsp;% intervals clustered by shape. An <em>oracle")
    assert len(rows) == len(trace.tables["rescue"])
    oracle = rows["overprocessedoracle: the FJC at layer 11, replace"]
    assert oracle[0] == "0.8200.715 to 0.925n = 90, 30 shapespromised 0.984"
    assert oracle[2].endswith("n = 300") and oracle[3] == "0.1100.089 to 0.131n = 600"
    assert "overprocesseddeployable: layer 8 at layer 10, blend_0.5" in rows
    assert rows["all failuresdeployable: layer 10 at layer 11, replace"][3].startswith("0.004")


def test_what_it_quotes_is_text(run):
    assert "<script>alert" not in run[1] and "&lt;script&gt;alert" in run[1]


def test_it_is_accessible_and_loads_nothing(run):
    path, text = run
    found = Page(text)
    heads = [attributes for tag, attributes in found.attributes if tag == "th"]
    assert all(a.get("scope") in ("col", "row", "colgroup") for a in heads)
    assert found.tags.count("caption") == found.tags.count("table")
    plots = [a for tag, a in found.attributes if a.get("class") == "plot"]
    assert len(plots) == found.tags.count("figure")
    assert len(found.ids) == len(set(found.ids))
    assert all(value.startswith("#") for value in found.loads)
    assert {link[1:] for link in found.links if link.startswith("#") and "=" not in link} <= set(found.ids)
    linked = {link.split("/")[1] for link in found.links if link.startswith("figures/")}
    assert {file.name for file in (path.parent / "figures").iterdir()} == linked
    assert 'href="#causal"' in text
    assert found.tags.count("details") == text.count("</details>")


def test_it_says_what_it_is_and_what_it_cannot_show(run):
    section = plain(section_of(run[1]))
    for words in (
        "counterfactual twin",
        "beyond what an edit that merely breaks",
        "margin (0.1)",
        "cannot show",
    ):
        assert words in section
    assert "nan" not in re.sub(r"<svg.*?</svg>", "", section_of(run[1]), flags=re.DOTALL).split()


def test_the_same_run_gives_the_same_bytes(trace, unsaved, tmp_path):
    first, again = (page_of(trace, tmp_path / folder).read_bytes() for folder in "ab")
    assert first == again


def test_parts_of_the_tables_will_do(bare, trace, unsaved, tmp_path):
    effects = trace.tables["effects"]
    published = effects[effects["experiment"] == "reinjection"]
    some = replace(bare, tables={**bare.tables, "effects": published})
    section = section_of(page_of(some, tmp_path / "a").read_text("utf-8"))
    assert (
        "Re-injection" in section and "Can failures be repaired" not in section and "<figure>" not in section
    )
    some = replace(bare, tables={**bare.tables, "components": trace.tables["components"]})
    text = page_of(some, tmp_path / "b").read_text("utf-8")
    assert 'id="causal"' not in text and text.count('<section id="components"') == 1


def test_the_strongest_components_of_each_outcome_are_told(trace, run):
    _, rows = table_of(run[1], "Mean part of the difference")
    table = trace.tables["components"]
    pooled = table[(table["family"] == "overall") & table["component"].isin(["attn", "mlp"])]
    for outcome, cells in rows.items():
        name = {"all samples": "all", "no brewing": "no_brewing"}.get(outcome, outcome)
        found = pooled[pooled["outcome"] == name]
        if found["head"].notna().any():
            found = found[found["head"].notna() | (found["component"] == "mlp")]
        best, worst = found.loc[found["value"].idxmax()], found.loc[found["value"].idxmin()]
        assert cells[0].startswith(str(best["n"]))
        assert f"{best['value']:+.2f}" in cells[1] and f"layer {best['layer']}" in cells[1]
        assert f"{worst['value']:+.2f}" in cells[2] or worst["value"] > -0.005
    assert "all samples" in rows and len(rows) > 1


def test_one_family_stands_for_all(unsaved, tmp_path):
    one = with_effects(synthetic_trace(24, ("computing",), n_layers=5))
    section = section_of(page_of(one, tmp_path).read_text("utf-8"))
    assert "<dt>computing</dt>" in section and "overall" not in plain(section)
