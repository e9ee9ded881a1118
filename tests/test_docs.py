"""The documentation names what there is: every public name, column, option and figure, and no other."""

from __future__ import annotations

import doctest
import json
import os
import re
import subprocess
import sys
from fnmatch import fnmatch
from functools import cache
from importlib import import_module
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer
from safetensors import safe_open

import brewlens as bl
from brewlens.cli import app
from brewlens.study.store import write_table
from brewlens.study.tables import items_frame

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
ROOMS = sorted(p.parent.name for p in (ROOT / "brewlens").glob("*/__init__.py") if "__all__" in p.read_text())
DIRECTIVE = re.compile(r"^\.\. (?:auto\w+|py:data):: (brewlens\.[\w.]+)$", re.MULTILINE)
TYPES = {"text", "integer", "number", "yes or no", "list", "text or integer"}


@cache
def page(name: str) -> str:
    return (DOCS / name).read_text(encoding="utf-8")


@cache
def documented() -> list[str]:
    pages = sorted((DOCS / "api").glob("*.md"))
    return [name for path in pages for name in DIRECTIVE.findall(path.read_text("utf-8"))]


# The API


def exported(room: str) -> list[str]:
    return import_module(f"brewlens.{room}").__all__


@pytest.mark.parametrize("room", ROOMS)
def test_every_public_name_of_a_room_is_in_the_reference(room):
    module = import_module(f"brewlens.{room}")
    shown = set(documented())
    short = set(bl.__all__)
    missing = [
        name
        for name in module.__all__
        if f"brewlens.{room}.{name}" not in shown
        and not (name in short and f"brewlens.{name}" in shown and getattr(bl, name) is getattr(module, name))
    ]
    assert not missing, f"docs/api/{room}.md lacks {missing}"


def test_every_short_name_is_in_the_reference():
    shown = set(documented())
    rooms = [name for name in bl.__all__ if name in ROOMS]
    for name in set(bl.__all__) - set(rooms):
        homes = {f"brewlens.{room}.{name}" for room in ROOMS if name in exported(room)}
        assert f"brewlens.{name}" in shown or shown & homes, f"docs/api lacks brewlens.{name}"
    assert {f"brewlens.{room}" for room in rooms} <= shown


def test_the_reference_names_nothing_twice_and_nothing_that_is_not_there():
    names = documented()
    assert len(set(names)) == len(names), [name for name in set(names) if names.count(name) > 1]
    for name in names:
        parts = name.split(".")
        owner = bl if len(parts) == 2 else import_module(".".join(parts[:-1]))
        assert getattr(owner, parts[-1], None) is not None, name


# The command line


def commands() -> dict[str, dict[str, set[str]]]:
    """Command -> its arguments and options, as typer has them."""
    found = {}

    def walk(command, path):
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, f"{path} {name}")
        if not hasattr(command, "commands"):
            options = {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
            words = {p.name.upper() for p in command.params if p.param_type_name == "argument"}
            found[path] = {"options": options - {"--help"}, "arguments": words}

    walk(typer.main.get_command(app), "brewlens")
    return found


def sections(text: str, level: str = "##") -> dict[str, str]:
    parts = re.split(rf"^{level} (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_page_has_every_command_with_every_option_and_no_other():
    told = sections(page("command_line.md"))
    there = {name.strip("`"): body for name, body in told.items() if name.startswith("`")}
    asked = commands()
    assert set(there) == set(asked)
    for name, body in there.items():
        rows = re.findall(r"^\| (`[^|]+) \|", body, flags=re.MULTILINE)
        shown = {option for row in rows for option in re.findall(r"`(--?[a-z-]+)", row)}
        words = {word for row in rows for word in re.findall(r"`([A-Z]+)`", row)}
        assert shown == asked[name]["options"], name
        assert words == asked[name]["arguments"], name


def test_the_page_has_every_field_of_a_study_file():
    text = page("command_line.md")
    for field in bl.Plan.model_fields:
        assert f"`--{field.replace('_', '-')}`" in text or f"`{field}`" in text, field


# The run folder


@cache
def columns() -> dict[str, dict[str, str]]:
    """Table -> column -> type, as the page has them."""
    found = {}
    for name, body in sections(page("run_folder.md"), "###").items():
        rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", body, flags=re.MULTILINE)
        if rows and name.endswith(".parquet`"):
            found[name.strip("`")] = dict(rows)
    return found


def kind(column: pd.Series) -> str:
    if pd.api.types.is_bool_dtype(column):
        return "yes or no"
    if pd.api.types.is_integer_dtype(column):
        return "integer"
    if pd.api.types.is_float_dtype(column):
        return "number"
    first = next((v for v in column if v is not None), "")
    return "text" if isinstance(first, str) else "list"


def compare(name: str, frame: pd.DataFrame) -> None:
    told = columns()[name]
    assert set(told.values()) <= TYPES
    assert list(frame.columns) == list(told), name
    if len(frame):
        found = {c: kind(frame[c]) for c in frame.columns if not frame[c].isna().all()}
        assert found == {c: told[c] for c in found}, name


@pytest.fixture(scope="module")
def everything(tiny_model):
    """A trace of a random model with the tables that decoders and the analysis give."""
    items = bl.tasks.generate("loop", n=40, seed=0)
    return bl.trace(
        tiny_model,
        items,
        near_ood_items=10,
        prompts="bundled",
        compat="paper",
        resamples=99,
        progress=False,
    )


def test_the_page_has_every_column_of_a_run(everything, tiny_model, tmp_path):
    tables = {f"tables/{name}.parquet": table for name, table in everything.tables.items()}
    tables["tokens.parquet"] = tables.pop("tables/tokens.parquet")
    tables["samples.parquet"] = everything.to_frame()
    tables["layers.parquet"] = everything.readouts["probe"].to_frame(everything.items.answers)
    lens = bl.decoding.train_tuned_lens(tiny_model, everything.residuals, steps=2)
    tables["tables/tuned_lens.parquet"] = lens.training.to_frame().assign(fold=0)
    for name, table in tables.items():
        write_table(tmp_path / "t.parquet", table)
        compare(name, pd.read_parquet(tmp_path / "t.parquet"))
    intervened = {"learned_subspace", "causal_verdicts", "components", "overtakes", "rescue"}
    rest = {f"tables/{name}.parquet" for name in intervened} | {"effects.parquet", "items.parquet"}
    assert set(columns()) == set(tables) | rest


def test_the_page_has_the_columns_of_items(everything):
    frame = items_frame(everything.items, everything.folds)
    factors = {name for item in everything.items for name in item.factors}
    assert [c for c in frame.columns if c not in factors] == list(columns()["items.parquet"])


@pytest.mark.parametrize(
    ("table", "module"),
    [("effects", "effects"), ("tables/causal_verdicts", "verdicts"), ("tables/rescue", "rescue")],
)
def test_the_page_has_the_columns_of_interventions(table, module):
    named = import_module(f"brewlens.intervention.{module}").COLUMNS
    assert tuple(columns()[f"{table}.parquet"]) == named


# Figures


def test_the_page_has_every_figure_with_its_table():
    text = page("figures.md")
    for name in bl.figures.__all__:
        if name.startswith(("plot_", "style", "save")) and not name.endswith("_grid"):
            assert re.search(rf"brewlens\.figures\.{name}[`>]", text), name


def plates_on_the_page(names: set[str]) -> set[str]:
    """Those that the page names, by themselves or as one of several: ``lifecycle_*``."""
    text = page("figures.md")
    patterns = re.findall(r"`(\w+\*?)`", text)
    return {name for name in names if any(fnmatch(name, pattern) for pattern in patterns)}


def test_the_page_has_every_plate(everything):
    names = set(import_module("brewlens.figures.plates").makers(everything))
    assert not names - plates_on_the_page(names)


# Links and examples


def test_links_lead_somewhere():
    for path in DOCS.rglob("*.md"):
        if "_build" in path.parts:
            continue
        prose = re.sub(r"^```.*?^```$|`[^`]+`", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", prose):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)}: {target}"


def examples(name: str) -> doctest.DocTest:
    """The ``pycon`` blocks of a page, as one session."""
    blocks = re.findall(r"^```pycon\n(.*?)^```$", page(name), flags=re.MULTILINE | re.DOTALL)
    return doctest.DocTestParser().get_doctest("\n".join(blocks), {}, name, str(DOCS / name), 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [p.name for p in sorted(DOCS.glob("*.md")) if "```pycon" in p.read_text()])
@pytest.mark.filterwarnings("default")
def test_the_examples_of_a_page_print_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    told: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    with torch.random.fork_rng():
        result = runner.run(examples(name), out=told.append)
    assert result.attempted and not result.failed, "".join(told)


@pytest.mark.slow
def test_it_builds_without_a_warning_and_without_a_network(tmp_path):
    out = tmp_path / "html"
    command = ["-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", "-d", str(tmp_path / "trees")]
    done = subprocess.run(
        [sys.executable, *command, str(DOCS), str(out)],
        capture_output=True,
        text=True,
        env={
            **os.environ,
            "HF_HUB_OFFLINE": "1",
            "http_proxy": "http://127.0.0.1:9",
            "https_proxy": "http://127.0.0.1:9",
        },
    )
    assert done.returncode == 0, done.stderr
    formulas = re.findall(r"<math.*?</math>", (out / "science.html").read_text(), flags=re.DOTALL)
    assert formulas and not [f for f in formulas if "\\" in f]  # what was not understood stays as it was
    for path in out.rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', path.read_text())
        assert not loaded, f"{path.name} loads {loaded}"


@pytest.mark.slow
def test_the_page_has_every_file_of_a_run_with_interventions(tmp_path):
    few = {"n": 108, "near_ood": 10, "resamples": 99, "intervention_n": 30}
    plan = bl.make_plan(families=("computing", "loop"), interventions="all", **few)
    folder = tmp_path / "run"
    bl.run(plan, folder, progress=False)
    for path in folder.rglob("*.parquet"):
        name = str(path.relative_to(folder))
        frame = pd.read_parquet(path)
        if name.startswith("interventions/"):
            name = "effects.parquet"
        if name == "items.parquet" or name == "twins.parquet":
            continue
        compare(name, frame)
    text = page("run_folder.md")
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            for key in file.keys():  # noqa: SIM118
                assert f"`{key}`" in text or path.name == "readouts.safetensors", f"{path.name}: {key}"
    drawn = {path.stem for path in (folder / "figures").glob("*.csv")}
    assert drawn == plates_on_the_page(drawn)
    for name in ("manifest.json", "summary.json"):
        for key in json.loads((folder / name).read_text()):
            assert f"`{key}`" in sections(text, "###")[f"`{name}`"], f"{name}: {key}"
