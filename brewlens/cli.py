"""The command line. It parses first and imports what is heavy when it must."""

from __future__ import annotations

import errno
import logging
import os
import platform
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brewlens import defaults
from brewlens.allocator import keep_buffers

if TYPE_CHECKING:
    from brewlens.study.plan import Plan

app = typer.Typer(
    name="brewlens",
    help="Trace, layer by layer, how a language model comes to an answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
reference = typer.Typer(help="The bundled reference model.", no_args_is_help=True)
app.add_typer(reference, name="reference")


def _version(asked: bool) -> None:
    if not asked:
        return
    from importlib.metadata import PackageNotFoundError, version

    from brewlens import __version__

    typer.echo(f"brewlens {__version__}")
    typer.echo(f"python {platform.python_version()}")
    for name in ("torch", "transformers", "transformer-lens"):
        try:
            typer.echo(f"{name} {version(name)}")
        except PackageNotFoundError:
            typer.echo(f"{name} not installed")
    raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the versions that a report needs."
        ),
    ] = False,
) -> None: ...


def _option(text: str, *, default: object) -> Any:
    """An option that the plan fills in where it is not given, with its default in the help."""
    return typer.Option(help=text, show_default=str(default))


# Errors of the file system that no code of ours is to blame for.
_OUTSIDE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
}


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose expected errors are one line on standard error.

    Exit codes: 0 when it went through, 1 for a bad input or a full disk, 2 for a mistyped command, 130
    when interrupted. BREWLENS_TRACEBACK=1 in the environment shows where an error came from.
    """

    @wraps(command)
    def call(*args: Any, **options: Any) -> None:
        try:
            command(*args, **options)
        except KeyboardInterrupt:
            typer.echo("interrupted; the same command goes on where it stopped", err=True)
            raise typer.Exit(130) from None
        except ValueError as error:
            if os.environ.get("BREWLENS_TRACEBACK"):
                raise
            typer.echo(f"brewlens: {error}", err=True)
            raise typer.Exit(1) from None
        except OSError as error:
            if error.errno not in _OUTSIDE or os.environ.get("BREWLENS_TRACEBACK"):
                raise
            typer.echo(f"brewlens: {error.strerror}: {error.filename or 'the run folder'}", err=True)
            raise typer.Exit(1) from None

    return call


@app.command("run")
@guarded
def run_command(
    study: Annotated[Path | None, typer.Argument(help="A study file (TOML) with the options below.")] = None,
    model: Annotated[
        str | None, _option("reference, a local folder, or a hub id.", default=defaults.MODEL)
    ] = None,
    items: Annotated[
        Path | None, _option("Your own items: JSON lines with prompt, answer.", default="generated ones")
    ] = None,
    families: Annotated[
        str | None, _option("Families of generated items, with commas.", default="all six")
    ] = None,
    n: Annotated[
        int | None, _option("Items per family.", default=f"{defaults.N_GENERATED}; all of a file")
    ] = None,
    seed: Annotated[int | None, _option("Seed of items and folds.", default=defaults.SEED)] = None,
    seeds: Annotated[
        int | None,
        _option("Run that many seeds, from --seed on, and show how far numbers spread.", default="one"),
    ] = None,
    folds: Annotated[int | None, _option("Number of folds.", default=defaults.FOLDS)] = None,
    classes: Annotated[
        str | None,
        _option("The answers of your items, with commas; or: items.", default="the ten digits"),
    ] = None,
    scoring: Annotated[
        str | None,
        _option("token, first (token) or sequence, for answers of several tokens.", default=defaults.SCORING),
    ] = None,
    end: Annotated[
        str | None,
        _option("What follows an answer, with --scoring sequence.", default=defaults.END or "nothing"),
    ] = None,
    probe: Annotated[str | None, _option("logistic, ridge or mlp.", default=defaults.PROBE)] = None,
    prompts: Annotated[
        str | None,
        _option("Target prompts: bundled (ten of them) or own (the items').", default=defaults.PROMPTS),
    ] = None,
    near_ood: Annotated[
        int | None,
        _option("Near-OOD programs per family for the probe's class other.", default="a tenth of n"),
    ] = None,
    tuned_lens: Annotated[
        bool | None,
        typer.Option(
            "--tuned-lens/--no-tuned-lens",
            help="Train and read a tuned lens.",
            show_default="yes" if defaults.TUNED_LENS else "no",
        ),
    ] = None,
    compat: Annotated[
        str | None, _option("paper: score by the published recipe too, side by side.", default="no")
    ] = None,
    interventions: Annotated[
        str | None,
        _option(
            "Experiments on the finished trace, with commas: causal_use, fjc_patching, layer_skipping, "
            "reinjection, transplant, components, rescue; or: all.",
            default="none",
        ),
    ] = None,
    intervention_n: Annotated[
        int | None,
        _option("Samples of each family or outcome that they edit at most.", default=defaults.INTERVENTION_N),
    ] = None,
    dtype: Annotated[str | None, _option("float32, bfloat16 or float16.", default=defaults.DTYPE)] = None,
    device: Annotated[
        str | None, _option("auto (a GPU if there is one), cpu, cuda, ...", default=defaults.DEVICE)
    ] = None,
    out: Annotated[Path | None, _option("Run folder.", default="runs/<model>-<plan>")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what it would take, and stop.")] = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet",
            "-q",
            help="No progress bars and no log lines, of the libraries neither. The tables at the end, "
            "warnings and errors are shown.",
        ),
    ] = False,
) -> None:
    """Run a model over items and trace every sample's lifecycle.

    Without arguments: the bundled reference model over the six families, offline.
    """
    from brewlens.study.plan import make_plan

    plan = make_plan(
        study,
        model=model,
        items=None if items is None else str(items),
        families=None if families is None else _listed(families),
        n=n,
        classes=classes if classes in (None, "items") else _listed(classes),
        scoring=scoring,
        end=end,
        probe=probe,
        prompts=prompts,
        near_ood=near_ood,
        tuned_lens=tuned_lens,
        compat=compat,
        interventions=None if interventions is None else _listed(interventions),
        intervention_n=intervention_n,
        seed=seed,
        folds=folds,
        dtype=dtype,
        device=device,
    )
    from brewlens.terminal import told

    with told(quiet) as bars:
        if seeds is None:
            _run_one(plan, out, dry_run, bars)
        else:
            _run_seeds(plan, seeds, out, dry_run, bars)


def _run_one(plan: Plan, out: Path | None, dry_run: bool, bars: bool) -> None:
    from functools import partial

    from brewlens.study import show
    from brewlens.study.planned import default_folder, load_planned
    from brewlens.study.run import carry_out

    folder = out or default_folder(plan)
    if dry_run:
        from brewlens.study.estimate import estimate

        _check_folder(folder)
        show.estimate_table(estimate(plan), folder)
        return
    carry_out(plan, folder, partial(load_planned, plan), progress=bars)
    show.summary_tables(folder)


def _run_seeds(plan: Plan, seeds: int, out: Path | None, dry_run: bool, bars: bool) -> None:
    from brewlens.study.seeds import run_seeds, seed_plans, seeds_folder

    plans, folder = seed_plans(plan, seeds), out or seeds_folder(plan)
    if dry_run:
        from brewlens.study.estimate import estimate
        from brewlens.study.show import estimate_table

        _check_folder(folder)
        times = f"{seeds} times the above, one folder each for seeds {', '.join(map(str, plans))}"
        estimate_table({**estimate(plan), "seeds": times}, folder)
        return
    found = run_seeds(plan, seeds, folder, progress=bars)
    from brewlens.study.show_seeds import seeds_tables

    seeds_tables(found, folder)


@app.command()
@guarded
def tasks(
    families: Annotated[str | None, typer.Option(help="Families, with commas. Default: all.")] = None,
    n: Annotated[int, typer.Option(help="Items per family.")] = 810,
    seed: Annotated[int, typer.Option(help="Seed.")] = 0,
    show: Annotated[int, typer.Option(help="Print that many programs of each family.")] = 1,
    out: Annotated[Path | None, typer.Option(help="Write the items there as JSON lines.")] = None,
) -> None:
    """Generate programs: print examples, counts and the text-only baselines; write them with --out."""
    from brewlens.study.show import tasks_table
    from brewlens.tasks import FAMILIES, generate

    if out is not None:
        _check_file(out)
    names = FAMILIES if families is None else tuple(_listed(families))
    items = generate(names, n=n, seed=seed)
    tasks_table(items, show)
    if out is not None:
        from brewlens.tasks.sources import write_items

        write_items(out, items)
        typer.echo(f"wrote {len(items)} items to {out}")


@app.command()
@guarded
def report(run: Annotated[Path, typer.Argument(help="A run folder.")]) -> None:
    """Write report.html of a finished run anew."""
    from brewlens.study.loading import load_run
    from brewlens.study.run import write_report

    write_report(run, load_run(run))
    typer.echo(run / "report.html")


@app.command()
@guarded
def figures(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    venue: Annotated[str, typer.Option(help="neurips, icml2024, ...: widths and fonts.")] = "brewlens",
    out: Annotated[Path | None, typer.Option(help="Folder. Default: figures, in the run folder.")] = None,
) -> None:
    """Draw the figures of a finished run anew: PDF, SVG, PNG, and the numbers as CSV."""
    from brewlens.figures import style, write
    from brewlens.study.loading import load_run

    _check_folder(out or run / "figures")
    with style(venue):
        for path in write(load_run(run), out or run / "figures"):
            typer.echo(path)


@app.command()
@guarded
def tables(
    run: Annotated[Path, typer.Argument(help="A run folder, or the folder of several seeds.")],
    out: Annotated[Path | None, typer.Option(help="Folder. Default: paper, in the run folder.")] = None,
) -> None:
    """Write the tables of a finished run for a paper: LaTeX (booktabs) and CSV."""
    _check_folder(out or run / "paper")
    from brewlens.paper import write_run

    for path in write_run(run, out):
        typer.echo(path)


@reference.command()
@guarded
def train(
    out: Annotated[Path, typer.Option(help="Training folder; an interrupted training goes on there.")],
    minutes: Annotated[float | None, typer.Option(help="Planned wall time.")] = None,
    steps: Annotated[int | None, typer.Option(help="Planned number of steps.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of weights and programs.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
) -> None:
    """Train the reference model on generated programs; seeded and resumable."""
    _check_folder(out)
    from brewlens.devices import usable
    from brewlens.reference.config import TrainConfig
    from brewlens.reference.train import train as train_model

    usable(device)
    plan = TrainConfig(minutes=minutes, steps=steps, seed=seed, device=device)
    if not train_model(plan, out, resume=True).finished:
        raise KeyboardInterrupt


@reference.command()
@guarded
def card(
    run: Annotated[Path, typer.Argument(help="The folder of a finished training.")],
    n: Annotated[int, typer.Option(help="Held-out items per family.")] = 2700,
    seed: Annotated[int, typer.Option(help="Seed of the held-out items.")] = 7,
) -> None:
    """Measure a trained model on held-out programs and write its card beside its weights."""
    from brewlens.decoding import surface
    from brewlens.reference.card import write_card
    from brewlens.tasks import FAMILIES, assign_folds, generate

    items = generate(n=n, seed=seed)
    right = surface(items, assign_folds(items)).correct(items.answers)[:, 0]
    baseline = {family: float(right[[item.family == family for item in items]].mean()) for family in FAMILIES}
    write_card(
        run, items, baseline=baseline, card_command=f"brewlens reference card {run} --n {n} --seed {seed}"
    )
    typer.echo(run / "model" / "README.md")


def _check_folder(folder: Path) -> None:
    """Refuse a folder that cannot be written before the work, not after it."""
    from brewlens.files import refusal_of

    if problem := refusal_of(folder):
        raise ValueError(f"asked to write to {folder}, found {problem}; choose another folder with --out")


def _check_file(path: Path) -> None:
    """The same of a file."""
    if path.is_dir():
        raise ValueError(f"asked to write to {path}, found a folder; give a file with --out")
    _check_folder(path.parent)


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def main() -> None:
    """Entry point."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("brewlens").setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Read when torch is loaded. By default its threads spin while they wait, and where another process has
    # work too they take the cores from each other: up to ten times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    keep_buffers()
    app()


if __name__ == "__main__":
    main()
