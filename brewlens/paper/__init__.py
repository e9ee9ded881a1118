"""Tables for papers: LaTeX with booktabs and CSV, from a stored trace, every number with its interval.

``paper_tables`` gives them by name, ``write_tables`` writes them to a folder. In the document, behind
``\\usepackage{booktabs}``: ``\\input{paper/accuracy}``, and ``\\ref{tab:accuracy}``.
"""

from brewlens.paper.column import Column
from brewlens.paper.every import DATA_ONLY, SHOWN_IN, paper_tables, write_run, write_tables
from brewlens.paper.seeds import seed_tables
from brewlens.paper.table import PaperTable

__all__ = [
    "DATA_ONLY",
    "SHOWN_IN",
    "Column",
    "PaperTable",
    "paper_tables",
    "seed_tables",
    "write_run",
    "write_tables",
]
