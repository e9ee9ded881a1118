"""One column of a table on the page: which numbers it shows, and how they are written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Kind = Literal["text", "words", "count", "percent", "points", "share", "number", "p", "mark"]
"""``text`` as it is; ``words`` without underscores; ``percent`` and ``points`` of fractions, the latter with
their sign; ``share`` without the zero before the point; ``p`` with three decimals; ``mark`` where true."""

MISSING = "\N{EN DASH}"
_DIGITS = {"percent": 1, "points": 1, "share": 2, "number": 2, "p": 3}


class Cell(NamedTuple):
    """A value, its interval, and what stands small beneath; empty for none."""

    value: str
    interval: str = ""
    beneath: str = ""


@dataclass(frozen=True)
class Column:
    """One column on the page.

    Attributes:
        head: Its head; a new line for each line.
        value: Column of the frame.
        kind: How its values are written.
        low: Column of the frame with the lower end of the interval; empty for none.
        high: The upper end.
        beneath: Column of the frame whose text or count stands small beneath the value.
        where: The rows of the frame that it shows: column -> value.
        digits: Decimals; by default those of the kind.
        signed: Write a plus, too.
        names: What stands for a value: value -> text.
        width: Of a column with several lines, as LaTeX knows it.
        beneath_as: How what stands beneath is written, around ``{}``.
    """

    head: str
    value: str
    kind: Kind = "number"
    low: str = ""
    high: str = ""
    beneath: str = ""
    where: Mapping[str, object] = field(default_factory=dict)
    digits: int | None = None
    signed: bool = False
    names: Mapping[Any, str] = field(default_factory=dict)
    width: str = ""
    beneath_as: str = "{}"

    @property
    def left(self) -> bool:
        """Whether it is of texts."""
        return self.kind in ("text", "words")

    def cell(self, row: Mapping[str, Any]) -> Cell:
        """What it shows of a row of the frame."""
        interval = beneath = ""
        if self.low and not (missing(row[self.low]) or missing(row[self.high])):
            interval = f"[{self.text(row[self.low])}, {self.text(row[self.high])}]"
        if self.beneath and not missing(row[self.beneath]):
            beneath = self.beneath_as.format(str(row[self.beneath]).replace("_", " "))
        return Cell(self.text(row[self.value]), interval, beneath)

    def text(self, value: Any) -> str:
        """A value as it stands in the table."""
        if missing(value):
            return MISSING
        if value in self.names:
            return self.names[value]
        if self.left:
            return str(value).replace("_", " ") if self.kind == "words" else str(value)
        if self.kind == "mark":
            return "yes" if value else "no"
        if self.kind == "count":
            return f"{int(value)}"
        digits = _DIGITS[self.kind] if self.digits is None else self.digits
        if self.kind == "p":
            least = 10**-digits
            return f"< {_bare(least, digits)}" if value < least else _bare(value, digits)
        scaled = 100 * float(value) if self.kind in ("percent", "points") else float(value)
        rounded = round(scaled, digits) + 0.0  # no minus before a zero
        sign = "+" if rounded > 0 and (self.signed or self.kind == "points") else ""
        written = _bare(rounded, digits) if self.kind == "share" else f"{rounded:.{digits}f}"
        return sign + written.replace("-", "\N{MINUS SIGN}")


def missing(value: Any) -> bool:
    """Whether there is no value: None, NaN or NA, and not a finite number."""
    import numpy as np
    import pandas as pd

    return bool(pd.isna(value)) or (isinstance(value, float | np.floating) and not np.isfinite(value))


def _bare(value: float, digits: int) -> str:
    """Without the zero before the point."""
    text = f"{value:.{digits}f}"
    return text.replace("0.", ".", 1) if abs(float(text)) < 1 else text
