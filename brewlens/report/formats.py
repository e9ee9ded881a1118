"""Formats: numbers, p-values, durations and manifest values as the page writes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from brewlens.report.warnings import percent


def flat(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """Leaves of nested mappings as (dotted name, value)."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def plain(value: object) -> str:
    """A value from the manifest as text."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {plain(inner)}" for name, inner in flat(value))
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value))
    return "none" if value is None else str(value)


def number(value: float | None, digits: int = 3) -> str:
    """A number with a fixed count of decimals; a dash where there is none."""
    return "–" if value is None or value != value else f"{round(value, digits) + 0.0:.{digits}f}"


def pvalue(p: float | None) -> str:
    """A p-value with three decimals."""
    return "–" if p is None or p != p else "< .001" if p < 0.001 else f"{p:.3f}".removeprefix("0")


def seconds(value: float) -> str:
    """A duration as seconds, or as minutes and seconds."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes else f"{value:.1f} s"


FILTERS: Mapping[str, Callable[..., str]] = {
    "percent": percent,
    "number": number,
    "plain": plain,
    "pvalue": pvalue,
    "seconds": seconds,
}
