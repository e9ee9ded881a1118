"""Figures as files: the same bytes, nothing half-written, nothing global changed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd
import pytest
from matplotlib.figure import Figure
from synthetic import synthetic_trace

from brewlens import figures
from brewlens.figures import theme
from brewlens.lifecycle import OUTCOMES

mpl.use("agg")


@pytest.fixture(scope="module")
def trace():
    return synthetic_trace(12, ("computing", "loop"), n_layers=4)


def test_files_have_the_same_bytes_when_made_again(trace, tmp_path):
    def plate():
        return next(p for p in figures.plates(trace) if p.name == "accuracy")

    first, again = plate(), plate()
    made = figures.save(first.figure, tmp_path / "a" / "accuracy", first.data)
    assert [p.name for p in made] == ["accuracy.pdf", "accuracy.svg", "accuracy.png", "accuracy.csv"]
    before = [p.read_bytes() for p in made]
    assert before == [
        p.read_bytes() for p in figures.save(first.figure, tmp_path / "a" / "accuracy", first.data)
    ]
    assert before == [
        p.read_bytes() for p in figures.save(again.figure, tmp_path / "b" / "accuracy", again.data)
    ]
    assert len(pd.read_csv(made[3])) == len(first.data)


def test_another_figure_has_other_bytes(trace, tmp_path):
    other = trace.select(range(13))
    made = {}
    for name, t in (("a", trace), ("b", other)):
        ax = figures.plot_outcomes(t, ax=theme.blank(5, 3).add_subplot())
        made[name] = figures.save(ax.figure, tmp_path / name, figures.outcome_table(t))
    assert all(a.read_bytes() != b.read_bytes() for a, b in zip(made["a"], made["b"], strict=True))


def test_a_failed_file_leaves_the_old_one_and_nothing_else(trace, tmp_path, monkeypatch):
    figure = Figure()
    table = pd.DataFrame({"x": [1]})
    paths = figures.save(figure, tmp_path / "f", table)
    before = {p: p.read_bytes() for p in tmp_path.iterdir()}

    def broken(path, **_):
        Path(path).write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(figure, "savefig", broken)
    with pytest.raises(OSError, match="no space"):
        figures.save(figure, tmp_path / "f", table)
    assert {p: p.read_bytes() for p in tmp_path.iterdir()} == before
    assert set(before) == set(paths)


def test_a_figure_without_numbers_is_refused(tmp_path):
    with pytest.raises(ValueError, match="empty table"):
        figures.save(Figure(), tmp_path / "f", pd.DataFrame({"x": []}))
    assert list(tmp_path.iterdir()) == []


def test_rcparams_are_as_before(trace, tmp_path):
    import matplotlib.pyplot as plt

    before = mpl.rcParams.copy()
    for draw in (figures.plot_accuracy, figures.plot_outcomes, lambda t: figures.plot_lifecycle(t, 0)):
        ax = draw(trace)
        figures.save(ax.figure, tmp_path / "f", figures.outcome_table(trace))
        plt.close(ax.figure)
    plt.close(figures.plot_accuracy_grid(trace))
    assert mpl.rcParams == before
    with theme.context():
        assert mpl.rcParams != before


def test_plates_leave_no_figure_open_and_write_nothing(trace, tmp_path, monkeypatch):
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    names = [plate.name for plate in figures.plates(trace)]
    assert names[:3] == ["outcomes", "outcomes_paper", "flow"]
    assert len(set(names)) == len(names)
    assert "lifecycle_resolved" in names
    assert plt.get_fignums() == []
    assert list(tmp_path.iterdir()) == []


def test_every_outcome_has_its_own_colour():
    assert set(theme.OUTCOME_COLORS) == set(OUTCOMES) == set(theme.OUTCOME_MARKERS)
    assert len(set(theme.OUTCOME_COLORS.values())) == len(OUTCOMES)
    colors = [line.color for line in theme.DECODERS.values()]
    assert len(set(colors)) == len(colors)
    # The report gives these to the page's theme: data drawn in them would change colour with it.
    themed = {theme.INK, theme.MUTED, theme.GRID, theme.FILL, theme.PAPER}
    assert not themed & {*theme.OUTCOME_COLORS.values(), *colors} - {theme.INK}


def test_the_room_does_not_import_a_model():
    forbidden = re.compile(r"^\s*(from|import) (brewlens\.(model|study)\b|torch|transformer_lens)", re.M)
    assert forbidden.search("    from brewlens.model import HookedModel")
    for name, module in list(sys.modules.items()):
        if name.startswith(("brewlens.figures", "brewlens.report")):
            assert not forbidden.search(Path(module.__file__).read_text("utf-8")), name
