"""What is published: one version, a wheel with all that the code needs, and an install from nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
from jinja2 import Environment, meta
from typer.testing import CliRunner

import brewlens
from brewlens.cli import app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "brewlens"
# As in the Makefile. For Linux the package index itself has builds with CUDA, which take gigabytes.
TORCH = "torch==2.13.0+cpu" if sys.platform == "linux" else "torch==2.13.0"
MODEL = ("README.md", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MOST_BYTES = 15_000_000


# The version


def test_one_version():
    stale = "the installed metadata is of another version; install again: pip install -e ."
    assert version("brewlens") == brewlens.__version__, stale
    citation = (ROOT / "CITATION.cff").read_text("utf-8")
    assert re.findall(r"^version: (\S+)$", citation, re.MULTILINE) == [brewlens.__version__]
    entry = (ROOT / "docs" / "citing.md").read_text("utf-8")
    assert re.findall(r"version = \{(.+)\}", entry) == [brewlens.__version__]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project
    assert f"\nrepository-code: {project['urls']['Repository']}\n" in citation


def test_the_changelog_is_kept():
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    versions = re.findall(r"^## (.+)$", text, re.MULTILINE)
    kinds = re.findall(r"^### (.+)$", text, re.MULTILINE)
    assert versions[0] == "[Unreleased]" and "Added" in kinds
    assert set(kinds) <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    for heading in versions[1:]:
        assert re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", heading), heading
    for name in re.findall(r"^## \[(.+?)\]", text, re.MULTILINE):
        assert f"\n[{name}]: https://github.com/brewlens/brewlens/" in text, name


def test_the_version_option_names_what_a_report_needs(monkeypatch):
    lines = CliRunner().invoke(app, ["--version"]).output.splitlines()
    names = ("torch", "transformers", "transformer-lens")
    assert lines[0] == f"brewlens {brewlens.__version__}"
    assert lines[2:] == [f"{name} {version(name)}" for name in names]
    monkeypatch.setattr("importlib.metadata.distribution", _missing)
    assert "torch not installed" in CliRunner().invoke(app, ["--version"]).output.splitlines()


def _missing(name):
    from importlib.metadata import PackageNotFoundError

    raise PackageNotFoundError(name)


def test_the_version_option_imports_none_of_them():
    code = (
        "import sys; sys.argv[1:] = ['--version']\nfrom brewlens.cli import main\ntry: main()\n"
        "except SystemExit: print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.startswith("brewlens ") and result.stdout.endswith("[]\n"), result.stderr


# What is in the archives, by the configuration alone


def templates():
    """Every file of the report that its template leads to, and what the page reads besides."""
    found, left = {"browser.js", "style.css"}, ["template.html"]
    while left:
        name = left.pop()
        found.add(name)
        source = (PACKAGE / "report" / name).read_text("utf-8")
        left += set(meta.find_referenced_templates(Environment().parse(source))) - found
    return found


def needed():
    return {
        *(f"brewlens/reference/model/{name}" for name in MODEL),
        *(f"brewlens/report/{name}" for name in templates()),
        *(path.relative_to(ROOT).as_posix() for path in PACKAGE.rglob("*.py")),
        "brewlens/py.typed",
    }


def test_the_wheel_takes_every_file_that_the_code_needs():
    from hatchling.builders.wheel import WheelBuilder

    taken = {file.distribution_path for file in WheelBuilder(str(ROOT)).recurse_included_files()}
    assert len(templates()) > 15
    assert needed() <= taken
    assert {name.split("/")[0] for name in taken} == {"brewlens"}


def test_the_source_archive_is_the_package_and_what_a_packager_reads():
    from hatchling.builders.sdist import SdistBuilder

    taken = {file.distribution_path for file in SdistBuilder(str(ROOT)).recurse_included_files()}
    assert needed() <= taken
    assert {"README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md"} <= taken
    assert not {name.split("/")[0] for name in taken} & {"tests", "docs", "benchmarks", "notebooks"}


# The archives themselves, and an environment with nothing in it


def run(*command, **options):
    """A command that must go through; without this checkout's path and without a model hub."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    result = subprocess.run(
        [*map(str, command)],
        capture_output=True,
        text=True,
        env={**env, "HF_HUB_OFFLINE": "1", "OMP_WAIT_POLICY": "passive"},
        **options,
    )
    if result.returncode:
        raise AssertionError(f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}")
    return result.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The source archive, and the wheel that is built from it; before a release, those of BREWLENS_DIST."""
    if there := os.environ.get("BREWLENS_DIST"):
        folder = Path(there).resolve()
    else:
        folder = tmp_path_factory.mktemp("dist")
        run(sys.executable, "-m", "build", "--outdir", folder, ROOT)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return SimpleNamespace(sdist=sdist, wheel=wheel)


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """A new environment with the wheel and what it asks of the package index; nothing of this one."""
    folder = tmp_path_factory.mktemp("empty")
    venv.create(folder / "venv", with_pip=True)
    bin = folder / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip = (bin / "python", "-m", "pip", "--disable-pip-version-check", "install", "--quiet")
    try:
        run(*pip, TORCH)
    except AssertionError as error:
        # Before a release what cannot be tested has failed.
        leave = pytest.fail if os.environ.get("BREWLENS_DIST") else pytest.skip
        where = "PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu"
        leave(f"the package index gave no {TORCH}; with {where} it may. {error}")
    run(*pip, built.wheel)
    return SimpleNamespace(bin=bin, pip=pip, folder=folder)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_archives_hold_the_package_and_no_more(built):
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
        (info,) = {name.split("/")[0] for name in names} - {"brewlens"}
        facts = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
    with tarfile.open(built.sdist) as archive:
        source = {name.partition("/")[2] for name in archive.getnames()}
    for path in (built.wheel, built.sdist):
        sys.stdout.write(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB\n")
    assert needed() <= names and needed() <= source
    assert f"{info}/licenses/LICENSE" in names and "LICENSE" in source
    assert {name.split("/")[0] for name in source if "/" in name} == {"brewlens"}
    assert max(built.wheel.stat().st_size, built.sdist.stat().st_size) < MOST_BYTES
    assert facts["Version"] == brewlens.__version__ and facts["License-Expression"] == "MIT"
    assert {link.split(",")[0] for link in facts.get_all("Project-URL")} >= {"Repository", "Issues"}
    links = re.findall(r"\]\(([^)\s]+)\)", facts.get_payload())
    assert len(links) > 20 and all(link.startswith(("https://", "#")) for link in links), links
    assert f"brewlens/v{brewlens.__version__}/docs/figures/flow.svg" in facts.get_payload()


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_works_away_from_the_checkout(installed, tmp_path):
    command, python = installed.bin / "brewlens", installed.bin / "python"
    told = run(command, "--version", cwd=tmp_path)
    assert told.startswith(f"brewlens {brewlens.__version__}\n") and "torch 2.13.0" in told
    code = "import sys, brewlens; print(brewlens.__file__, brewlens.__version__, 'torch' in sys.modules)"
    path, number, torch = run(python, "-c", code, cwd=tmp_path).split()
    assert Path(path).is_relative_to(installed.folder) and number == brewlens.__version__
    assert torch == "False"
    run(python, "-m", "pip", "check")
    shown = run(command, "run", "--families", "computing", "--n", "27", "--out", "made", "-q", cwd=tmp_path)
    assert "computing" in shown
    assert "Sample browser" in (tmp_path / "made" / "report.html").read_text("utf-8")
    versions = json.loads((tmp_path / "made" / "manifest.json").read_text("utf-8"))["versions"]
    assert versions["brewlens"] == brewlens.__version__


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_quickstart_runs_away_from_the_checkout(installed, built, tmp_path):
    run(*installed.pip, f"{built.wheel}[notebook]")
    script = tmp_path / "quickstart.py"
    script.write_bytes((ROOT / "notebooks" / "quickstart.py").read_bytes())
    jupytext = ("-m", "jupytext", "--to", "ipynb", "--set-kernel", "python3", "--execute", script)
    run(installed.bin / "python", *jupytext, cwd=tmp_path)
    cells = json.loads((tmp_path / "quickstart.ipynb").read_text("utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not any(output["output_type"] == "error" for output in outputs)
