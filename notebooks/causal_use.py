# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Is the brewed answer used?
#
# A probe reads the answer from the residual stream some layers before the model's own
# later layers can use it. That it *can be read* does not show that the model *goes on
# with it*. Here it is exchanged: at the last token of a sample's own prompt, with that
# of the counterfactual twin, the same program with one literal changed. If the model
# uses what is exchanged, its output follows the twin.

# %%
from pathlib import Path

import numpy as np

import brewlens as bl

model = bl.load_model("reference")
items = bl.tasks.generate("computing", n=270, seed=0)
trace = bl.trace(model, items, progress=False)

item = items[0]
twin = items.twin(item, "counterfactual")
print(item.prompt + item.answer, twin.prompt + twin.answer, sep="\n\n")

# %% [markdown]
# ## Who brews
# The brewing stretch of a sample: from the layer at which its answer is available to
# the last one before it is ready.

# %%
start, end = bl.intervention.stretches(trace)
brewing = start >= 0
print(f"{brewing.sum()} of {len(trace)} brew, for {(end - start)[brewing].mean():.1f} layers on average")

# %% [markdown]
# ## Exchange
# Three edits, at every layer: the whole state; the directions that the sample's
# out-of-fold probe reads, and no more; and the probe's directions erased. Each beside
# its controls: nothing changed, a donor with the same answer, a shuffled donor, and two
# moves as far elsewhere.

# %%
use = bl.intervention.causal_use(model, trace, n=60, learned=False, progress=False)
columns = ["edit", "measure", "n", "net", "low", "high", "placebo", "placebo_net", "used_from", "verdict"]
use.verdicts.loc[use.verdicts["outcome"] == "all", columns].round(3)

# %% [markdown]
# The effect layer by layer, relative to the layer from which on the answer is ready.
# The band is what controls do.

# %%
trace = trace.with_tables(effects=use.effects, causal_verdicts=use.verdicts)
axes = bl.figures.plot_causal_use(trace, edit="whole", aligned="fjc")

# %% [markdown]
# What the probe reads is a small part of what the model uses, or none. Is there a
# better part of that size? A fourth edit exchanges as many directions as the probe has,
# learned for the purpose on the other half of the shapes. By default `causal_use`
# learns them too, which takes a minute; here they come from the stored run of a clone,
# for all six families. Share of outputs that follow the twin beyond chance, and the
# verdict:

# %%
RUN = Path(bl.__file__).parents[1] / "docs" / "run"
verdicts = bl.load_run(RUN).tables["causal_verdicts"] if RUN.exists() else use.verdicts
followed = verdicts[(verdicts["outcome"] == "all") & (verdicts["measure"] == "follows")]
followed.pivot(index="family", columns="edit", values=["net", "verdict"]).round(2)

# %% [markdown]
# An effect says nothing without its dose: how far the state was moved, and what that
# did one block later.

# %%
stretch = use.effects.query("aligned == 'stretch' and outcome == 'all' and measure == 'follows'")
stretch[["edit", "donor", "control", "n", "net", "low", "high", "cosine", "change", "kl", "nil"]].round(3)

# %% [markdown]
# ## Any other experiment
# An edit is a function of the recipient's state and the donor's; a grid runs any number
# of them at any layers, batched. Here: the twin's MLP output instead of the own, one
# layer at a time.

# %%
from brewlens.intervention import Arm, Site, counterfactual, replace, run_grid, states

few = items[:40]
space = model.answer_space(few.prompts)
site = Site("mlp_out")
donor = counterfactual(model, few, space, site)
arms = [Arm("replace", "counterfactual", replace(), donor)]
grid = run_grid(model, few.prompts, states(model, few.prompts, site), arms, space, site=site)
follows = grid.predicted[1] == donor.classes.numpy()[:, None]
for layer, share in enumerate(follows.mean(axis=0)):
    print(f"MLP of layer {layer:2d}: {share:.2f} of outputs are the twin's answer")

# %% [markdown]
# ## Where a wrong digit overtakes
# Direct logit attribution, right minus wrong digit, of every attention layer and MLP;
# exact from raw weights. Of the samples that are answered wrongly, the part behind
# which the wrong digit leads for good; *nowhere* where the right one never led.

# %%
found = bl.intervention.attribute(model, items, model.answer_space(items.prompts), progress=False)
ends = np.where(trace.lifecycle.output_correct, "right", "wrong")
labels = (trace.lifecycle.families, ends, trace.shapes)
bl.intervention.overtake_table(bl.intervention.overtakes(found), *labels).query(
    "outcome == 'wrong' and count > 0"
)
