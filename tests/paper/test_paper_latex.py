"""The LaTeX of tables: sound in structure, whatever the data are called; and pdflatex takes it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pandas as pd
import pytest
from every_table import every_table
from read_latex import columns, formats, plain, rows, table, tabulars, width

from brewlens.paper import Column, PaperTable, paper_tables, write_tables
from brewlens.paper.latex import LINES, escape, slug

HOSTILE = {"computing": r"a_b & 50% $x$ \foo", "loop": '[x] *{#~^} "q" <y|z> -- ende'}
HARMLESS = re.compile(r"\\[\\{}$&%#_a-zA-Z~^`]|[^\\{}$&%#_^~]")


@pytest.fixture(scope="module")
def tables():
    return paper_tables(every_table())


@pytest.fixture(scope="module")
def hostile():
    return paper_tables(every_table(HOSTILE))


def sound(name, text):
    begun, ended = re.findall(r"\\begin\{(\w+)\}", text), re.findall(r"\\end\{(\w+)\}", text)
    parts = text.count(r"\begin{table}")
    assert begun == ["table", "tabular"] * parts and ended == ["tabular", "table"] * parts, name
    for rule in ("toprule", "bottomrule"):
        assert text.count(f"\\{rule}") == parts, name
    assert text.count(f"\\label{{tab:{name}}}") == 1 and text.count(r"\caption{") == parts
    assert len(tabulars(text)) == parts
    for form, tabular in zip(formats(text), tabulars(text), strict=True):
        assert "|" not in form, name
        head, *body = rows(tabular)
        assert {columns(row) for row in (head, *body)} == {width(form)}, name
        assert body, name
    bare = re.sub(r"\\[\\{}]", "", text)
    assert bare.count("{") == bare.count("}"), name
    assert not re.search(r"\bnan\b|<NA>|None|-0\.0+\b", text), name


def test_every_table_is_sound(tables):
    for name, made in tables.items():
        sound(name, made.to_latex())


def test_hostile_names_are_printed_as_they_are(hostile):
    for name, made in hostile.items():
        text = made.to_latex()
        sound(name, text)
        body = "\n".join(
            line for line in text.split("\n") if not line.startswith(("%", r"\label", r"\begin"))
        )
        body = re.sub(r"\$([-<>|]|\\[a-z]+|\^2)\$", "", body)
        body = re.sub(r"(?<!\\)(&|~)", "", body)
        for at in re.finditer(r"(?<!\\)[%#_^$]", body):
            pytest.fail(f"{name}: {body[max(0, at.start() - 30) : at.end() + 10]!r}")
    first = [row[0] for row in table(hostile["outcomes"].to_latex())[::2]]
    assert first == [*HOSTILE.values(), "overall"]
    starts = [
        row for row in rows(tabulars(hostile["outcomes"].to_latex())[0]) if row[0].strip().startswith("[")
    ]
    assert not starts  # behind \\ it would be an option
    assert {"configurations_a_b_50_x_foo", "configurations_x_q_y_z_ende"} <= set(hostile)


def test_two_families_of_one_file_name_are_told_apart():
    made = paper_tables(every_table({"computing": "a b", "loop": "a_b"}))
    assert {"configurations_a_b", "configurations_a_b_2"} <= set(made)
    assert r"\label{tab:configurations_a_b_2}" in made["configurations_a_b_2"].to_latex()


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("50 % of n = 3", r"50~\% of n~=~3"), ("a\nb\tc\x00", "a b c "), ("−.02 – x", "$-$.02 -- x"),
        ("a--b---c", "a-{}-b-{}-{}-c"), ("“q” it’s", "``q'' it's"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("χ² ≥ 2 × ρ", r"$\chi$$^2$ $\geq$ 2 $\times$ $\rho$"), ("Größe", "Größe"),
    ],
)  # fmt: skip
def test_escape(text, written):
    assert escape(text) == written


def test_what_is_escaped_reads_back():
    text = r"a_b & 50% $x$ \foo {#} ~ ^ ` < > |"
    assert plain(escape(text)) == text


def test_file_names():
    assert [slug(t) for t in ("A b/c", "../../etc", "日本", "")] == ["a_b_c", "etc", "unnamed", "unnamed"]


def test_a_long_table_is_set_in_parts_of_one_number():
    n = 3 * LINES
    frame = pd.DataFrame({"family": [f"f{i // 10}" for i in range(n)], "layer": range(n), "value": 0.5})
    keys = (Column("family", "family", "text"), Column("layer", "layer", "count"))
    made = PaperTable("long", frame, "Long.", "A note.", keys, (Column("x", "value"),), grouped=True)
    text = made.to_latex()
    sound("long", text)
    parts = [len(rows(t)) - 1 for t in tabulars(text)]
    assert sum(parts) == n and max(parts) <= LINES
    assert text.count(r"\addtocounter{table}{-1}") == len(parts) - 1
    assert text.count("A note.") == 1 and text.rindex("A note.") > text.rindex(r"\bottomrule")
    assert f"Long. (Part 1 of {len(parts)}.)" in text and f"(Continued; part 2 of {len(parts)}.)" in text
    assert [row[1] for row in table(text)] == [str(i) for i in range(n)]
    starts = [plain(rows(t)[1][0]) for t in tabulars(text)]
    assert all(starts), "a part begins with the name of its group"


def test_two_columns_of_one_head_stay_two():
    frame = pd.DataFrame({"family": ["a"], "n": [1], "m": [2]})
    made = PaperTable(
        *("x", frame, "", "", (Column("family", "family", "text"),)),
        (Column("n", "n", "count"), Column("n", "m", "count")),
    )
    (tabular,) = tabulars(made.to_latex())
    assert rows(tabular)[0] == ["family ", " n ", " n"]


def test_starred_is_for_two_columns(tables):
    text = tables["accuracy"].to_latex(starred=True)
    assert (
        r"\begin{table*}[tbp]" in text and text.count(r"\end{table*}") == 1 and r"\begin{table}" not in text
    )


@pytest.mark.slow
def test_pdflatex_takes_every_table(tables, hostile, tmp_path):
    if shutil.which("pdflatex") is None:
        pytest.skip("needs pdflatex")
    for name, made in (("plain", tables), ("hostile", hostile)):
        folder = tmp_path / name
        write_tables(made, folder)
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "preview.tex"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=200
        )
        assert done.returncode == 0, done.stdout[-2000:]
        assert "too large for page" not in done.stdout
        if name == "plain":  # long names make wide tables
            assert "Overfull" not in done.stdout
        pages = re.search(r"Output written on preview\.pdf \((\d+) pages", done.stdout.replace("\n", " "))
        assert int(pages[1]) >= len(made)
