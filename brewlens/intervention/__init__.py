"""Interventions: edit what a model holds, let the rest of it run, and see what it says.

``edits`` (what is written), ``donors`` (where it comes from), ``sites`` (where it is written), ``grid`` (all
of them, batched) and ``effects`` (net of the no-op, with intervals and doses) are what experiments are made
of; then there is one module per experiment. ``causal_use`` is the one that brewlens is about.
"""

from brewlens.intervention.causal_use import CausalUse, causal_use
from brewlens.intervention.components import Attribution, attribute, component_table
from brewlens.intervention.donors import Donor, counterfactual, earlier, other_answer, same_answer, shuffled
from brewlens.intervention.edits import (
    Edit,
    Subspace,
    Where,
    add,
    as_far_as,
    blend,
    erase_subspace,
    no_op,
    noise,
    norm_match,
    replace,
    swap_subspace,
)
from brewlens.intervention.effects import effect_table
from brewlens.intervention.fjc_patching import fjc_patching
from brewlens.intervention.grid import Arm, Grid, run_grid
from brewlens.intervention.layer_skipping import layer_skipping
from brewlens.intervention.learned import Learned, learned_subspace
from brewlens.intervention.overtake import Overtakes, overtake_table, overtakes
from brewlens.intervention.reinjection import reinjection
from brewlens.intervention.rescue import rescue
from brewlens.intervention.sites import Site, states
from brewlens.intervention.stretches import stretches
from brewlens.intervention.subspaces import probe_subspace, random_subspace, subspace_means
from brewlens.intervention.transplant import transplant

__all__ = [
    "Arm",
    "Attribution",
    "CausalUse",
    "Donor",
    "Edit",
    "Grid",
    "Learned",
    "Overtakes",
    "Site",
    "Subspace",
    "Where",
    "add",
    "as_far_as",
    "attribute",
    "blend",
    "causal_use",
    "component_table",
    "counterfactual",
    "earlier",
    "effect_table",
    "erase_subspace",
    "fjc_patching",
    "layer_skipping",
    "learned_subspace",
    "no_op",
    "noise",
    "norm_match",
    "other_answer",
    "overtake_table",
    "overtakes",
    "probe_subspace",
    "random_subspace",
    "reinjection",
    "replace",
    "rescue",
    "run_grid",
    "same_answer",
    "shuffled",
    "states",
    "stretches",
    "subspace_means",
    "swap_subspace",
    "transplant",
]
