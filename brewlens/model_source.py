"""Model sources: the folder or hub id behind a name, the name that is shown, and whether a source changed."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from brewlens import reference
from brewlens.errors import ModelError
from brewlens.files import file_hash

BUNDLED = ("reference",)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def shown_name(name_or_path: str | Path) -> str:
    """Name of a model in tables, figures and reports: of a folder its last part, else the name itself."""
    name = str(name_or_path)
    folder = Path(name).expanduser()
    if name in BUNDLED or (_HUB_ID.fullmatch(name) and not folder.is_dir()):
        return name
    return Path(os.path.abspath(folder)).name or name  # noqa: PTH100 (keeps the names of links)


def source(name: str) -> str:
    """The folder or hub id behind a name.

    Raises:
        ModelError: If there is no such folder, it lacks files, or the hub cannot be reached.
    """
    if name in BUNDLED:
        try:
            return str(reference.path())
        except FileNotFoundError as error:
            raise ModelError(
                f"asked for the bundled model {name!r}, found no weights in this installation; "
                "reinstall brewlens, or train it: brewlens reference train"
            ) from error
    folder = Path(name).expanduser()
    if not folder.is_dir():
        if folder.exists() or not _HUB_ID.fullmatch(name):
            raise ModelError(
                f"asked for the model {name!r}, found no such folder; give {list(BUNDLED)}, a folder with "
                "config.json, weights and tokenizer, or a hub id such as 'Qwen/Qwen2.5-Coder-0.5B'"
            )
        _check_hub(name)
        return name
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"asked for the model in {name!r}, found no config.json there; save it with save_pretrained()"
        )
    if not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise ModelError(
            f"asked for the model in {name!r}, found no tokenizer there (none of "
            f"{', '.join(_TOKENIZER_FILES)}); save it there with tokenizer.save_pretrained()"
        )
    return str(folder)


def _check_hub(name: str) -> None:
    """Say at once that the hub cannot be reached, instead of after a minute of retries."""
    from huggingface_hub import constants, try_to_load_from_cache

    if constants.HF_HUB_OFFLINE or try_to_load_from_cache(name, "config.json"):
        return
    try:
        urlopen(Request(constants.ENDPOINT, method="HEAD"), timeout=10).close()
    except HTTPError:
        return  # it answered
    except OSError as error:
        raise ModelError(
            f"asked for the model {name!r}, found no folder and no cached model of that name, and the hub "
            f"cannot be reached ({error}); go online, set HF_ENDPOINT to a mirror, or give a local folder"
        ) from error


def content(name: str) -> dict[str, str] | None:
    """What tells whether a source still holds the same model, without loading it.

    Returns:
        Of a folder the blake2b hash of each of its files by name; of a hub id the commit in the local cache.
        None where that does not say it: files are missing, or an adapter refers to weights elsewhere.
    """
    try:
        folder = reference.path() if name in BUNDLED else Path(name).expanduser()
        if not folder.is_dir():
            return _cached_commit(name)
        if (folder / "adapter_config.json").exists():
            return None
        files = {path for path in folder.iterdir() if path.is_file()}
        for index in folder.glob("*.index.json"):
            shards = json.loads(index.read_text("utf-8"))["weight_map"].values()
            files |= {folder / shard for shard in shards}
        return {str(path.relative_to(folder)): file_hash(path) for path in sorted(files)}
    except (FileNotFoundError, json.JSONDecodeError, KeyError):
        return None  # loading says what is wrong


def _cached_commit(name: str) -> dict[str, str] | None:
    from huggingface_hub import try_to_load_from_cache

    if not _HUB_ID.fullmatch(name):
        return None
    config = try_to_load_from_cache(name, "config.json")
    return {"commit": Path(config).parent.name} if isinstance(config, str) else None
