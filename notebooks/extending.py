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
# # A decoder and a task family of your own
#
# A decoder is a function from residuals to a readout; a family of programs is a
# function that draws one program. Each is about twenty lines here. Neither is believed
# before it has found what was put there.

# %%
import numpy as np
import pandas as pd

import brewlens as bl

pd.set_option("display.max_colwidth", None)

# %% [markdown]
# ## A decoder in twenty lines
# Nearest mean: how close is a state to the mean state of each answer? No weights,
# nothing to tune, and so a humbler reader than the linear probe. It learns from
# answers, so it scores each fold by the means of the other folds. brewlens cannot check
# that for you.


# %%
def nearest_mean(inputs):
    """Minus the mean squared distance to each answer's mean state, by layer; means of the other folds."""
    states = inputs.residuals.values.numpy()  # [sample, layer, d_model]
    answers, classes = np.array(inputs.items.answers), inputs.space.classes
    logits = np.empty((*states.shape[:2], len(classes)), dtype=np.float32)
    for fold in np.unique(inputs.folds):
        learn, score = inputs.folds != fold, inputs.folds == fold
        spread = states[learn].std(axis=0) + 1e-6
        for k, answer in enumerate(classes):
            mean = states[learn & (answers == answer)].mean(axis=0)
            logits[score, :, k] = -(((states[score] - mean) / spread) ** 2).mean(axis=-1)
    return bl.Readout(logits, classes, "nearest_mean", inputs.items.ids)


# %% [markdown]
# ### Does it find what is there, and nothing else?
# A planted model is a transformer with hand-set weights: of each sample it is known
# from which layer on the answer stands in the residual stream. Before that layer the
# decoder must be at chance, after it right.

# %%
truth = bl.planted.draw_truth(300, n_layers=8, seed=1)
planted = bl.planted.plant(truth, hit=0.95)
trace = bl.trace(planted.model, planted.items, extra={"nearest_mean": nearest_mean}, progress=False)

right = trace.readouts["nearest_mean"].correct(planted.items.answers)
there = np.arange(8) >= np.where(truth.available_from < 0, 8, truth.available_from)[:, None]
for name, where in (("before", ~there), ("after", there)):
    share = bl.stats.clustered_share(right[where], np.nonzero(where)[0])  # layers of one sample are alike
    print(
        f"{name} the planted layer: {share.value:.2f} right [{share.low:.2f}, {share.high:.2f}], n {share.n}"
    )

# %% [markdown]
# It stands in the trace beside the others, in tables and figures alike. Landmarks and
# onsets go on being read by the probe and by context-stripped decoding.

# %%
axes = bl.figures.plot_accuracy(trace)

# %% [markdown]
# What does not fit is refused, and the message says what does.

# %%
try:
    bl.trace(planted.model, planted.items, extra={"probe": nearest_mean}, progress=False)
except ValueError as error:
    print(error)

# %% [markdown]
# ## A task family in twenty lines
# Values change places. The levels of the factors come in by name; the draft hands out
# slots for names and literals; what is random comes from `rng`. The generator fills the
# slots: it draws literals until the answer is a digit that is still wanted, runs the
# program, and leaves out what it has had already.


# %%
@bl.tasks.family(variables=(2, 3), swaps=(1, 2, 3), how=("tuple", "helper"))
def swap(rng, variables, swaps, how):
    draft = bl.tasks.Draft(rng)
    names = [draft.name() for _ in range(variables)]
    draft.main += [f"{name} = {draft.lit(0, 9)}" for name in names]
    for _ in range(swaps):
        a, b = rng.sample(names, 2)
        if how == "tuple":
            draft.main.append(f"{a}, {b} = {b}, {a}")
        else:
            helper = draft.name()
            draft.main += [f"{helper} = {a}", f"{a} = {b}", f"{b} = {helper}"]
    draft.finish(rng.choice(names))
    draft.distract(rng.randint(0, 1))
    return draft.sketch(inlinable=False)


# %%
items = bl.tasks.generate("swap", n=360)
item = items[200]
twin = items.twin(item, "counterfactual")
print(item.prompt + item.answer, twin.prompt + twin.answer, sep="\n\n")

# %% [markdown]
# ### Is it what it should be?
# Answers that the programs give, no program twice under other names, all digits alike,
# configurations that are full. The generator sees to it for any family; here it is
# looked at.


# %%
def run(item):
    scope = {}
    exec(item.code, scope)
    return str(scope[item.suffix.split()[4]])


twins = [items.twin(item, "counterfactual") for item in items]
print("right answers:", all(run(item) == item.answer for item in (*items, *twins)))
print("twins with another answer:", all(a.answer != b.answer for a, b in zip(items, twins, strict=True)))
print("programs that are another one renamed:", len(items) - len({item.skeleton for item in items}))
print("answers:", dict(sorted(items.to_frame()["answer"].value_counts().items())))
print("configurations that fell short:", items.provenance["short"] or "none")
print("shapes:", len({item.shape for item in items}))

# %% [markdown]
# ## Both together
# The bundled model was not trained on this family. How often is it right all the same,
# and from where on do the decoders read it?

# %%
model = bl.load_model("reference")
trace = bl.trace(model, items, extra={"nearest_mean": nearest_mean}, progress=False)
trace

# %%
axes = bl.figures.plot_accuracy(trace)

# %% [markdown]
# Right in about half of the samples, and hardly better from layer to layer: it takes
# one of the literals, which one is settled early, and that is not always the right one.
# The text alone gives a third away.

# %%
samples = trace.items.to_frame()[["swaps", "how"]].assign(right=trace.lifecycle.output_correct)
samples.groupby(["how", "swaps"])["right"].agg(["mean", "size"]).round(2)

# %% [markdown]
# The numbers in `swaps` are taken for an order of difficulty, and so the claims table
# tests it.

# %%
claims = trace.tables["claims"]
claims[claims["scope"].str.startswith("swap")][
    ["statement", "scope", "effect", "low", "high", "n", "verdict"]
]

# %% [markdown]
# ## To keep
# A run folder holds results and no code. `bl.tasks.write_items("swap.jsonl", items)`
# writes the programs for `brewlens run --items swap.jsonl`, without their twins. A
# decoder that should be in every run folder is listed in `brewlens/study/pipeline.py`,
# a family for everyone in `brewlens/tasks/families.py`; the tests then ask of it what
# they ask of all ([CONTRIBUTING](../../CONTRIBUTING.md)).
