"""Devices: where a model runs, refused at once where torch does not find it."""

from __future__ import annotations

import torch

from brewlens.errors import ModelError


def usable(device: str | torch.device | None = None, asked_for: str = "") -> torch.device:
    """A device that torch can use here.

    Args:
        device: Name of a device; None for the first CUDA device if there is one, else the CPU.
        asked_for: What the device is for, in front of the error.

    Raises:
        ModelError: If there is no such device, or it holds no numbers (``meta``).
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        asked = torch.device(device)
    except RuntimeError:
        raise ModelError(_refusal(device, asked_for, "none of that name in torch")) from None
    if asked.type == "meta":
        raise ModelError(_refusal(device, asked_for, "a device that holds shapes and no numbers"))
    count = _count(asked.type)
    if (asked.index or 0) >= count:
        found = f"{count} of that kind" if count else f"no such device for torch {torch.__version__}"
        raise ModelError(_refusal(device, asked_for, found))
    return asked


def there() -> list[str]:
    """Names of the devices that torch can use here."""
    kinds = [kind for kind in ("cuda", "mps", "xpu") if _count(kind)]
    return ["cpu", *(f"{kind}:{number}" for kind in kinds for number in range(_count(kind)))]


def _count(kind: str) -> int:
    """Number of devices of a kind."""
    try:
        module = torch.get_device_module(kind)
    except RuntimeError:
        return 0
    available = getattr(module, "is_available", None)
    if kind == "mps":
        available = torch.backends.mps.is_available
    return int(module.device_count()) if available is not None and available() else 0


def _refusal(device: object, asked_for: str, found: str) -> str:
    return f"{asked_for}asked for device {str(device)!r}, found {found}; give one of: {', '.join(there())}"
