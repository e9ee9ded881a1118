"""Every notebook runs from its percent script, top to bottom, and what is rendered is what it says."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest
from nbformat import NotebookNode, v4, validate
from nbformat import read as read_notebook

sys.path.insert(0, str(Path(__file__).parents[1]))

from notebooks import published, render


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


@pytest.mark.parametrize("name", render.NAMES)
@pytest.mark.filterwarnings("default")  # jupyter's own
def test_notebook_runs(name, tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "passive")
    cells = code_cells(render.execute(render.read(name), tmp_path))
    outputs = [output for cell in cells for output in cell.outputs]
    drawn = sum("plot_" in cell.source for cell in cells)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == drawn > 0
    assert not any(output.output_type == "error" for output in outputs)


def test_every_script_is_a_notebook_of_the_list():
    scripts = {path.stem for path in render.FOLDER.glob("*.py") if "format_name: percent" in path.read_text()}
    assert scripts == set(render.NAMES)
    assert {path.stem for path in render.RENDERED.glob("*.ipynb")} == scripts


@pytest.mark.parametrize("name", render.NAMES)
def test_what_is_rendered_is_what_the_script_says(name):
    """If not: make notebooks."""
    path = render.RENDERED / f"{name}.ipynb"
    rendered = read_notebook(path, 4)
    validate(rendered)
    script = render.read(name)
    assert [(c.cell_type, c.source) for c in rendered.cells] == [
        (c.cell_type, c.source) for c in script.cells
    ]
    assert [c.execution_count for c in code_cells(rendered)] == list(range(1, len(code_cells(script)) + 1))
    text = path.read_text("utf-8")
    assert not re.search(r"/tmp|/home/|/root/|0x[0-9a-f]{6}|\\r|<script|Traceback", text)
    assert set(rendered.metadata) == {"kernelspec", "language_info"}
    for cell in code_cells(rendered):
        for output in cell.outputs:
            assert output.output_type != "error"
            assert len(output.get("data", {}).get("image/png", "")) * 3 // 4 <= render.MOST_BYTES


def notebook_with(*outputs):
    cell = v4.new_code_cell("x", execution_count=1, outputs=list(outputs))
    cell.metadata["execution"] = {"iopub.execute_input": "2020-01-01"}
    return NotebookNode(
        nbformat=4, nbformat_minor=5, metadata={"widgets": {}}, cells=[v4.new_markdown_cell("y"), cell]
    )


def test_what_changes_from_run_to_run_is_not_kept():
    outputs = [
        v4.new_output("stream", name="stdout", text="one, "),
        v4.new_output("stream", name="stdout", text="two in /tmp/abc/runs\n"),
        v4.new_output("stream", name="stderr", text="\rtrace:  10%\rtrace: 100%"),
        v4.new_output("display_data", {"application/vnd.jupyter.widget-view+json": {}, "text/plain": "bar"}),
        v4.new_output("display_data", {"text/html": "<div><script>draw()</script></div>"}),
        v4.new_output("execute_result", {"text/plain": "<Axes at 0x7f12ab>", "text/html": "<p>kept</p>"}),
        v4.new_output("stream", name="stderr", text="a warning\n"),
    ]
    made = render.settled(notebook_with(*outputs), ["/tmp/abc"])
    cell = made.cells[1]
    assert [c.id for c in made.cells] == ["cell-00", "cell-01"]
    assert cell.metadata == {}
    assert "widgets" not in made.metadata
    assert [o.get("text") or dict(o.data) for o in cell.outputs] == [
        "one, two in .../runs\n",
        {"text/plain": "This output needs JavaScript; run the notebook to see it."},
        {"text/plain": "<Axes>", "text/html": "<p>kept</p>"},
        "a warning\n",
    ]
    validate(made)
    assert json.dumps(render.settled(made)) == json.dumps(made)


def test_published_shares_add_up():
    shares = published.BY_FAMILY[["resolved", "overprocessed", "misresolved", "unresolved"]].sum(axis=1)
    assert shares.between(99.8, 100.2).all()
    assert (published.BY_FAMILY["fpcl"] < published.BY_FAMILY["fjc"]).all()
