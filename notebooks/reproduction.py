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
# # The paper's analyses, on the bundled model
#
# *From Brewing to Resolution* ([arXiv 2606.17648](https://arxiv.org/abs/2606.17648))
# traces sixteen models of 0.5B to 14B parameters. Here each of its analyses runs on a
# model of 2.5 million. Three numbers stand beside each other wherever there are three:
#
# - **published**: the paper's, of Qwen2.5-Coder-7B. Another model on other programs:
#   compare the pattern and the order of magnitude, not the number.
# - **recipe**: ours by the paper's rules: first hits, one constant target prompt, its
#   outcomes. Only its probes are ours, out of fold.
# - **repaired**: ours by the rules of brewlens.
#
# Intervals are 95 %, clustered by the shape of the programs. The stored run in
# `docs/run` has 270 programs of each family; the paper has 810.

# %%
import sys
from pathlib import Path

import numpy as np
import pandas as pd

import brewlens as bl

ROOT = Path(bl.__file__).parents[1]  # the clone
RUN = ROOT / "docs" / "run"
pd.set_option("display.max_colwidth", None)
sys.path.append(str(ROOT / "notebooks"))
import published  # notebooks/published.py, all numbers of the paper

if RUN.exists():
    trace = bl.load_run(RUN)
else:  # twenty minutes
    trace = bl.run(bl.make_plan(n=270, interventions="all"), "runs/reproduction")
items, life, families = trace.items, trace.lifecycle, list(trace.items.families)
trace


# %%
def cell(value, low, high, percent=True):
    """A number with its interval."""
    if pd.isna(value):
        return "–"
    k, digits = (100, 1) if percent else (1, 3)
    return f"{k * value:.{digits}f} [{k * low:.{digits}f}, {k * high:.{digits}f}]"


# %% [markdown]
# ## The recipe
# Readiness behind `# The value of x is "` for all samples, first hits, the published
# outcomes. On the command line this is `brewlens run --compat paper`, which puts the
# same table into the report; here it is added to the stored run.

# %%
model = bl.load_model("reference")
residuals = trace.residuals or bl.capture(model, items.prompts, items.ids, progress=False)
space = model.answer_space(items.prompts)
constant = bl.decoding.resolve(bl.decoding.CONSTANT, model, items, space)
ready, _ = bl.decoding.context_stripped(model, residuals, constant, space, progress=False)

probe, own = trace.readouts["probe"], trace.readouts["context_stripped"]
recipe = bl.lifecycle.paper_lifecycle(
    *(probe, ready),
    families=life.families,
    answers=items.answers,
    output=own.target_index(life.output),
    format_miss=life.format_miss,
)
signals = bl.lifecycle.signals(probe, own)
both = bl.lifecycle.side_by_side(recipe, life, signals, onsets=trace.onsets, clusters=trace.shapes)


def beside(quantity, repaired=None, percent=True):
    """Published, recipe and repaired of one quantity, by family."""
    rows = both.set_index(["quantity", "family"])
    table = pd.DataFrame(index=pd.Index([*families, "all"], name="family"))
    known = published.BY_FAMILY.get(quantity, pd.Series(dtype=float))
    digits = 1 if percent else 3
    table["published"] = [f"{known[f]:.{digits}f}" if f in known else "–" for f in table.index]
    columns = {"recipe": ("paper", quantity), "repaired": ("brewlens", repaired or quantity)}
    for column, (kind, name) in columns.items():
        ours = rows.loc[name].loc[table.index]
        numbers = ours[[kind, f"{kind}_low", f"{kind}_high"]].to_numpy()
        table[column] = [cell(*row, percent) for row in numbers]
        table[f"n {column}"] = ours[f"{kind}_n"].astype(int)
    return table


# %% [markdown]
# ## How often is the output right?
# In %. This needs no probe. The two rules differ where the first choice of the whole
# vocabulary is not a digit; this model always says one. It was trained on these
# families, so it is better at them, and `computing` is easy for it.

# %%
beside("accuracy")

# %% [markdown]
# ## How do samples end?
# In % of the samples with an FPCL; for *repaired* with an onset of availability. Onsets
# ask for more than one lucky layer, so fewer samples count as ever available, and of
# those more are resolved. Samples that are answered rightly without ever being jointly
# correct are failures by the recipe; the repaired rule calls them *bypassed*.

# %%
outcomes = ("resolved", "overprocessed", "misresolved", "unresolved")
pd.concat({name: beside(name, f"onset_{name}") for name in outcomes}, names=["outcome"])

# %%
axes = bl.figures.plot_outcomes(trace)

# %% [markdown]
# Of the published samples without an FJC 17.7 % are answered rightly, and are counted
# as failures. Here:

# %%
without = recipe.landmarks.fjc == bl.lifecycle.NEVER
share = bl.stats.clustered_share(recipe.output_correct[without], trace.shapes[without])
print(f"published {published.RIGHT_WITHOUT_FJC} %")
print(f"here      {cell(share.value, share.low, share.high)} %, n {share.n}")

# %% [markdown]
# ## Where are the landmarks?
# As shares of the depth L. The recipe averages first hits over the samples that have
# one; the repaired numbers are onsets, over all samples, *never* counting as L. Two
# things make first hits early whatever the model does, chance and contamination; the
# next sections measure both.

# %%
landmarks = ("fpcl", "fjc", "brewing")
table = pd.concat({name: beside(name, percent=False) for name in landmarks}, names=["landmark"])
table.loc[("brewing", "all"), "published"] = "{} to {}, 16 models".format(*published.BREWING)
table

# %% [markdown]
# Brewing, (FJC − FPCL)/L, is published as 0.24 to 0.42 over sixteen models. It cannot
# be negative, whatever a model does: an FJC is a layer where the probe is right, too.
# Onsets can come in either order, and here they do: in `value_tracking` answers are
# available first, in the four hardest families the model's own layers can use an answer
# before this probe reads it. That is also a matter of how much the probe has to learn
# from. It is a bound, and with 270 programs per family a loose one: among the samples
# that are both available and ready, brewing is not told from null below, and takes
# 0.047 of the depth with 810 ([README](../../README.md)).

# %%
claims = trace.tables["claims"]
claims[["statement", "scope", "effect", "low", "high", "n", "p_adjusted", "verdict"]].round(3)

# %%
figure = bl.figures.plot_onsets_grid(trace)

# %% [markdown]
# ## What would chance give?
# A first hit is a minimum over layers. If layers guessed on their own, 1 − 0.9¹² = 72 %
# of samples would have an FPCL. Beside each number stands what the same readouts give
# when answers change places within configuration and fold; layers of one sample tend to
# say the same, right or wrong, so it is less than that. Depths count *never* as L here,
# except `brewing`, which is over the samples with an FJC: most of it is what chance
# makes.

# %%
nulls = trace.tables["nulls"].query("family == 'all' and null == 'answers permuted'").set_index("statistic")
named = [
    "fpcl_share",
    "fjc_share",
    "fpcl",
    "fjc",
    "brewing",
    "outcome_paper_resolved",
    "outcome_paper_overprocessed",
]
nulls.loc[named, ["observed", "null_mean", "excess", "low", "high", "p_adjusted", "n"]].round(3)

# %% [markdown]
# ## What does contamination give?
# The public scripts train probes on 675 of the 810 programs that they evaluate.
# brewlens refuses to (`LeakageError`), so this is scikit-learn: the same share, family
# by family, scored on all of them. Once on the residuals, once on random numbers of the
# same size.

# %%
import warnings

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler


def contaminated(states, seed=0):
    """Whether a probe trained on five sixths of the items it is scored on is right, by layer."""
    rng = np.random.default_rng(seed)
    right = np.empty(states.shape[:2], dtype=bool)
    answers, family = np.array(items.answers), np.array(life.families)
    for name in families:
        rows = np.flatnonzero(family == name)
        learn = rng.random(len(rows)) < 675 / 810
        for layer in range(states.shape[1]):
            x = StandardScaler().fit(states[rows[learn], layer]).transform(states[rows, layer])
            with warnings.catch_warnings():  # a probe that has not converged is part of the recipe
                warnings.simplefilter("ignore", ConvergenceWarning)
                fit = LogisticRegression(max_iter=100).fit(x[learn], answers[rows[learn]])
            right[rows, layer] = fit.predict(x) == answers[rows]
    return right


states = residuals.values.float().numpy()
noise = np.random.default_rng(0).standard_normal(states.shape).astype(np.float32)
unread = bl.Residuals.of(torch.from_numpy(noise), items.ids, residuals.tokens, "noise")
option = bl.decoding.FitOptions(C=0.1)
honest = bl.decoding.fit_probes(unread, items, trace.folds, options=option).readout

found = {
    ("residuals", "contaminated"): contaminated(states),
    ("residuals", "out of fold"): probe.correct(items.answers),
    ("noise", "contaminated"): contaminated(noise),
    ("noise", "out of fold"): honest.correct(items.answers),
}
records = {}
for name, right in found.items():
    first = bl.lifecycle.first_hit(right)
    there = first != bl.lifecycle.NEVER
    accuracy = bl.stats.clustered_mean(right.mean(axis=1), trace.shapes)
    depth = bl.stats.clustered_mean(first[there] / trace.n_layers, trace.shapes[there])
    none = bl.stats.clustered_share(~there, trace.shapes)
    records[name] = {
        "right, mean of layers, %": cell(accuracy.value, accuracy.low, accuracy.high),
        "no FPCL, %": cell(none.value, none.low, none.high),
        "FPCL/L": cell(depth.value, depth.low, depth.high, percent=False),
    }
pd.DataFrame.from_dict(records, orient="index")

# %% [markdown]
# Trained like that, noise has answers too, and from the first layers on. It is their
# share, not their exact recipe: run on noise, the public scripts themselves give 20 %
# right, 1 % without an FPCL, and an FPCL/L of 0.14. The direction is the same.
#
# ## What does the text give away?
# In the public data most evaluation programs of the two loop families are training
# programs with other names, and 1- to 3-grams alone reach what is said below. Here no
# skeleton is on both sides of a fold. In %.

# %%
control = trace.tables["surface_control"].set_index("family")
text = pd.DataFrame({"published programs, text only": published.TEXT_ONLY}, index=families)
text["here, text only"] = (100 * control.loc[families, "surface"]).round(1)
text["here, probe at its best layer"] = (100 * control.loc[families, "probe"]).round(1)
points = control.loc[families, ["difference", "low", "high"]]
text["probe beyond text, points"] = [cell(*row) for row in points.to_numpy()]
text["n"] = control.loc[families, "n"]
text

# %% [markdown]
# ## Are harder programs resolved less often?
# `function_call` by the depth of its calls; resolved by the paper's rule, in % of the
# samples with an FPCL.

# %%
depth = np.array([item.factors.get("depth") if item.family == "function_call" else None for item in items])
records = []
for level, value in published.RESOLVED_BY_DEPTH.items():
    rows = (depth == level) & recipe.brewing
    ours = bl.stats.clustered_share(recipe.outcome[rows] == "resolved", trace.shapes[rows])
    records.append((level, value, cell(ours.value, ours.low, ours.high), ours.n))
pd.DataFrame(records, columns=["depth", "published", "recipe", "n"]).set_index("depth")

# %% [markdown]
# The order is the same. How much is another matter: the 7B model all but fails at depth
# 3. Each factor that has an order is tested in the table of claims above, the others
# held fixed.
#
# ## Is a loop easier than the same program unrolled?
# Published: 35.5 against 28.0 % resolved, of different programs. Here loops and
# unrolled programs are exact twins, with the same literals and the same answer.

# %%
columns = ["statement", "scope", "effect", "low", "high", "n", "verdict"]
claims[claims["statement"].str.contains("unrolled")][columns].round(3)

# %% [markdown]
# ## Does the target prompt matter?
# The recipe has one. Ten of them, share right at half of the depth; at the last layer
# nothing is left for a prompt to do.

# %%
prompts = trace.tables["prompts"].query("version == 'subtracted'")
half = prompts[prompts["layer"] == trace.n_layers // 2].sort_values("accuracy")
half.set_index("prompt")[["kind", "accuracy", "accuracy_low", "accuracy_high", "n"]].round(3)

# %% [markdown]
# ## Does the state of the FJC carry the answer?
# The state of the FJC, or of a layer some way from it, is written into a question
# without a program: how many outputs are right then? Published: 20 to 44 % flip at the
# FJC, 3 to 18 % before it. Here net of the no-op, in points, and behind wordings that
# the FJC was not read with. *own* is the treatment, the rest are controls.

# %%
effects = trace.tables["effects"]
all_of = effects.query("family == 'overall' and outcome == 'all' and measure == 'right'")
patched = all_of.query("experiment == 'fjc_patching'")
shown = patched.assign(net=[cell(*row) for row in patched[["net", "low", "high"]].to_numpy()])
shown = shown.pivot(index=["edit", "donor"], columns="at", values="net")
shown = shown.reindex(["own", "other_landmark", "shuffled", "noise"], level="donor")
shown.loc[("n", "at least"), :] = patched.groupby("at")["n"].min().astype(str)
shown

# %% [markdown]
# The jump at the FJC is there. What it is worth shows in the second half, in the prompt
# of the counterfactual twin: there the own state at *another* sample's FJC does as
# much. The FJC is where a readout of this very state is right, so that a patch of it
# succeeds follows in part from the choice.
#
# ## Are failures rescued?
# Layer skipping writes `h[FJC]` at a later layer of overprocessed samples, re-injection
# `h[FPCL]` at one of the last layers of unresolved ones. The published rates count
# samples that were right anyway, and have no placebo. Here at layer L − 4, net of doing
# nothing, beside the strongest control; and with the cosine to doing nothing, for a
# blend of 0.3 hardly moves the state at all.

# %%
rescues = effects.query("family == 'overall' and measure == 'right' and aligned == 'layer'")
rescues = rescues[rescues["at"] == trace.n_layers - 4]
asked = {"layer_skipping": "overprocessed", "reinjection": "unresolved"}
records = []
for experiment, outcome in asked.items():
    rows = rescues[(rescues["experiment"] == experiment) & (rescues["outcome"] == outcome)]
    for edit, group in rows.groupby("edit", sort=False):
        own_row, others = group[~group["control"]].iloc[0], group[group["control"]]
        placebo = others.loc[others["net"].idxmax()]
        records.append(
            {
                "experiment": experiment,
                "edit": edit,
                "net, points": cell(own_row["net"], own_row["low"], own_row["high"]),
                "strongest control": placebo["donor"],
                "its net": cell(placebo["net"], placebo["low"], placebo["high"]),
                "cosine": round(own_row["cosine"], 4),
                "n": own_row["n"],
            }
        )
pd.DataFrame(records).set_index(["experiment", "edit"])

# %% [markdown]
# Another layer's state of the same sample rescues more than half as many as that of the
# FJC, and another sample's state as many unresolved answers as the own. A rescue that
# knows who failed, and the right layer, is an oracle. As policies for all samples,
# chosen on one half of the shapes and measured on the other:

# %%
policies = trace.tables["rescue"].query("outcome == 'all'")
pd.DataFrame(
    {
        "right answer in hand": policies["oracle"],
        "promised, points": (100 * policies["chosen_on"]).round(1),
        "measured, points of accuracy": [
            cell(*row) for row in policies[["net_accuracy", "low", "high"]].to_numpy()
        ],
        "n": policies["n_all"],
    }
).set_index("right answer in hand")

# %% [markdown]
# ## Which parts write the wrong digit?
# Direct logit attribution, right minus wrong digit: the parts at which the wrong digit
# overtakes, in overprocessed samples.

# %%
overtakes = trace.tables["overtakes"].query("family == 'overall' and outcome == 'overprocessed'")
overtakes = overtakes[overtakes["share"] > 0.05].set_index(["component", "layer"])
overtakes[["count", "n", "share", "low", "high"]].round(3)

# %% [markdown]
# And the MLP output of a loop, written at the same layer of its exact unrolled twin that
# is answered wrongly. Points of right answers, net. Layer 0 aside, the last two layers
# stand out, but not clearly from what the same layer of another pair does; there are few
# such pairs.

# %%
transplanted = all_of.query("experiment == 'transplant' and edit == 'into_wrong'")
moved = transplanted.assign(net=[cell(*row) for row in transplanted[["net", "low", "high"]].to_numpy()])
moved.pivot(index=["at", "n"], columns="donor", values="net")[["twin", "other_pair", "other_layer", "noise"]]

# %% [markdown]
# ## Can resolution be told without the answer?
# The paper's functional ρ = (1 − h)(1 − d) a, and a detector on all its signals,
# trained on shapes that it is not scored on; beside the confidence of the output, which
# costs nothing. Area under the ROC curve; *gain* is over that confidence. There is none
# to speak of.

# %%
confidence = bl.lifecycle.final_confidence(trace.readouts["context_stripped_raw"])
told = bl.lifecycle.detect_resolved(signals, confidence, recipe.outcome == "resolved", trace.shapes)
told.to_frame()[["score", "auc", "low", "high", "gain", "gain_low", "gain_high", "n"]].round(3)

# %% [markdown]
# ## What the paper does not ask: is the brewed answer used?
# In a sample's own prompt its state is exchanged with that of its counterfactual twin,
# layer by layer. [causal_use](causal_use.ipynb) does it step by step; this is the
# stored run.

# %%
figure = bl.figures.plot_causal_use_grid(trace)

# %% [markdown]
# ## What differs, and why
#
# - **Model and programs.** 0.5B to 14B parameters, trained on code, against 2.5
#   million, trained on these families. Of the public programs many are renamed copies;
#   here no skeleton occurs twice.
# - **Probes.** Published ones were trained on 675 of the 810 programs scored. Out of
#   fold, by skeleton and twins, FPCL/L moves from next to nothing to what a probe can
#   really read, which depends on how many programs it has to learn from.
# - **Landmarks.** A first hit is early by chance. Onsets weigh all layers together, may
#   be *never*, and every landmark stands beside its null.
# - **Order.** FJC ≥ FPCL by construction. Onsets can come in either order, and so
#   brewing can be absent.
# - **Outcomes.** A right output without an FJC is a failure in the paper, `bypassed`
#   here.
# - **Output.** The paper takes the arg max of the vocabulary for the output and of the
#   digits for decoders. Here one rule holds for both, and format misses are flagged.
# - **Readiness.** One constant target prompt against the own question, with nine more
#   for the spread.
# - **Interventions.** Net of the no-op, with placebos, dose and cost. Patching at the
#   FJC is partly the choice of the layer; as a policy, no rescue pays here.
# - **Numbers.** One seed and no intervals against n, intervals and adjusted p. Some
#   statements cannot be told from null on this model. That is a finding about this
#   model, not a refutation of the paper.
