"""Decoders: each gives a distribution over the answer classes, per sample and layer."""

from brewlens.decoding.context_stripped import context_stripped, own_suffixes
from brewlens.decoding.logit_lens import logit_lens
from brewlens.decoding.probe import probe
from brewlens.decoding.readout import Readout
from brewlens.decoding.surface import majority, surface

__all__ = ["Readout", "context_stripped", "logit_lens", "majority", "own_suffixes", "probe", "surface"]
