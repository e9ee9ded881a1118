"""Intervals, tests and variance components: thin layers over scipy.

Samples of one shape are one program with other literals, not independent: they are a cluster. Tables give
``clustered_share`` and ``clustered_mean`` over shapes.
"""

from brewlens.stats.components import two_way
from brewlens.stats.means import Between, Estimate, between, bounded_mean, clustered_mean, mean_interval
from brewlens.stats.multiplicity import benjamini_hochberg, detectable, detectable_shares
from brewlens.stats.paired import mcnemar, paired_difference, score_difference, sign_flip, sign_flips
from brewlens.stats.resampling import Bootstrap, hierarchical_bootstrap
from brewlens.stats.shares import ClusteredShare, Share, clustered_share, share
from brewlens.stats.trends import trend

__all__ = [
    "Between",
    "Bootstrap",
    "ClusteredShare",
    "Estimate",
    "Share",
    "benjamini_hochberg",
    "between",
    "bounded_mean",
    "clustered_mean",
    "clustered_share",
    "detectable",
    "detectable_shares",
    "hierarchical_bootstrap",
    "mcnemar",
    "mean_interval",
    "paired_difference",
    "score_difference",
    "share",
    "sign_flip",
    "sign_flips",
    "trend",
    "two_way",
]
