"""Tables for LaTeX: booktabs is all that they need, and what comes from data is escaped."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import TYPE_CHECKING

from brewlens.paper.column import Column

if TYPE_CHECKING:
    from brewlens.paper.table import Line, PaperTable

LINES = 46
"""Lines of a table that a page has room for, beside its caption and its note."""
_MARKS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "^": r"\^{}",
    "~": r"\~{}",
    "`": r"\`{}",
    "<": "$<$",
    ">": "$>$",
    "|": "$|$",
    '"': "''",
    "\N{NO-BREAK SPACE}": "~",
    "\N{MINUS SIGN}": "$-$",
    "\N{EN DASH}": "--",
    "\N{HORIZONTAL ELLIPSIS}": r"\dots{}",
    "\N{LEFT SINGLE QUOTATION MARK}": "`",
    "\N{RIGHT SINGLE QUOTATION MARK}": "'",
    "\N{LEFT DOUBLE QUOTATION MARK}": "``",
    "\N{RIGHT DOUBLE QUOTATION MARK}": "''",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "\N{PLUS-MINUS SIGN}": r"$\pm$",
    "\N{LESS-THAN OR EQUAL TO}": r"$\leq$",
    "\N{GREATER-THAN OR EQUAL TO}": r"$\geq$",
    "\N{GREEK SMALL LETTER CHI}": r"$\chi$",
    "\N{GREEK SMALL LETTER RHO}": r"$\rho$",
    "\N{SUPERSCRIPT TWO}": "$^2$",
    "\N{WORD JOINER}": "{}",
}
_TABLE = str.maketrans(_MARKS)


def escape(text: str) -> str:
    """Text as LaTeX prints it, in one line.

    Letters of other scripts stay as they are: pdflatex knows the Latin ones, xelatex and lualatex all.
    """
    text = re.sub(r"[\x00-\x1f\x7f]+", " ", text)
    text = re.sub(r"-(?=-)", "-\N{WORD JOINER}", text)  # two hyphens would become a dash
    text = re.sub(r"(?<=\d) (?=%)|(?<=\bn) (?== \d)|(?<=\bn =) (?=\d)", "\N{NO-BREAK SPACE}", text)
    return text.translate(_TABLE)


def slug(text: str) -> str:
    """A name for files and labels: small letters, digits and underscores of ASCII."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_") or "unnamed"


def document_part(table: PaperTable, *, starred: bool = False) -> str:
    """One ``table`` environment, or several of one number where the table is longer than a page.

    Args:
        table: The table.
        starred: Across both columns of a two-column page.
    """
    pages = _pages(table)
    note = table.told([line for lines in pages for line in lines])
    kind = "table*" if starred else "table"
    made = ["% needs \\usepackage{booktabs}"]
    for number, lines in enumerate(pages):
        of = f"art {number + 1} of {len(pages)}.)" if len(pages) > 1 else ""
        caption = f"(Continued; p{of}" if number else escape(table.caption) + (of and f" (P{of}")
        made += [rf"\begin{{{kind}}}[tbp]", r"\centering"]
        if number:
            made.append(r"\addtocounter{table}{-1}")
        made += [rf"\caption{{{caption}}}"]
        if not number:
            made.append(rf"\label{{tab:{table.name}}}")
        made += [
            r"\smallskip",
            r"\footnotesize",
            r"\setlength{\tabcolsep}{3pt}",
            _tabular(table, lines).rstrip("\n"),
        ]
        if note and number == len(pages) - 1:
            text = rf"\parbox{{\linewidth}}{{\scriptsize\raggedright {escape(note)}}}"
            made += ["", r"\smallskip", text]
        made.append(rf"\end{{{kind}}}")
    return "\n".join([*made, ""])


def _pages(table: PaperTable) -> list[list[Line]]:
    """Lines for one page each, of about equal height; a group is parted only where it fills a page."""
    height = 2.0 if table.stacked or table.wraps else 1.0
    groups = [list(lines) for _, lines in groupby(table.lines(), key=lambda line: line.over or line.group)]
    pieces = []
    for lines in groups:
        most = -(-len(lines) // -(-int(height * len(lines) + 2) // LINES))
        pieces += [lines[at : at + most] for at in range(0, len(lines), most)]
    heights = [height * len(piece) + (1.5 if piece[0].over else 0.5) for piece in pieces]
    fair = sum(heights) / -(-sum(heights) // LINES) if pieces else 0
    pages: list[list[Line]] = [[]]
    filled = 0.0
    for piece, more in zip(pieces, heights, strict=True):
        if pages[-1] and (filled >= 0.95 * fair or filled + more > LINES):
            pages.append([])
            filled = 0.0
        pages[-1].extend(piece)
        filled += more
    return pages


def _tabular(table: PaperTable, lines: Sequence[Line]) -> str:
    """The tabular, by pandas; a number and its interval are two columns under one head."""
    import pandas as pd

    columns = (*table.keys, *table.columns)
    beside = [
        not (table.stacked or column.left) and any(line.cells[at][1:] != ("", "") for line in lines)
        for at, column in enumerate(columns)
    ]
    heads = [
        (number, _head(column.head), half)
        for number, (column, two) in enumerate(zip(columns, beside, strict=True))
        for half in range(1 + two)
    ]
    body: list[list[str]] = []
    for before, line in pairwise([None, *lines]):
        body += _rows(table, before, line, beside)  # type: ignore[arg-type]
    shown = pd.DataFrame(body, columns=pd.MultiIndex.from_tuples(heads)).style
    form = "".join(_form(column) + "@{~}l" * two for column, two in zip(columns, beside, strict=True))
    return (
        shown.hide(axis="index")
        .hide(axis="columns", level=[0, 2])
        .to_latex(hrules=True, column_format=f"@{{}}{form}@{{}}", multicol_align="c")
    )


def _rows(table: PaperTable, before: Line | None, line: Line, beside: Sequence[bool]) -> Iterator[list[str]]:
    """The rows of the tabular for one line: what stands over its group, its values, what is beneath them."""
    columns = (*table.keys, *table.columns)
    same_over = before is not None and before.over == line.over
    told = table.grouped and same_over and before is not None and before.group == line.group
    first, second = [], []
    for at, (column, cell, two) in enumerate(zip(columns, line.cells, beside, strict=True)):
        value = "" if told and at == 0 else _guarded(escape(cell.value))
        if column.width and value:
            value = rf"\parbox[t]{{{column.width}}}{{\raggedright\strut {value}\strut}}"
        extra = [text for text in (cell.interval, cell.beneath) if text]
        if two:
            first += [value, _small(", ".join(extra))]
            second += ["", ""]
            continue
        beneath = extra.pop() if table.stacked and extra else ""
        first.append(" ".join([value, *map(_small, extra)]))
        second.append(_small(beneath))
    rule = ""
    if before is not None:
        apart = not same_over or (table.grouped and not table.over and not told)
        gap = "" if apart else "[2pt]" if table.stacked or table.wraps else None
        rule = r"\midrule" + "\n" if line.total else "" if gap is None else rf"\addlinespace{gap}" + "\n"
    if line.over and not same_over:
        yield [rule + _over(line.over), *[""] * (len(first) - 1)]
        rule = ""
    yield [rule + first[0], *first[1:]]
    if any(second):
        yield [r"\addlinespace[-2pt]" + "\n" + second[0], *second[1:]]


def _small(text: str) -> str:
    """What stands beside or beneath a number: its interval, a layer."""
    return rf"{{\scriptsize {escape(text)}}}" if text else ""


def _over(text: str) -> str:
    """What stands above a group: from the left edge, as wide as it is."""
    return rf"\multicolumn{{1}}{{@{{}}l}}{{\makebox[0pt][l]{{\emph{{{escape(text)}}}}}}}"


def _guarded(text: str) -> str:
    """For the start of a row, where a bracket would be read as an option of what ended the row before."""
    return f"{{{text[0]}}}{text[1:]}" if text[:1] in ("[", "*") else text


def _head(text: str) -> str:
    lines = [_guarded(escape(line)) for line in text.split("\n")]
    together = r"\\".join(lines)
    return together if len(lines) == 1 else rf"\shortstack{{{together}}}"


def _form(column: Column) -> str:
    return "l" if column.left else "c" if column.kind == "mark" else "r"
