"""LaTeX tables read back: their rows as cells, with nothing of the writing code in it."""

from __future__ import annotations

import re

_BACK = {
    r"\textbackslash{}": "\\",
    r"\~{}": "~",
    r"\^{}": "^",
    r"\`{}": "`",
    r"-{}-": "\x00",
    "$-$": "-",
    "$<$": "<",
    "$>$": ">",
    "$|$": "|",
    "''": '"',
}


def tabulars(text: str) -> list[str]:
    """The inside of every tabular."""
    return re.findall(r"\\begin\{tabular\}\{[^\n]*\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)


def formats(text: str) -> list[str]:
    return re.findall(r"\\begin\{tabular\}\{([^\n]*)\}\n", text)


def width(form: str) -> int:
    """Columns that a format gives."""
    return len(re.sub(r"@\{[^}]*\}", "", form))


def rows(tabular: str) -> list[list[str]]:
    """Cells of every row, heads first, as they are written; rules are left out."""
    body = re.sub(r"\\(toprule|midrule|bottomrule|addlinespace(\[[^]]*\])?)\n", "", tabular)
    lines = [line for line in re.split(r" \\\\\n", body) if line.strip()]
    return [re.split(r"(?<!\\)&", line) for line in lines]


def columns(row: list[str]) -> int:
    """Columns that a row fills."""
    wide = [re.match(r"\s*\\multicolumn\{(\d+)\}", cell) for cell in row]
    return sum(int(found[1]) if found else 1 for found in wide)


def plain(cell: str) -> str:
    """A cell as a reader sees it."""
    cell = re.sub(r"\\parbox\[t\]\{[^}]*\}\{\\raggedright\\strut (.*)\\strut\}", r"\1", cell.strip())
    cell = re.sub(r"\{\\scriptsize (.*?)\}(?=$| )", r"\1", cell)
    cell = re.sub(r"\\multicolumn\{1\}\{@\{\}l\}\{\\makebox\[0pt\]\[l\]\{\\emph\{(.*)\}\}\}", r"\1", cell)
    cell = re.sub(r"^\{([\[*])\}", r"\1", cell)
    for written, meant in _BACK.items():
        cell = cell.replace(written, meant)
    cell = re.sub(r"\\([{}$&%#_])", r"\1", cell)
    return cell.replace("\x00", "--").strip()


def table(text: str) -> list[list[str]]:
    """All rows of a file below their heads, as a reader sees them, parts one after the other."""
    return [[plain(cell) for cell in row] for tabular in tabulars(text) for row in rows(tabular)[1:]]
