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
# # Your own model, your own programs
#
# Any causal language model that TransformerLens loads, from the hub or from a folder:
#
# ```python
# model = bl.load_model("Qwen/Qwen2.5-Coder-0.5B")
# ```
#
# Here nothing is downloaded. A tiny Qwen2 with random weights stands in for your model,
# so nothing should be found in it; the bundled model then reads programs of our own.

# %%
import json
import os
import random
import shlex
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

import brewlens as bl

# %% [markdown]
# ## A folder with a model
# What `save_pretrained` writes: configuration, weights, tokenizer. This tokenizer has
# one token per byte.


# %%
def save(folder, characters):
    """A random Qwen2 of four layers, and a tokenizer that knows these characters."""
    vocabulary = {text: i for i, text in enumerate(("<pad>", "<unk>", "<end>", *characters))}
    text = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>"))
    text.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    text.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=text, pad_token="<pad>", eos_token="<end>", unk_token="<unk>"
    ).save_pretrained(folder)
    size = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4}
    torch.manual_seed(0)
    config = Qwen2Config(vocab_size=len(vocabulary), num_key_value_heads=2, initializer_range=0.2, **size)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


everything = sorted(pre_tokenizers.ByteLevel.alphabet())
folder = save("tiny", everything)
model = bl.load_model(folder)
model

# %% [markdown]
# ## What the self-check says
# Before anything is measured: do attention and MLP add up to the residual stream? Does
# padding change nothing, and writing a prompt's own residuals back? Does the read-out
# give the model's own logits, and does an edit at every layer change them? Do the ten
# digits have tokens of their own *behind the question*? A model that fails is refused,
# with the number found.

# %%
print(model.check)

# %% [markdown]
# A tokenizer without digits reads none of them; a folder without a configuration is not
# a model.

# %%
Path("empty").mkdir(exist_ok=True)
for given in (save("no_digits", [c for c in everything if not c.isdigit()]), "empty"):
    try:
        bl.load_model(given)
    except bl.ModelError as error:
        print(f"{type(error).__name__}: {error}\n")

# %% [markdown]
# ## Nothing in noise
# The random model over programs of brewlens. It knows nothing of their answers, and so
# the table of claims must say of each statement that it cannot be told from noise.

# %%
items = bl.tasks.generate("computing", n=135)
noise = bl.trace(model, items, resamples=199, progress=False)
noise.tables["claims"]["verdict"].value_counts()

# %% [markdown]
# ## Your own programs
# A file with one object per line: a `prompt` that ends where the answer must begin, and
# the `answer`. All else is optional. `factors` whose levels are numbers are tested as
# orders of difficulty. brewlens parses programs for their skeleton and never runs them;
# the answers below are got by running them here.


# %%
def program(rng, steps):
    """A few assignments, each from one before."""
    names = rng.sample(["x", "y", "left", "count", "size", "total", "width", "level"], steps + 1)
    lines = [f"{names[0]} = {rng.randint(0, 5)}"]
    for before, name in pairwise(names):
        lines.append(f"{name} = {before} {rng.choice('+-')} {rng.randint(1, 4)}")
    rng.shuffle(names)
    spare = f"{names[0]}_old = {rng.randint(0, 9)}"
    if rng.random() < 0.5:
        lines.insert(rng.randint(0, len(lines)), spare)
    scope = {}
    exec(code := "\n".join(lines) + "\n", scope)
    name = lines[-1].split()[0]
    return {
        "prompt": f'{code}# The value of {name} is "',
        "answer": str(scope[name]),
        "factors": {"steps": steps},
    }


def write(path, programs):
    Path(path).write_text("".join(json.dumps(p) + "\n" for p in programs), "utf-8")


rng = random.Random(0)
drawn = [program(rng, steps) for _ in range(400) for steps in (1, 2, 3)]
digits = {p["prompt"]: p for p in drawn if len(p["answer"]) == 1}
write("mine.jsonl", list(digits.values())[:240])
print(Path("mine.jsonl").read_text("utf-8").splitlines()[2])

mine = bl.tasks.read_items("mine.jsonl")
mine

# %% [markdown]
# ## From the command line
# `brewlens run --model tiny --items mine.jsonl --dry-run` says beforehand what a run
# will take: cells, memory, disk, time. Here is a run. `brewlens` is called by way of
# this Python, to be sure that it is found.


# %%
def shell(command):
    """What a terminal shows; the log goes to standard error."""
    words = [sys.executable, "-m", "brewlens.cli", *shlex.split(command)[1:]]
    colours = ("FORCE_COLOR", "CLICOLOR_FORCE")
    plain = {name: value for name, value in os.environ.items() if name not in colours}
    plain["COLUMNS"] = "88"
    done = subprocess.run(words, capture_output=True, check=True, text=True, env=plain)
    print(f"$ {command}", done.stdout, sep="\n")


shell("brewlens run --model reference --items mine.jsonl --prompts own --out runs/mine")

# %% [markdown]
# The folder has everything; `report.html` is for reading, `bl.load_run` for going on.

# %%
trace = bl.load_run("runs/mine")
axes = bl.figures.plot_accuracy(trace)

# %% [markdown]
# Two statements are contradicted, and that says something about the file, not about the
# model: with 240 programs the probe learns slowly and reads late, so that answers seem
# to be ready before they are available. The report says so in its warnings. A probe is
# a bound; more programs make it a better one.

# %% [markdown]
# ## What is refused
# A line that cannot be meant is not left out in silence: the message names file, line,
# and what to do. The command line says the same and ends with exit code 1.

# %%
good = {"prompt": 'x = 3\n# The value of x is "', "answer": "3"}
for bad in ({**good, "answer": "twelve"}, {**good, "anwser": "3"}, {"prompt": good["prompt"]}):
    write("bad.jsonl", [good, bad])
    try:
        bl.tasks.read_items("bad.jsonl")
    except bl.tasks.ItemFileError as error:
        print(error, "\n")

# %% [markdown]
# Two programs that are one another renamed must not stand on both sides of a probe.
# Folds keep them together; where that leaves too few groups, there is no honest fold.

# %%
same = [good, {"prompt": 'y = 3\n# The value of y is "', "answer": "3"}]
write("renamed.jsonl", same)
few = bl.tasks.read_items("renamed.jsonl")
print("one skeleton:", few[0].skeleton == few[1].skeleton)
try:
    bl.tasks.assign_folds(few, k=2)
except ValueError as error:
    print(error)

# %% [markdown]
# ## Answers of several tokens
# `classes` are the answers that are told apart: the digits, a list, or those that the
# file has. With `scoring="sequence"` an answer is scored whole, by the log-probability
# of all its tokens, in every decoder; `end` is what follows it, and tells `1` from the
# beginning of `12`. On the command line: `--classes items --scoring sequence --end
# '"'`.

# %%
longer = [p for p in {p["prompt"]: p for p in drawn}.values() if 7 <= int(p["answer"]) <= 11]
write("longer.jsonl", longer[:45])
numbers = bl.tasks.read_items("longer.jsonl", classes=None)
classes = sorted(set(numbers.answers), key=int)
reference = bl.load_model("reference")
try:
    bl.trace(reference, numbers, classes=classes, progress=False)
except ValueError as error:
    print(error)

# %%
scored = bl.trace(
    *(reference, numbers), classes=classes, scoring="sequence", end='"', resamples=199, progress=False
)
samples = scored.to_frame().assign(tokens=[len(a) for a in numbers.answers])
samples.groupby("tokens")["output_correct"].agg(["mean", "size"]).round(2)

# %% [markdown]
# The bundled model was trained on answers of one digit. It is often right about those
# and knows no others.
