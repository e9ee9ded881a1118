"""What SECURITY.md says of input that cannot be trusted; of the report, see test_report_page."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import pytest
from tiny import build

import brewlens as bl


@pytest.fixture
def trap(tmp_path):
    """A file, and code that makes it when it runs."""
    made = tmp_path / "made"
    return made, f"open({str(made)!r}, 'w').close()"


def test_the_trap_works(trap):
    made, code = trap
    exec(code)
    assert made.exists()


def test_programs_of_a_file_are_parsed_and_never_run(trap, tiny_model, tmp_path):
    made, code = trap
    prompts = [f'x = {k % 10}\n{code}\n# The value of x is "' for k in range(60)]
    lines = [json.dumps({"prompt": p, "answer": str(k % 10)}) for k, p in enumerate(prompts)]
    (tmp_path / "items.jsonl").write_text("\n".join(lines), "utf-8")
    items = bl.tasks.read_items(tmp_path / "items.jsonl")
    assert len({item.skeleton for item in items}) == 10  # they were parsed
    bl.trace(tiny_model, items, folds=3, resamples=19, progress=False)
    with pytest.raises(ValueError, match="no configuration"):
        bl.tasks.near_ood(items, 8)
    assert not made.exists()


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(build("llama", tmp_path / "built"), tmp_path / "model"))


def test_code_of_a_model_folder_never_runs(trap, folder):
    made, code = trap
    (folder / "modeling_own.py").write_text(f"{code}\nclass Own: pass\n", "utf-8")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    own = {"AutoConfig": "modeling_own.Own", "AutoModelForCausalLM": "modeling_own.Own"}
    config |= {"model_type": "own", "auto_map": own}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(bl.ModelError):
        bl.load_model(folder, device="cpu")
    assert not made.exists()


class Payload:
    def __init__(self, code):
        self.code = code

    def __reduce__(self):
        return exec, (self.code,)


def test_weights_that_hold_code_are_refused(trap, folder):
    made, code = trap
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(code), 2))
    with pytest.raises(bl.ModelError, match="weights_only"):
        bl.load_model(folder, device="cpu")
    assert not made.exists()
