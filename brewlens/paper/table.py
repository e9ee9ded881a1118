"""One table of a paper: exact numbers in a tidy frame, and how they stand on the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import and_
from typing import TYPE_CHECKING, Any

from brewlens import html
from brewlens.brief import brief
from brewlens.decoding.surface_control import OVERALL
from brewlens.lifecycle.nulls import ALL
from brewlens.paper import latex
from brewlens.paper.column import MISSING, Cell, Column, missing

if TYPE_CHECKING:
    import pandas as pd


NO_INTERVAL = "Without interval: samples of a single shape, or without any spread."


@dataclass(frozen=True)
class Line:
    """A row on the page.

    Attributes:
        cells: One per column.
        over: What stands above the lines of its group; empty for nothing.
        group: The first key, where lines of one stand together; empty where they need not.
        total: Whether it is that of all samples together, below the families.
    """

    cells: tuple[Cell, ...]
    over: str
    group: str
    total: bool

    __repr__ = brief


@dataclass(frozen=True)
class PaperTable:
    """A table; every number that it shows stands in its frame.

    Attributes:
        name: Of its files and its label.
        frame: The tidy numbers, in full precision; it may hold more rows than are shown.
        caption: What it is.
        note: How to read it.
        keys: The columns that tell its rows apart, with what stands beneath them.
        columns: The others.
        shown: The rows of the frame that are shown: column -> value, or several.
        over: Columns whose texts stand above the rows that have them.
        grouped: Rows of one first key stand together, and it is written once.
        stacked: Intervals stand beneath their values, not beside them.
        units: Column of the frame -> unit, for the CSV.
    """

    name: str
    frame: pd.DataFrame
    caption: str
    note: str
    keys: tuple[Column, ...]
    columns: tuple[Column, ...]
    shown: Mapping[str, object] = field(default_factory=dict)
    over: tuple[Column, ...] = ()
    grouped: bool = False
    stacked: bool = False
    units: Mapping[str, str] = field(default_factory=dict)

    def lines(self) -> list[Line]:
        """The rows that are shown.

        Raises:
            ValueError: If the frame has two values for one place.
        """
        shown = {name: value if isinstance(value, tuple) else (value,) for name, value in self.shown.items()}
        kept = [self.frame[name].isin(values) for name, values in shown.items()]
        rows: Any = self.frame[reduce(and_, kept)] if kept else self.frame
        by = [column.value for column in (*self.over, *self.keys)]
        by += [key.beneath for key in self.keys if key.beneath]
        places: dict[tuple, list[dict[str, Any]]] = {}
        for row in rows.to_dict("records"):
            place = tuple(None if missing(row[name]) else row[name] for name in by)
            places.setdefault(place, []).append(row)  # type: ignore[arg-type]
        made = []
        for part in places.values():
            first = part[0]
            over = ", ".join(column.cell(first).value for column in self.over)
            keys = [key.cell(first) for key in self.keys]
            total = not over and len(keys) == 1 and first[by[0]] in (OVERALL, ALL)
            made.append(Line((*keys, *self._cells(part)), over, keys[0].value if self.grouped else "", total))
        # Groups stand where their first row does.
        order = {group: at for at, group in reversed(list(enumerate(line.over for line in made)))}
        within = {line.group: at for at, line in reversed(list(enumerate(made)))}
        return sorted(made, key=lambda line: (order[line.over], within[line.group]))

    @property
    def wraps(self) -> bool:
        """Whether it has texts of several lines."""
        return any(column.width for column in (*self.keys, *self.columns))

    def told(self, lines: list[Line]) -> str:
        """The note, and why intervals are missing, where they are."""
        columns = (*self.keys, *self.columns)
        bare = any(
            column.low and cell.value != MISSING and not cell.interval
            for line in lines
            for column, cell in zip(columns, line.cells, strict=True)
        )
        return f"{self.note} {NO_INTERVAL}".strip() if bare else self.note

    def _cells(self, rows: list[dict[str, Any]]) -> Iterator[Cell]:
        for column in self.columns:
            found = [row for row in rows if all(row[name] == value for name, value in column.where.items())]
            if len(found) > 1:
                told = {key.value: rows[0][key.value] for key in self.keys}
                raise ValueError(
                    f"table {self.name} has room for one {column.value!r} of {told}; found {len(found)}"
                )
            yield column.cell(found[0]) if found else Cell(MISSING)

    def to_csv(self) -> str:
        """Every number of the frame in full precision; heads with units."""
        heads = {name: f"{name} [{unit}]" for name, unit in self.units.items()}
        return self.frame.rename(columns=heads).to_csv(index=False, lineterminator="\n")

    def to_latex(self, *, starred: bool = False) -> str:
        """The table for a document that loads ``booktabs``; a long one in several parts of one number.

        Args:
            starred: Across both columns of a two-column page (``table*``).
        """
        return latex.document_part(self, starred=starred)

    def __repr__(self) -> str:
        return f"PaperTable({self.name}: {len(self.lines())} rows; {self.caption})"

    def _repr_html_(self) -> str:
        columns = (*self.keys, *self.columns)
        heads = [" ".join(column.head.split()) for column in columns]
        names = [head if head not in heads[:at] else f"{head} ({at})" for at, head in enumerate(heads)]
        rows = []
        for line in self.lines():
            told = {name: " ".join(filter(None, cell)) for name, cell in zip(names, line.cells, strict=True)}
            rows.append(({" ": line.over} if self.over else {}) | told)
        return html.card(self.caption, html.table(rows), html.note(self.told(self.lines())))
