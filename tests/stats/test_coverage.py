"""How often 95 % intervals cover the truth: 93 to 97 % of simulations, except where docstrings say so."""

from __future__ import annotations

import pytest
from scipy.stats import binom
from simulations import cases, coverage

CASES = cases()
# Part of a name -> coverage that the docstring admits; the first that fits.
ADMITTED = {
    "restricted mean, never 0.98": (0.70, 0.94),
    "restricted mean, never 0.9 |": (0.88, 0.97),
    "share 0.02 | hard n=varies r=0.8": (0.80, 0.90),
    "share 0.1 | hard n=varies r=0.8": (0.89, 0.95),
    "share 0.9 | hard n=varies r=0.8": (0.89, 0.95),
    "bounded mean, never 0.98 | hard n=varies r=0.8": (0.85, 0.95),
    "bounded mean": (0.92, 0.98),
    "bootstrap 0.1 | hard": (0.84, 0.97),
    "bootstrap 3 seeds": (0.70, 0.85),
    "bootstrap 5 seeds": (0.88, 0.96),
    "paired shares 0.05 0.02 | hard n=varies r=0.8": (0.86, 0.95),
    "paired shares 0.05 0.02": (0.93, 0.985),
    "trend 0.04 -0.01 | hard n=varies r=0.8": (0.86, 0.95),
    "trend 0.04": (0.93, 1.0),
}
QUICK = [
    "share 0.02 | shapes n=270 r=0.5",
    "share 0.5 | coarse n=810 r=0.8",
    "share 0.9 | hard n=varies r=0.3",
    "restricted mean, never 0.5 | shapes n=270 r=0.5",
    "restricted mean, never 0.98 | shapes n=100 r=0.5",
    "bounded mean, never 0.9 | shapes n=270 r=0.5",
    "bounded mean, never 0.98 | single n=100 r=0.0",
    "paired shares 0.3 0.2 | shapes n=270 r=0.5",
    "paired restricted means | hard n=varies r=0.3",
    "trend 0.5 -0.1 | shapes n=270 r=0.5",
    "between 3 seeds",
]


def plausible(name, repeats, seed):
    """Whether the coverage is in bounds, but for what chance does in one of 10,000 simulations."""
    low, high = next((ends for part, ends in ADMITTED.items() if part in name), (0.93, 0.97))
    share = coverage(CASES[name], repeats, seed)
    hits = round(share * repeats)
    inside = binom.cdf(hits, repeats, low) > 1e-4 and binom.sf(hits - 1, repeats, high) > 1e-4
    return inside, f"{name}: {share:.3f} of {repeats}, not {low} to {high}"


@pytest.mark.parametrize("name", QUICK)
def test_covers(name):
    inside, found = plausible(name, 400, seed=0)
    assert inside, found


def test_a_naive_interval_would_be_caught():
    # With clusters thrown away the same check fails.
    name = "share 0.5 | hard n=varies r=0.3"
    case = CASES[name]

    def naive(rng):
        found, truth = case(rng)
        half = 1.96 * (found.value * (1 - found.value) / found.n) ** 0.5
        return type(found)(found.count, found.n, found.value - half, found.value + half), truth

    assert coverage(naive, 200) < 0.8 < coverage(case, 200)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_covers_everywhere(name):
    inside, found = plausible(name, 1000, seed=1)
    assert inside, found
