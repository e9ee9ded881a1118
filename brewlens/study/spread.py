"""Spread: the numbers of several summaries side by side, and how far each differs between them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from brewlens.decoding.surface_control import OVERALL
from brewlens.lifecycle.nulls import ALL
from brewlens.stats import between

if TYPE_CHECKING:
    import pandas as pd

_MEASURED = ("value", "mean", "effect", "difference", "excess", "share")
_BESIDE = {
    *("low", "high", "level", "count", "n", "df", "se", "shapes", "clusters", "n_clusters", "n_shapes"),
    *("p", "p_adjusted", "resamples", "detectable"),
}
_NO_NAME = {"family", "verdict", "unit", "reason", "paper_is", "brewlens_is"}


def quantities(
    summary: Mapping[str, Any],
) -> Iterator[tuple[str, str, float | None, float | None, float | None, int | None]]:
    """Every number that a summary states of a family or of all samples.

    What has a value, a low and a high is one quantity, and so is each plain number of a family; their names
    are the keys on the way there, with dots. In a table (``claims``, ``nulls`` and the like) each row with a
    value and an interval is one, named after the table and the row's texts. Configurations are left out.

    Yields:
        Family (or ``overall``, or ``claims``), quantity, value, low, high, n; None for what is not stated.
    """
    for family, group in {**summary["families"], OVERALL: summary[OVERALL]}.items():
        for quantity, *numbers in _measures(group):
            yield family, quantity, *numbers
    for table, rows in summary.items():
        if table == "configurations" or not isinstance(rows, list):
            continue
        for row in rows:
            if isinstance(row, Mapping):
                family = str(row.get("family", table))
                texts = [v for name, v in row.items() if isinstance(v, str) and name not in _NO_NAME]
                for key, *numbers in _measured(row):
                    name = "; ".join([*texts, key] if key not in _MEASURED or not texts else texts)
                    yield OVERALL if family == ALL else family, f"{table}: {name}", *numbers


def _measured(node: Mapping[str, Any]) -> Iterator[tuple]:
    """Each number with an interval: its key, value, low, high, n.

    An interval has a key ``low``, about the first of ``_MEASURED``, or ``x_low``, about ``x``.
    """
    if "low" in node and (key := next((key for key in _MEASURED if key in node), None)) is not None:
        yield key, node[key], node["low"], node["high"], node.get("n")
    for key in node:
        if f"{key}_low" in node:
            yield key, node[key], node[f"{key}_low"], node[f"{key}_high"], node.get(f"{key}_n", node.get("n"))


def _measures(node: object, name: str = "", n: int | None = None) -> Iterator[tuple]:
    """Names and numbers of a family's part of a summary, whatever it holds."""
    if isinstance(node, Mapping):
        n = node.get("n", n)
        told = set()
        for key, *numbers in _measured(node):
            told |= {key, f"{key}_low", f"{key}_high", f"{key}_n"}
            yield name if key in _MEASURED else _join(name, key), *numbers
        for key, inner in node.items():
            if key not in told and key not in _BESIDE:
                yield from _measures(inner, _join(name, key), n)
    elif isinstance(node, list):
        for place, inner in enumerate(node):
            yield from _measures(inner, f"{name}[{place}]", n)
    elif isinstance(node, int | float) and not isinstance(node, bool):
        yield name, node, None, None, n


def _join(name: str, key: str) -> str:
    return f"{name}.{key}" if name else key


def spread(values: pd.DataFrame) -> pd.DataFrame:
    """Mean, spread and interval over seeds of every quantity.

    Args:
        values: As ``Seeds.values``.

    Returns:
        As ``Seeds.spread``; without a value in two seeds there is no spread and no interval.
    """
    import pandas as pd

    records = []
    for key, rows in values.groupby(["family", "quantity"], sort=False):
        value = rows["value"].dropna().to_numpy()
        found = between(value) if len(value) > 1 else None
        half = ((rows["high"] - rows["low"]) / 2).mean()
        numbers = (np.nan,) * 3 if found is None else (found.sd, found.low, found.high)
        mean = value.mean() if len(value) else np.nan
        counts = (rows["n"].min(), rows["n"].max())
        records.append((*key, len(value), mean, *numbers, half, *counts))  # type: ignore[misc]
    columns = ["family", "quantity", "seeds", "mean", "sd", "low", "high", "within", "n_least", "n_most"]
    return pd.DataFrame(records, columns=columns).astype({"n_least": "Int64", "n_most": "Int64"})
