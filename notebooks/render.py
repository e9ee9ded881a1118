"""Execute the notebooks and keep what they show, so that it can be read where nothing runs.

``python -m notebooks.render [NAME ...]`` writes ``rendered/NAME.ipynb`` of each script, or of those named.
The same results give the same bytes: no times, no random cell ids, no progress bars, no paths of this
machine. What needs JavaScript is replaced by a line that says so.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import jupytext
from nbclient import NotebookClient
from nbformat import NotebookNode, write

FOLDER = Path(__file__).parent
RENDERED = FOLDER / "rendered"
NAMES = ("quickstart", "own_model", "causal_use", "extending", "reproduction")
MOST_BYTES = 400_000
"""Of one picture."""

_HEADER = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
_QUIET = {
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",  # sums are added in one order
    "OMP_WAIT_POLICY": "passive",
    "TOKENIZERS_PARALLELISM": "false",
    "TQDM_DISABLE": "1",
}
_ROOT = str(FOLDER.parent)
_SCRIPT = "This output needs JavaScript; run the notebook to see it."


def read(name: str) -> NotebookNode:
    """The notebook of a script, without outputs."""
    return jupytext.read(FOLDER / f"{name}.py")


def execute(notebook: NotebookNode, folder: Path, timeout: int = 280) -> NotebookNode:
    """Run a notebook from top to bottom in a folder of its own.

    Raises:
        CellExecutionError: If a cell fails.
    """
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    return client.execute()


def settled(notebook: NotebookNode, hidden: Sequence[str] = ()) -> NotebookNode:
    """The notebook with nothing in it that changes from one execution to the next.

    Args:
        notebook: It is changed in place.
        hidden: Paths that are replaced by ``...``.
    """
    notebook.metadata = NotebookNode(_HEADER)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02d}", NotebookNode()
        if cell.cell_type == "code":
            cell.outputs = _joined([o for o in map(_shown, cell.outputs) if o is not None])
            for output in cell.outputs:
                _hide(output, hidden)
    return notebook


def _shown(output: NotebookNode) -> NotebookNode | None:
    """An output as it is read without a kernel; None for progress bars."""
    if output.output_type == "stream":
        lines = re.split(r"(?<=\n)", output.text)
        output.text = "".join(line for line in lines if "\r" not in line)
        return output if output.text else None
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return None
    if "<script" in data.get("text/html", ""):
        output.data = NotebookNode({"text/plain": _SCRIPT})
    if output.output_type in ("display_data", "execute_result"):
        output.metadata = NotebookNode()
    return output


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Streams arrive in pieces whose borders depend on time."""
    made: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and made and made[-1].get("name") == output.name:
            made[-1].text += output.text
        else:
            made.append(output)
    return made


def _hide(output: NotebookNode, hidden: Sequence[str]) -> None:
    for holder, key in [
        (output, "text"),
        *((output.get("data", {}), k) for k in ("text/plain", "text/html")),
    ]:
        if isinstance(holder.get(key), str):
            for path in hidden:
                holder[key] = holder[key].replace(path, "...")
            holder[key] = re.sub(r" at 0x[0-9a-f]+", "", holder[key])


def render(name: str) -> Path:
    """Execute one script and write its notebook with outputs.

    Raises:
        ValueError: If a picture is too large for a repository.
    """
    with TemporaryDirectory() as folder, _environment(Path(folder)):
        notebook = settled(execute(read(name), Path(folder)), (folder, _ROOT))
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            size = len(output.get("data", {}).get("image/png", "")) * 3 // 4
            if size > MOST_BYTES:
                raise ValueError(f"{name}: a picture of {size} bytes after {cell.source!r}; draw it smaller")
    RENDERED.mkdir(exist_ok=True)
    path = RENDERED / f"{name}.ipynb"
    write(notebook, path)
    return path


class _environment:
    """What the kernel finds in its environment; put back afterwards."""

    def __init__(self, folder: Path) -> None:
        self._settings = folder / "matplotlibrc"

    def __enter__(self) -> None:
        self._settings.write_text("figure.dpi: 150\n", "utf-8")
        new: Mapping[str, str] = {**_QUIET, "MATPLOTLIBRC": str(self._settings)}
        self._before = {name: os.environ.get(name) for name in new}
        os.environ.update(new)

    def __exit__(self, *_: object) -> None:
        for name, value in self._before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NAMES:
        print(render(wanted))
