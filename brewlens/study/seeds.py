"""Seeds: the same plan with items, folds and probes drawn anew, and how far its numbers spread.

The interval of one run holds for its items and folds as they were drawn. Repeated with other seeds, the same
number moves: by what that interval knows of, and by what it does not, such as the choice of a layer or of a
penalty on the samples it is scored on. Student's t over the seeds' values covers both; it knows no bounds, so
that with few seeds the interval of a share may reach beyond 0 or 1.

What it does not show: how far another model, or the same model trained anew, would differ.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from brewlens import html
from brewlens.files import write_json
from brewlens.study.checks import plain
from brewlens.study.plan import Plan, PlanError
from brewlens.study.planned import default_folder, load_planned
from brewlens.study.run import carry_out
from brewlens.study.spread import quantities, spread
from brewlens.study.store import MANIFEST, RunFolderError, Store, write_table

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger("brewlens")

SPREAD = "seeds.json"
VALUES = "seeds.parquet"
CLAIMS = "claims"
REDRAWN = "items, folds and probes are drawn anew with each seed"
FOLDS_REDRAWN = "folds and probes are drawn anew with each seed; the items, those of a file, stay"


@dataclass(frozen=True)
class Seeds:
    """What several seeds of one plan say.

    Attributes:
        seeds: The seeds, in order.
        redrawn: What differs between them: ``REDRAWN`` or ``FOLDS_REDRAWN``.
        values: One row per family, quantity and seed: family, quantity, seed, value, low, high (the run's own
            95 % interval, missing where it states none), n (samples behind the value). Units are those of
            ``summary.json``: shares as fractions, landmarks as fractions of the depth.
        spread: One row per family and quantity: family, quantity, seeds (those with a value), mean, sd
            (between seeds), low, high (t interval of the mean, ``seeds - 1`` df), within (mean half-width
            of a seed's own interval), n_least, n_most.
        verdicts: One row per claim and seed: statement, scope, seed, verdict; empty for runs without claims.
        shared_skeletons: Mean share of a seed's programs whose skeleton another seed has too; the seeds
            are not wholly independent where it is high. 1 where the items stay.
        folders: Seed -> its run folder.
    """

    seeds: tuple[int, ...]
    redrawn: str
    values: pd.DataFrame
    spread: pd.DataFrame
    verdicts: pd.DataFrame
    shared_skeletons: float
    folders: Mapping[int, Path]

    def to_frame(self) -> pd.DataFrame:
        """``spread`` with a column ``seed_<s>`` per seed."""
        wide = self.values.pivot_table(
            index=["family", "quantity"], columns="seed", values="value", dropna=False, sort=False
        )
        wide.columns = [f"seed_{seed}" for seed in wide.columns]
        return self.spread.merge(wide.reset_index(), on=["family", "quantity"], validate="one_to_one")

    def verdicts_by_claim(self) -> dict[tuple[str, str], dict[int, str]]:
        """Statement and scope of each claim -> seed -> verdict."""
        claims: dict[tuple[str, str], dict[int, str]] = {}
        for statement, scope, seed, verdict in self.verdicts.itertuples(index=False, name=None):
            claims.setdefault((statement, scope), {})[seed] = verdict
        return claims

    def __repr__(self) -> str:
        return f"Seeds({', '.join(map(str, self.seeds))}: {len(self.spread)} quantities; {self.redrawn})"

    def _repr_html_(self) -> str:
        """One row per quantity: mean with its interval between seeds, and the seeds side by side."""
        rows = []
        for row in self.to_frame().to_dict("records"):
            values = [row[f"seed_{seed}"] for seed in self.seeds]
            title = f"{row['family']}, {row['quantity']}"
            rows.append(
                {
                    "family": row["family"],
                    "quantity": row["quantity"],
                    "seeds": row["seeds"],
                    "mean": html.interval(row["mean"], row["low"], row["high"]),
                    "sd": row["sd"],
                    "by seed": html.sparkline(values, title, axis="seed", labels=self.seeds),
                }
            )
        return html.card(repr(self), html.table(rows), html.note("Intervals of the mean, 95 %, over seeds."))


def seeds_folder(plan: Plan) -> Path:
    """The default folder of a plan's seeds: that of its run, with ``-seeds`` behind it."""
    folder = default_folder(plan)
    return folder.with_name(f"{folder.name}-seeds")


def seed_plans(plan: Plan, seeds: int | Sequence[int]) -> dict[int, Plan]:
    """The plan of each seed.

    Args:
        plan: The plan; its own seed is the first where ``seeds`` is a number.
        seeds: How many, or which.

    Raises:
        PlanError: If there are fewer than two different seeds.
    """
    named = list(range(plan.seed, plan.seed + seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if len(named) < 2 or len(set(named)) < len(named):
        raise PlanError(
            f"a spread between seeds needs at least two different seeds, found {seeds}; ask for more, or for "
            "an ordinary run"
        )
    return {seed: plan.model_copy(update={"seed": seed}) for seed in named}


def run_seeds(
    plan: Plan, seeds: int | Sequence[int], out: str | Path | None = None, *, progress: bool = True
) -> Seeds:
    """Carry out a plan once per seed, and measure how far the numbers spread.

    Every seed has an ordinary run folder, ``<out>/seed-<seed>``: what is there and whole is not made again,
    and more seeds may be asked for later. Of an items file only folds and probes are drawn anew.

    Args:
        plan: What to run.
        seeds: How many seeds from the plan's own on, or which.
        out: The folder; by default one named after the model and the plan's key.
        progress: Show progress bars.

    Returns:
        The spread, as :func:`load_seeds` would read it from the folder.

    Raises:
        PlanError: If there are fewer than two seeds.
        RunFolderError: If a folder holds something else; found before anything is computed.
        ValueError: As :func:`brewlens.study.run.run`.
    """
    plans = seed_plans(plan, seeds)
    folder = Path(out) if out is not None else seeds_folder(plan)
    _check(folder, plans)
    load = cache(lambda: load_planned(plan))  # once for all seeds, and not at all where nothing is to be made
    for number, (seed, planned) in enumerate(plans.items(), 1):
        log.info("seed %d (%d of %d)", seed, number, len(plans))
        carry_out(planned, folder / _name(seed), load, progress=progress)
    found = _gather(folder, tuple(plans), FOLDS_REDRAWN if plan.items is not None else REDRAWN)
    write_table(folder / VALUES, found.values)
    write_json(folder / SPREAD, _content(found, plan))
    return found


def load_seeds(folder: str | Path) -> Seeds:
    """Read the folder of several seeds; their run folders are not needed.

    Raises:
        RunFolderError: If it is none, or not every seed is finished.
    """
    import pandas as pd

    folder = Path(folder)
    if missing := [name for name in (SPREAD, VALUES) if not (folder / name).is_file()]:
        raise RunFolderError(
            f"{folder} does not hold several finished seeds: it has no {missing[0]}; the command that began "
            "it goes on"
        )
    try:
        content = json.loads((folder / SPREAD).read_text("utf-8"))
        values = pd.read_parquet(folder / VALUES)
        return Seeds(
            tuple(content["seeds"]),
            content["redrawn"],
            values,
            spread(values),
            _verdicts(
                (claim["statement"], claim["scope"], int(seed), verdict)
                for claim in content["claims"]
                for seed, verdict in claim["verdicts"].items()
            ),
            content["shared_skeletons"],
            {int(seed): folder / name for seed, name in content["folders"].items()},
        )
    except (json.JSONDecodeError, KeyError) as error:
        raise RunFolderError(f"{folder / SPREAD} is damaged ({error}); run the seeds again") from None


def _gather(folder: Path, seeds: Sequence[int], redrawn: str) -> Seeds:
    """The numbers of finished run folders, side by side."""
    import pandas as pd

    folders = {seed: folder / _name(seed) for seed in seeds}
    summaries = {seed: json.loads((f / "summary.json").read_text("utf-8")) for seed, f in folders.items()}
    values = pd.DataFrame(
        [
            (family, quantity, seed, *numbers)
            for seed, summary in summaries.items()
            for family, quantity, *numbers in quantities(summary)
        ],
        columns=["family", "quantity", "seed", "value", "low", "high", "n"],
    ).astype({"value": float, "low": float, "high": float, "n": "Int64"})
    claims = (
        (claim["statement"], claim["scope"], seed, claim["verdict"])
        for seed, summary in summaries.items()
        for claim in summary.get(CLAIMS) or []
    )
    skeletons = [pd.read_parquet(f / "items.parquet")["skeleton"].to_numpy() for f in folders.values()]
    return Seeds(
        tuple(seeds), redrawn, values, spread(values), _verdicts(claims), _shared(skeletons), folders
    )


def _verdicts(rows: Iterable[tuple[str, str, int, str]]) -> pd.DataFrame:
    """Claim by claim, and seed by seed within a claim."""
    import pandas as pd

    claims: dict[tuple[str, str], list[tuple]] = {}
    for row in rows:
        claims.setdefault(row[:2], []).append(row)
    ordered = [row for seeds in claims.values() for row in seeds]
    return pd.DataFrame(ordered, columns=["statement", "scope", "seed", "verdict"])


def _name(seed: int) -> str:
    return f"seed-{seed}"


def _check(folder: Path, plans: Mapping[int, Plan]) -> None:
    """Refuse before the first seed what would stop a later one."""
    if folder.exists() and not folder.is_dir():
        raise RunFolderError(f"{folder} is a file; choose a folder with --out")
    if (folder / MANIFEST).exists():
        raise RunFolderError(
            f"{folder} is the folder of one run; choose another folder for several seeds with --out"
        )
    ours = (SPREAD, VALUES)
    if folder.exists():
        for path in sorted(folder.iterdir()):
            if not (path.name in ours or path.name.startswith("seed-") or path.name.endswith(".tmp")):
                raise RunFolderError(
                    f"{folder} holds {path.name}, which is no seed's; choose another folder with --out"
                )
    for seed, plan in plans.items():
        Store(folder / _name(seed), plan)


def _shared(skeletons: Sequence[np.ndarray]) -> float:
    pairs = permutations(range(len(skeletons)), 2)
    return float(np.mean([np.isin(skeletons[a], skeletons[b]).mean() for a, b in pairs]))


def _content(found: Seeds, plan: Plan) -> dict[str, Any]:
    """``seeds.json``: the spread with the value of each seed, by family and quantity."""
    families: dict[str, dict[str, Any]] = {}
    of_seed = {key: rows.set_index("seed") for key, rows in found.values.groupby(["family", "quantity"])}
    for row in found.spread.to_dict("records"):
        family, quantity = str(row.pop("family")), str(row.pop("quantity"))
        rows = of_seed[family, quantity]
        families.setdefault(family, {})[quantity] = {
            **{str(name): plain(value) for name, value in row.items()},
            "values": {str(seed): plain(value) for seed, value in rows["value"].items()},
            "n": {str(seed): plain(value) for seed, value in rows["n"].items()},
        }
    stated = plan.stated()
    del stated["seed"]
    return {
        "seeds": list(found.seeds),
        "redrawn": found.redrawn,
        "shared_skeletons": found.shared_skeletons,
        "plan": stated,
        "folders": {str(seed): folder.name for seed, folder in found.folders.items()},
        "interval": "Student's t over the seeds, 95 %; within: mean half-width of a seed's own 95 % interval",
        "spread": families,
        "claims": [
            {
                "statement": statement,
                "scope": scope,
                "verdicts": {str(seed): verdict for seed, verdict in verdicts.items()},
            }
            for (statement, scope), verdicts in found.verdicts_by_claim().items()
        ],
    }
