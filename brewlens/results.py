"""Trace: what one model made of one item set, in memory or read back from a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int

from brewlens import html
from brewlens.decoding.probes import Probes
from brewlens.decoding.readout import Readout
from brewlens.lifecycle.landmarks import NEVER
from brewlens.lifecycle.onsets import Onsets
from brewlens.lifecycle.outcomes import OUTCOMES
from brewlens.lifecycle.trajectory import Lifecycle, onset_outcomes
from brewlens.residuals import Residuals
from brewlens.stats import clustered_share
from brewlens.tasks.folds import clusters
from brewlens.tasks.item import ItemSet

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Trace:
    """Items, readouts and lifecycles of one model; rows are the same samples in the same order everywhere.

    Attributes:
        items: The items.
        folds: Fold of each item, 0-based; its probe was trained on the other folds.
        readouts: Decoder name -> readout. ``probe``, ``logit_lens``, ``context_stripped`` and
            ``context_stripped_raw`` have one layer axis entry per block; ``surface`` reads the text only and
            has a single entry there.
        lifecycle: Landmarks (first hits) and outcomes.
        model: Name of the model.
        residuals: The residuals, unless they were left on disk.
        manifest: Plan, versions, hashes and times of the run; empty for a trace made in a session.
        tables: What the decoders tell beside their readouts, by name, as far as asked for: ``bias``,
            ``calibration``, ``class_calibration``, ``reliability``, ``near_ood_recognised``, ``prompts``,
            ``prompt_spread``, ``prompts_left_out``, ``tuned_lens``; ``tokens`` (see
            :func:`brewlens.pieces.token_table`); and what is made of all of them: ``claims``, ``nulls``,
            ``onsets``, ``onset_curves``, ``surface_control``, ``signals``, ``paper`` (see
            :func:`brewlens.study.analysis.analyse`). Of interventions: ``effects``, ``causal_verdicts``,
            ``learned_subspace``, ``components``, ``overtakes``, ``rescue``.
        onsets: ``available`` (of the probe) and ``ready`` (of context-stripped decoding): posteriors over the
            layer from which on the decoder is right.
        probes: The fitted probes, of all the items that the trace was made of.
    """

    items: ItemSet
    folds: Int[np.ndarray, "sample"]
    readouts: Mapping[str, Readout]
    lifecycle: Lifecycle
    model: str
    residuals: Residuals | None = None
    manifest: Mapping[str, object] = field(default_factory=dict)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    onsets: Mapping[str, Onsets] = field(default_factory=dict)
    probes: Probes | None = None

    @cached_property
    def shapes(self) -> Int[np.ndarray, "sample"]:
        """Number of each item's shape, twins counted as of one shape: the clusters of every interval."""
        return clusters(self.items)

    @property
    def n_layers(self) -> int:
        """Number of layers, L."""
        return self.lifecycle.n_layers

    def __len__(self) -> int:
        return len(self.items)

    def select(self, rows: Sequence[int] | Int[np.ndarray, "row"]) -> Trace:
        """The samples at ``rows``, without residuals."""
        from dataclasses import replace

        rows = np.asarray(rows)
        return replace(
            self,
            items=self.items.select(rows.tolist()),
            folds=self.folds[rows],
            readouts={name: readout.select(rows) for name, readout in self.readouts.items()},
            lifecycle=self.lifecycle.select(rows),
            residuals=None,
            tables={},  # they speak of all samples
            onsets={name: onsets.select(rows) for name, onsets in self.onsets.items()},
        )

    def with_tables(self, **tables: pd.DataFrame) -> Trace:
        """The same trace with more tables, such as the ``effects`` of an intervention, for figures."""
        from dataclasses import replace

        return replace(self, tables={**self.tables, **tables})

    def to_frame(self) -> pd.DataFrame:
        """One row per sample, the columns of ``samples.parquet``: first hits, outcomes, and onsets.

        ``available_from``, ``ready_from`` and ``ready_until`` (first layer at which it is ready no longer)
        are posterior medians, missing where there is none; ``p_available`` and ``p_ready`` are the posterior
        probabilities that there is one; ``outcome_onset`` is the repaired rule on onsets.
        """
        import pandas as pd

        frame = self.lifecycle.to_frame()
        if not self.onsets:
            return frame
        available, ready = self.onsets["available"], self.onsets["ready"]
        layers = {"available_from": available.onset, "ready_from": ready.onset, "ready_until": ready.end}
        for name, values in layers.items():
            frame[name] = pd.array(values, dtype="Int64")
            frame.loc[values == NEVER, name] = pd.NA
        frame["p_available"], frame["p_ready"] = available.present, ready.present
        frame["outcome_onset"] = onset_outcomes(self.lifecycle, available.onset, ready.onset)
        return frame

    def __repr__(self) -> str:
        return (
            f"Trace({self.model}: {len(self)} samples x {self.n_layers} layers; {', '.join(self.readouts)})"
        )

    def _repr_html_(self) -> str:
        """One row per family: right outputs with a clustered interval, outcomes, and accuracy by layer."""
        families, life = np.array(self.lifecycle.families), self.lifecycle
        decoders = [str(life.settings[role]) for role in ("availability", "readiness")]
        names = list(dict.fromkeys(life.families))
        rows = []
        for name in names if len(names) == 1 else [*names, "all"]:
            here = np.ones(len(self), dtype=bool) if name == "all" else families == name
            right = clustered_share(life.output_correct[here], self.shapes[here])
            row: dict[str, object] = {"family": name, "n": int(here.sum())}
            row["right outputs"] = (
                None if right is None else html.interval(right.value, right.low, right.high)
            )
            row["outcomes"] = html.outcome_bar({o: int((life.outcome[here] == o).sum()) for o in OUTCOMES})
            for decoder in decoders:
                readout = self.readouts[decoder]
                share = readout.correct(life.answers)[here].mean(axis=0)
                title, chance = f"{name}: share that {decoder} has right", 1 / len(readout.classes)
                row[f"{decoder} by layer"] = html.sparkline(share, title, low=0, high=1, line=chance)
            rows.append(row)
        scale = "Lines run over the layers and from 0 to 1, dashed is chance. Intervals: 95 %, by shape."
        tables = f"Tables: {', '.join(self.tables)}." if self.tables else "No tables."
        drawn = [html.table(rows, most=13), html.outcome_key(OUTCOMES), html.note(f"{scale} {tables}")]
        return html.card(repr(self), *drawn)
