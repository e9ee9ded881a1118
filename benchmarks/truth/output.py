"""What the repetitions say: a page of tables, the numbers behind them, and a figure for the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from benchmarks.machine import processor
from benchmarks.truth.repeat import Repeated
from brewlens.figures import theme
from brewlens.figures.export import save
from brewlens.files import replacing
from brewlens.stats import share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {
    "available_from": "available from",
    "ready_from": "ready from",
    "ready_until": "ready until",
}
_FIRST = {"available_from": "FPCL", "ready_from": "FCC"}


def write(found: Repeated, out: Path, docs: Path) -> str:
    """``truth.md``, ``.csv`` and ``.json`` in ``out``, ``onset_errors.*`` in ``docs``; returns the page."""
    out.mkdir(parents=True, exist_ok=True)
    content = _before(out / "truth.json")
    for part, table in found.tables.items():
        summary = _SUMMARIES[part](table)
        content[part] = {
            "minutes": found.minutes.get(part),
            "processes": found.processes,
            "rows": json.loads(summary.to_json(orient="records", double_precision=12)),
        }
    parts = {part: pd.DataFrame(content[part]["rows"]) for part in _TITLES if part in content}
    page = "\n\n".join([_HEAD, *(f"{_TITLES[part]}\n\n{_markdown(rows)}" for part, rows in parts.items())])
    took = ", ".join(f"{p} {content[p]['minutes']:.0f} min" for p in parts if content[p]["minutes"])
    page += f"\n\n{processor()}, {found.processes} processes: {took}.\n"
    _write(out / "truth.md", page)
    rows = [table.assign(part=part) for part, table in parts.items()]
    _write(out / "truth.csv", pd.concat(rows, ignore_index=True).to_csv(index=False, lineterminator="\n"))
    _write(out / "truth.json", json.dumps(content, indent=1) + "\n")
    if "planted" in found.tables:
        drawn = errors(found.tables["planted"])
        save(draw(drawn), docs / "onset_errors", drawn)
    return page


def _before(path: Path) -> dict[str, Any]:
    """What an earlier run wrote of other parts."""
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def nulls(table: pd.DataFrame) -> pd.DataFrame:
    """Share of null runs in which each test rejects at .05, and in which any claim is made."""
    records = []
    for (kind, layers), group in table.groupby(["kind", "n_layers"], sort=False):
        for test, rows in group.groupby("test", sort=False):
            p = rows["p"].dropna()
            records.append((kind, layers, test, *_share(p <= 0.05)))
        runs = group.drop_duplicates("run")
        records.append((kind, layers, "any false claim", *_share(runs["false_claims"] > 0)))
        present = runs[["present_available", "present_ready"]].to_numpy()
        records.append(
            (kind, layers, "samples with an onset, mean", len(runs), float(present.mean()), np.nan, np.nan)
        )
    return pd.DataFrame(records, columns=["kind", "n_layers", "test", "runs", "share", "low", "high"])


def planted(table: pd.DataFrame) -> pd.DataFrame:
    """Onsets and first hits beside the truth: bias in layers, and the share within one layer of it."""
    records = []
    for noise, group in table.groupby("noise", sort=False):
        for landmark in _NAMES:
            rows = group[(group["landmark"] == landmark) & (group["truth"] >= 0)]
            for which, part in (("all", rows), ("spread", rows[rows["spread"]])):
                for name, column in (("onset", "onset"), (_FIRST.get(landmark), "first_hit")):
                    if name is not None:
                        records.append((noise, landmark, which, name, *_errors(part, column)))
            absent = group[(group["landmark"] == landmark) & (group["truth"] < 0)]
            invented = [("onset", "onset"), (_FIRST.get(landmark), "first_hit")]
            for name, column in invented:
                if name is not None:
                    share_there = float((absent[column] >= 0).mean())
                    records.append(
                        (
                            noise,
                            landmark,
                            "truly never",
                            name,
                            len(absent),
                            np.nan,
                            np.nan,
                            np.nan,
                            share_there,
                        )
                    )
        outcome = group[group["landmark"] == "ready_from"]
        for name, column in (
            ("onset", "outcome_right"),
            ("first hits, repaired rule", "outcome_first_hit_right"),
            ("first hits, paper's rule", "outcome_paper_right"),
        ):
            records.append(
                (
                    noise,
                    "outcome",
                    "all",
                    name,
                    len(outcome),
                    np.nan,
                    np.nan,
                    float(outcome[column].mean()),
                    np.nan,
                )
            )
    columns = ["noise", "landmark", "samples", "by", "n", "bias", "worst_run_bias", "right", "found"]
    return pd.DataFrame(records, columns=columns)


def _errors(rows: pd.DataFrame, column: str) -> tuple[int, float, float, float, float]:
    """n, bias, bias of the worst run, share within one layer, and share found at all."""
    there = rows[column] >= 0
    error = (rows[column] - rows["truth"])[there]
    by_run = error.groupby(rows.loc[there, "run"]).agg(["mean", "size"])
    enough = by_run[by_run["size"] >= 20]["mean"]
    worst = float(enough.loc[enough.abs().idxmax()]) if len(enough) else np.nan
    near = float((error.abs() <= 1).sum() / len(rows)) if len(rows) else np.nan
    return len(rows), float(error.mean()), worst, near, float(there.mean())


def coverage(table: pd.DataFrame) -> pd.DataFrame:
    """Share of 95 % intervals that hold the truth."""
    records = [(name, *_share(rows["covers"])) for name, rows in table.groupby("interval", sort=False)]
    return pd.DataFrame(records, columns=["interval", "runs", "share", "low", "high"])


def _share(hits: pd.Series) -> tuple[int, float, float, float]:
    found = share(int(hits.sum()), len(hits))
    return (0, np.nan, np.nan, np.nan) if found is None else (found.n, found.value, found.low, found.high)


def errors(table: pd.DataFrame) -> pd.DataFrame:
    """Distribution of the errors of onsets and first hits in layers, by noise; ends are gathered."""
    rows = table[table["landmark"].isin(list(_FIRST)) & (table["truth"] >= 0)]
    layers = np.arange(-12, 7)
    records = []
    for noise, group in rows.groupby("noise", sort=False):
        for landmark, part in group.groupby("landmark", sort=False):
            for column, names in (("onset", _NAMES), ("first_hit", _FIRST)):
                there = part[part[column] >= 0]
                error = (there[column] - there["truth"]).clip(layers[0], layers[-1])
                shares = error.value_counts().reindex(layers, fill_value=0) / len(part)
                fixed = (noise, group["run"].nunique(), names[landmark])
                records += [(*fixed, int(e), float(v), len(part)) for e, v in shares.items()]
    return pd.DataFrame(records, columns=["noise", "models", "estimate", "error_layers", "share", "n"])


_LOOKS = {
    "available from": ("#0072b2", "-"),
    "FPCL": ("#0072b2", (0, (3, 1.5))),
    "ready from": ("#d55e00", "-"),
    "FCC": ("#d55e00", (0, (3, 1.5))),
}


def draw(table: pd.DataFrame) -> Figure:
    """Figure of :func:`errors`."""
    figure = theme.blank(theme.two_columns(), 2.9)
    with theme.context():
        panels = figure.subplots(1, 3, sharey=True)
        for ax, (noise, group) in zip(panels, table.groupby("noise", sort=False), strict=False):
            for name, (color, dashes) in _LOOKS.items():
                rows = group[group["estimate"] == name]
                layer, share_there = rows["error_layers"].to_numpy(), rows["share"].to_numpy()
                ax.step(layer, share_there, where="mid", color=color, linestyle=dashes, label=name)
            ax.set_title(f"{noise} noise  ({group['models'].iloc[0]} models)")
            ax.set_xlabel("estimate − truth, layers")
            ax.axvline(0, color=theme.GRID, linewidth=0.8, zorder=0)
            ax.set_ylim(0, 1)
        panels[0].set_ylabel("share of samples")
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4)
    return figure


def _markdown(table: pd.DataFrame) -> str:
    def cell(value: object) -> str:
        if value is None:
            return ""
        if isinstance(value, float):
            return "" if np.isnan(value) else f"{value:.3f}"
        return str(value)

    head = list(table.columns)
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(cell(v) for v in row) + " |" for row in table.itertuples(index=False)]
    return "\n".join(lines)


def _write(path: Path, text: str) -> None:
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


_SUMMARIES = {"nulls": nulls, "planted": planted, "coverage": coverage}
_HEAD = "# Does brewlens tell the truth?\n\nWritten by `python -m benchmarks.truth`."
_TITLES = {
    "nulls": (
        "## Where nothing is\n\nReadouts of noise over 270 programs (loops and their unrolled twins), "
        "through the whole analysis: share of runs in which each test rejects at .05, which should be .03 "
        "to .07, and in which the claims table says anything but *not distinguishable from null*: at most "
        ".05."
    ),
    "planted": (
        "## Where it is known\n\nReal transformers with hand-set weights, whose answers become available, "
        "ready and lost at planted layers, traced like any model. `bias` in layers, among the samples in "
        "which the landmark is there and found; `worst_run_bias` the same of the worst model; `right` the "
        "share within one layer of the truth (a landmark not found is not right), for outcomes the share of "
        "right labels; `found` the share in which it is found at all."
    ),
    "coverage": "## Intervals\n\nShare of 95 % intervals that hold the truth; it should be .93 to .97.",
}
