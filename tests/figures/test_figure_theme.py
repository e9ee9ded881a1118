"""Venues: widths and fonts inside the block, nothing of it outside."""

from __future__ import annotations

import matplotlib as mpl
import pytest

from brewlens.figures import style, theme, venues


def test_widths_of_known_venues():
    # neurips: one column of 5.5 inches; icml: two of 3.25 in 6.75, as their author instructions say.
    with style("neurips"):
        assert (theme.one_column(), theme.two_columns()) == (2.75, 5.5)
    with style("icml2024"):
        assert (theme.one_column(), theme.two_columns()) == (3.25, 6.75)


def test_leaves_everything_as_it_was():
    before, widths = dict(mpl.rcParams), (theme.one_column(), theme.two_columns())
    with pytest.raises(ZeroDivisionError), style("neurips"), theme.context():
        assert mpl.rcParams["font.family"] == ["serif"]
        raise ZeroDivisionError
    assert dict(mpl.rcParams) == before
    assert (theme.one_column(), theme.two_columns()) == widths


def test_figures_take_the_venues_width_and_letters():
    with style("icml"), theme.context():
        ax = theme.blank(theme.one_column(), 2).add_subplot()
        ax.set_xlabel("layer")
    assert ax.figure.get_size_inches()[0] == 3.25
    assert ax.xaxis.label.get_size() == 8 and ax.xaxis.label.get_family() == ["serif"]
    assert theme.blank(theme.one_column(), 2).get_size_inches()[0] == 3.35


@pytest.mark.parametrize("name", venues())
def test_every_venue_can_be_asked_for(name):
    with style(name) as venue:
        assert 2 < venue.one_column < venue.two_columns < 8


def test_without_a_year_it_is_the_latest():
    with style("aistats") as venue:
        assert venue.name == "aistats2025"


@pytest.mark.parametrize("name", ["nature physics", "figsizes", "rgb", "2024", ""])
def test_unknown_venues_are_refused(name):
    with pytest.raises(ValueError, match="choose one of aaai"), style(name):
        pass
