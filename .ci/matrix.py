"""The whole suite on the lowest, the locked and the newest set of dependencies; run by ``make matrix``.

Each set has a virtual environment of its own under ``.matrix``, and torch by the rule of the Makefile: the
small build for processors. Where pip offers none for a Python version, that row is skipped and says so. What
passed is printed and written to ``.matrix/results.md``; the exit status is 1 if a row failed.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / ".matrix"
TORCH = "torch==2.13.0"
NO_TORCH = ROOT / ".ci" / "no-torch.txt"
SHOWN = (
    "torch",
    "transformers",
    "transformer-lens",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "matplotlib",
)
TESTS = ["-m", "pytest", "-n", "auto", "--dist", "loadscope", "--no-loadscope-reorder"]


@dataclass(frozen=True)
class Row:
    """One environment.

    Attributes:
        name: Its folder.
        python: Version of Python, as in ``python3.11``.
        resolve: Arguments of ``uv pip compile``; None takes ``constraints.txt``.
    """

    name: str
    python: str
    resolve: tuple[str, ...] | None


ROWS = (
    Row("lowest", "3.11", ("--resolution", "lowest-direct")),
    Row("locked", "3.11", None),
    Row("newest", "3.11", ("--upgrade",)),
    Row("newest-3.13", "3.13", ("--upgrade",)),
)


class Skipped(Exception):
    """A row that this machine cannot run; the text says why."""


def called(command: Sequence[str | Path], **options: object) -> str:
    """What a command prints.

    Raises:
        subprocess.CalledProcessError: If it fails.
    """
    return subprocess.run(  # type: ignore[call-overload]
        list(map(str, command)), cwd=ROOT, check=True, capture_output=True, text=True, **options
    ).stdout


def environment(row: Row) -> Path:
    """Make the environment of a row anew, and give its Python.

    Raises:
        Skipped: If there is no such Python, or no small build of torch for it.
    """
    program = shutil.which(f"python{row.python}")
    if program is None or subprocess.run([program, "--version"], capture_output=True).returncode:
        raise Skipped(f"no python{row.python} on this machine")
    place = FOLDER / row.name
    shutil.rmtree(place, ignore_errors=True)
    called([program, "-m", "venv", place])
    python = place / "bin" / "python"
    called([python, "-m", "pip", "install", "--quiet", "--upgrade", "pip"])
    called([python, "-m", "pip", "install", "--quiet", "uv"])
    plan = FOLDER / f"{row.name}-torch.json"
    try:
        called([python, "-m", "pip", "install", "--dry-run", "--quiet", "--report", plan, TORCH])
    except subprocess.CalledProcessError as error:
        raise Skipped(
            f"no {TORCH} for Python {row.python}: {error.stderr.strip().splitlines()[-1]}"
        ) from error
    wanted = [entry["metadata"]["name"] for entry in json.loads(plan.read_text("utf-8"))["install"]]
    if large := [name for name in wanted if name.startswith("nvidia-")]:
        raise Skipped(
            f"{TORCH} for Python {row.python} is a CUDA build ({len(large)} packages of several GB)"
        )
    called([python, "-m", "pip", "install", "--quiet", TORCH])
    install = [python, "-m", "uv", "pip", "install", "--python", python, "--no-deps"]
    called([*install, "--requirement", resolved(row, python), "--editable", "."])
    return python


def resolved(row: Row, python: Path) -> Path:
    """The file that names every package of a row with its version, torch and what it brings left out."""
    if row.resolve is None:
        return ROOT / "constraints.txt"
    file = FOLDER / f"{row.name}.txt"
    options = ["--override", NO_TORCH, "--python-version", row.python, "--no-annotate", "--no-header"]
    compiler = [python, "-m", "uv", "pip", "compile", "pyproject.toml", "--extra", "dev"]
    called([*compiler, *options, "--output-file", file, *row.resolve])
    return file


def tested(python: Path, more: Sequence[str]) -> str:
    """The last line of the suite; the rest is in a log beside the environment."""
    log = python.parent.parent.with_suffix(".log")
    settings = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"}
    command = [str(python), *TESTS, "-m", "not slow and not accelerator", *more]
    with log.open("w", encoding="utf-8") as out:
        subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT, env=settings, check=False)
    return log.read_text("utf-8").strip().splitlines()[-1]


def versions(python: Path) -> str:
    code = f"import importlib.metadata as m; print(', '.join(f'{{n}} {{m.version(n)}}' for n in {SHOWN}))"
    return called([python, "-c", code]).strip()


def main() -> int:
    """Run the rows that are named, by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", help=f"some of {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--tests", default="", help="arguments of pytest, for example a file")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - {row.name for row in ROWS}:
        parser.error(f"no row {', '.join(sorted(unknown))}")
    FOLDER.mkdir(exist_ok=True)
    lines = ["| set | Python | result | time | versions |", "|---|---|---|---|---|"]
    failed = False
    for row in ROWS:
        if asked.rows and row.name not in asked.rows:
            continue
        start = time.perf_counter()
        try:
            python = environment(row)
            last = tested(python, asked.tests.split())
            result, found = re.sub(r" in [\d.]+s.*", "", last.strip("= ")), versions(python)
            failed |= not re.match(r"\d+ passed", result)
        except Skipped as reason:
            result, found = f"skipped: {reason}", ""
        except subprocess.CalledProcessError as error:
            result, found, failed = f"failed: {error.stderr.strip().splitlines()[-1]}", "", True
        lines.append(
            f"| {row.name} | {row.python} | {result} | {time.perf_counter() - start:.0f} s | {found} |"
        )
        print(lines[-1], flush=True)
    (FOLDER / "results.md").write_text("\n".join(lines) + "\n", "utf-8")
    print("\n".join(lines))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
