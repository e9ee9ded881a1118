"""The bundled reference model, and the recipe that trained it."""

from pathlib import Path


def path() -> Path:
    """Folder of the bundled model, in Hugging Face format.

    Raises:
        FileNotFoundError: If the package was installed without it.
    """
    folder = Path(__file__).parent / "model"
    if not (folder / "model.safetensors").is_file():
        raise FileNotFoundError(f"no reference model in {folder}; `brewlens reference train` makes one")
    return folder
