"""Store: a run folder whose files are whole or absent, and which knows what each was made from.

A stage is done when the manifest holds the key of its inputs and each of its files is there with the
bytes that were written; anything else is made again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewlens.files import file_hash, refusal_of, replacing, write_json

if TYPE_CHECKING:
    import pandas as pd

    from brewlens.study.plan import Plan

MANIFEST = "manifest.json"


class RunFolderError(ValueError):
    """A run folder cannot be used. The text says what was asked, what was found, what to do."""


def write_table(path: Path, frame: pd.DataFrame) -> None:
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False)


def fingerprint(path: Path) -> dict[str, object]:
    """Size and hash of a file."""
    return {"bytes": path.stat().st_size, "blake2b": file_hash(path)}


def key_of(*parts: object) -> str:
    """Key of a stage: a hash of whatever its result depends on."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=8).hexdigest()


class Store:
    """One run folder.

    Args:
        folder: Made when it is not there.
        plan: What the folder is for.

    Raises:
        RunFolderError: If the folder holds the results of another plan, or something else altogether.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        if folder.exists() and not folder.is_dir():
            raise RunFolderError(f"{folder} is a file; choose a folder with --out")
        if (folder / MANIFEST).exists():
            self.manifest = read_manifest(folder)
            if self.manifest.get("plan_key") != plan.key:
                raise RunFolderError(
                    f"{folder} holds the results of another plan ({_difference(self.manifest, plan)}); "
                    "choose another folder with --out, or remove this one"
                )
        elif folder.exists() and any(p for p in folder.iterdir() if not p.name.endswith(".tmp")):
            raise RunFolderError(
                f"{folder} is not empty and holds no {MANIFEST}; choose another folder with --out"
            )
        else:
            self.manifest = {"plan": plan.stated(), "plan_key": plan.key, "stages": {}}

    def path(self, name: str) -> Path:
        return self.folder / name

    def note(self, **entries: object) -> None:
        """Record facts about the run in the manifest."""
        if any(self.manifest.get(name) != value for name, value in entries.items()):
            self.manifest.update(entries)
            write_json(self.path(MANIFEST), self.manifest)

    def recorded(self, stage: str, key: str) -> bool:
        """Whether a stage was made from these inputs and its files have the size that was written."""
        entry = self.manifest["stages"].get(stage)
        if entry is None or entry["key"] != key:
            return False
        return all(
            self.path(name).is_file() and self.path(name).stat().st_size == seen["bytes"]
            for name, seen in entry["files"].items()
        )

    def whole(self, stage: str, key: str) -> bool:
        """Whether a stage was made from these inputs and its files are as they were written."""
        return self.recorded(stage, key) and all(
            fingerprint(self.path(name)) == seen
            for name, seen in self.manifest["stages"][stage]["files"].items()
        )

    def check_writable(self) -> None:
        """Check that the folder can be made and written.

        Raises:
            RunFolderError: If it cannot; nothing is left behind.
        """
        if problem := refusal_of(self.folder):
            raise RunFolderError(
                f"asked for the run folder {self.folder}, found {problem}; choose another folder with --out"
            )

    def once(self, stage: str, key: str, make: Callable[[], Sequence[str]]) -> bool:
        """Run ``make``, which writes files and names them, unless the stage is whole.

        Returns:
            Whether it had to be made.
        """
        import time

        if self.whole(stage, key):
            return False
        start = time.perf_counter()
        files = make()
        self.manifest["stages"][stage] = {
            "key": key,
            "seconds": round(time.perf_counter() - start, 2),
            "files": {name: fingerprint(self.path(name)) for name in files},
        }
        write_json(self.path(MANIFEST), self.manifest)
        return True


def read_manifest(folder: str | Path) -> dict[str, Any]:
    """The manifest of a run folder.

    Raises:
        RunFolderError: If it is missing or not JSON.
    """
    path = Path(folder) / MANIFEST
    try:
        manifest = json.loads(path.read_text("utf-8"))
    except OSError:
        runs = sorted(p.parent.name for p in Path(folder).glob(f"*/{MANIFEST}"))
        several = f"; it holds the runs {', '.join(runs)}, give one of them" if runs else ""
        raise RunFolderError(f"{folder} is not a run folder: it has no {MANIFEST}{several}") from None
    except json.JSONDecodeError as error:
        raise RunFolderError(f"{path} is damaged ({error.msg}); remove it and run again") from None
    if not isinstance(manifest, dict) or not isinstance(manifest.get("stages"), dict):
        raise RunFolderError(f"{path} is not the manifest of a run; remove it and run again")
    return manifest


def _difference(manifest: Mapping[str, Any], plan: Plan) -> str:
    old, new = manifest.get("plan", {}), plan.stated()
    changed = [
        f"{name}: {old.get(name)!r} there, {new[name]!r} asked" for name in new if old.get(name) != new[name]
    ]
    return "; ".join(changed) or "its items file has other contents"
