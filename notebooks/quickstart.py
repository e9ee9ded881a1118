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
# # Quickstart
#
# A language model reads a short program and says the value of a variable. When can a
# probe read the answer from its residual stream? When can its own later layers use it
# without the program? How does each sample end?
#
# This notebook traces the bundled reference model, a 12-layer transformer trained on
# programs like these (never on these). Put a Hugging Face id or folder in place of
# `"reference"` to trace another model.

# %%
import pandas as pd

import brewlens as bl

pd.set_option("display.max_colwidth", None)
model = bl.load_model("reference")
print(model)
print(model.check)

# %% [markdown]
# ## Programs
# Every answer was got by running the program. No two programs are one another renamed.

# %%
items = bl.tasks.generate("computing", n=270, seed=0)
print(items[40].prompt + items[40].answer)
items

# %% [markdown]
# ## The lifecycle of every sample
# One pass reads the residuals; out-of-fold probes say where the answer is available,
# context-stripped decoding says where it is ready.

# %%
trace = bl.trace(model, items, progress=False)
trace

# %%
samples = trace.to_frame()
samples["outcome"].value_counts(normalize=True).round(3)

# %% [markdown]
# First hits come early by chance. Onsets weigh all layers of a sample together; each
# has a posterior, *never* included.

# %%
samples[["fpcl", "available_from", "p_available", "fcc", "ready_from", "ready_until", "p_ready"]].head(8)

# %% [markdown]
# ## What may be said
# One line per statement of the paper: supported, not distinguishable from null, or
# contradicted; with effect, interval, n, and the least effect that would have been
# found. Over noise the table claims nothing.

# %%
trace.tables["claims"][["statement", "scope", "effect", "low", "high", "n", "p_adjusted", "verdict"]].round(3)

# %% [markdown]
# ## One sample
# Each row is a layer. On the left what the probe reads, on the right what the model's
# later layers make of the residual with the program taken away.

# %%
shown = bl.figures.examples(trace)
axes = bl.figures.plot_lifecycle(trace, sample=shown["resolved"])

# %% [markdown]
# ## All samples, layer by layer
# A probe that does not beat the dashed surface baseline has found text, not reasoning.

# %%
axes = bl.figures.plot_accuracy(trace)

# %%
axes = bl.figures.plot_onsets(trace)

# %% [markdown]
# ## Where the last token looks
# CircuitsVis, from local files: the tokens, coloured by the last token's attention at the
# sample's landmark layers or by what its counterfactual twin changes; then every head at
# one of these layers. All TransformerLens hook points are there too: `model.bridge`.

# %%
bl.views.tokens(trace, shown["resolved"], model=model)

# %%
bl.views.attention(model, trace, shown["resolved"])

# %% [markdown]
# Look around: choose a sample and decoders, hover for layer, class and probability.

# %%
bl.views.explore(trace, shown["resolved"])

# %% [markdown]
# ## On from here
# [Your own model and programs](own_model.ipynb), [whether the answer is
# used](causal_use.ipynb), [a decoder and a task family of your own](extending.ipynb),
# and [the paper's analyses beside its numbers](reproduction.ipynb).
