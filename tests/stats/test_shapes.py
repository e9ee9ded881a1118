"""The shapes that signatures promise, checked at run time."""

from __future__ import annotations

import numpy as np
import pytest
from beartype import beartype
from jaxtyping import TypeCheckError, jaxtyped

from brewlens import stats
from brewlens.stats.robust import cluster_codes, contrast

N = 12
HITS, VALUES, CLUSTERS = np.arange(N) % 3 == 0, np.linspace(0, 1, N), np.arange(N) // 2
CALLS = {
    stats.clustered_mean: (VALUES, CLUSTERS),
    stats.bounded_mean: (VALUES, 0.0, 1.0, CLUSTERS),
    stats.clustered_share: (HITS, CLUSTERS),
    stats.paired_difference: (HITS, ~HITS, CLUSTERS),
    stats.mcnemar: (HITS, ~HITS),
    stats.sign_flip: (VALUES - 0.4, CLUSTERS),
    stats.trend: (HITS, np.arange(N) % 3, CLUSTERS, np.arange(N) % 2),
    stats.between: (VALUES,),
    stats.benjamini_hochberg: (VALUES.reshape(3, 4),),
    contrast: (np.ones((N, 1)), VALUES, CLUSTERS, np.ones(1)),
}


@pytest.mark.parametrize("function", CALLS, ids=lambda function: function.__name__)
def test_shapes(function):
    checked = jaxtyped(typechecker=beartype)(function)
    arguments = CALLS[function]
    assert checked(*arguments) is not None
    if function is not stats.benjamini_hochberg:
        with pytest.raises(TypeCheckError):
            checked(np.ones((2, 3, 2)), *arguments[1:])


def test_labels():
    names = ["b", "a", "b"]
    assert cluster_codes(names, 3).tolist() == [1, 0, 1] == cluster_codes(np.array([7, -1, 7]), 3).tolist()
    assert cluster_codes(None, 3).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"3 in all; found labels of shape \(3, 2\)"):
        cluster_codes([("a", 1), ("b", 2), ("a", 1)], 3)
