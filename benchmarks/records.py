"""What was measured: times, lines that are held to a limit, and points of the scaling figure."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import nan
from typing import TYPE_CHECKING

from benchmarks.clock import Timed
from benchmarks.settings import Limit, Settings

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Timing:
    """One way to do one piece of work.

    Attributes:
        part: Part of the benchmark.
        way: How it was done.
        seconds: Of the whole work: the best repeat, scaled where only a part was run.
        median: The same of the median repeat.
        ratio: To brewlens' own time: more than one is slower.
        error: Largest difference of the results from the naive ones, relative to the largest of them; None
            where there is nothing to compare.
        note: What was run.
    """

    part: str
    way: str
    seconds: float
    median: float
    ratio: float
    error: float | None
    note: str


@dataclass(frozen=True)
class Line:
    """One number, and what is asked of it.

    Attributes:
        key: Part and name, by which the limit was found.
        what: In words.
        measured: The number; NaN where it could not be had.
        unit: Of the number.
        limit: What is asked; None if nothing is.
        note: How it was got.
    """

    key: str
    what: str
    measured: float
    unit: str
    limit: Limit | None
    note: str

    @property
    def asked(self) -> str:
        """The limit in words; empty if there is none."""
        if self.limit is None:
            return ""
        low, high = self.limit.at_least, self.limit.at_most
        if low is not None and high is not None:
            return f"{low:g} to {high:g}"
        return f"at least {low:g}" if low is not None else f"at most {high:g}"

    @property
    def met(self) -> bool | None:
        """Whether the limit is kept; None if there is none. NaN keeps no limit."""
        if self.limit is None:
            return None
        low, high = self.limit.at_least, self.limit.at_most
        return (low is None or self.measured >= low) and (high is None or self.measured <= high)


@dataclass(frozen=True)
class Fit:
    """``y = factor * x ** slope``, with the standard error of the slope."""

    slope: float
    error: float
    factor: float


@dataclass
class Record:
    """Everything that one run measured; it is printed as it comes."""

    settings: Settings
    timings: list[Timing] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    points: list[dict[str, object]] = field(default_factory=list)
    fits: dict[str, Fit] = field(default_factory=dict)

    def time(
        self,
        part: str,
        way: str,
        timed: Timed,
        own: Timed,
        *,
        scale: float = 1.0,
        error: float | None = None,
        note: str = "",
    ) -> Timing:
        """Add a way; ``own`` is brewlens' on the whole work, ``scale`` the whole work over what was run."""
        seconds = timed.best * scale
        timing = Timing(part, way, seconds, timed.median * scale, seconds / own.best, error, note)
        self.timings.append(timing)
        equal = "" if error is None else f"  difference {error:.1e}"
        print(f"  {way:52} {seconds:10.3f} s {timing.ratio:8.2f} x{equal}", flush=True)
        return timing

    def bound(self, part: str, way: str, seconds: float, own: Timed, note: str) -> None:
        """Add what cannot be beaten."""
        self.timings.append(Timing(part, way, seconds, seconds, seconds / own.best, None, note))
        print(f"  {way:52} {seconds:10.3f} s {seconds / own.best:8.2f} x", flush=True)

    def absent(self, part: str, way: str, note: str) -> None:
        """Add a way that could not be run, and why."""
        self.timings.append(Timing(part, way, nan, nan, nan, None, note))
        print(f"  {way:52} {note}", flush=True)

    def line(self, key: str, what: str, measured: float, unit: str, note: str = "") -> Line:
        """Add a number, with the limit that the settings have for it."""
        line = Line(key, what, float(measured), unit, self.settings.limits.get(key), note)
        self.lines.append(line)
        print(f"  {what}: {measured:.4g} {unit} {verdict(line)}", flush=True)
        return line

    def point(self, axis: str, value: int, way: str, seconds: float) -> None:
        """Add a point of the scaling figure; ``axis`` is ``samples`` or ``layers``."""
        self.points.append({"axis": axis, "value": value, "way": way, "seconds": seconds})

    def point_frame(self) -> pd.DataFrame:
        """The points of the figure: axis, value, way, seconds."""
        import pandas as pd

        return pd.DataFrame(self.points, columns=["axis", "value", "way", "seconds"])


def verdict(line: Line) -> str:
    """``asked ...: met``, ``asked ...: missed``, or nothing."""
    return "" if line.met is None else f"(asked {line.asked}: {'met' if line.met else 'missed'})"
