"""Attention and token views against the plain Hugging Face model, and against the programs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from html import unescape

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from brewlens import ModelError, tasks
from brewlens.lifecycle import NEVER
from brewlens.pieces import pieces, token_table
from brewlens.views import View, attention, tokens
from brewlens.views.patterns import attention_at, landmark_layers
from brewlens.views.tokens import changed
from tests.synthetic import synthetic_trace
from tests.tiny import LAYERS


@pytest.fixture(scope="module")
def trace():
    items = tasks.generate("computing", n=12, seed=1)
    return synthetic_trace(n_layers=LAYERS, items=items)


@pytest.fixture(scope="module")
def traced(trace, tiny_model):
    return trace.with_tables(tokens=token_table(tiny_model, trace.items))


def test_patterns_are_those_of_the_plain_model(any_model, tiny_folders, trace):
    prompt, layers = trace.items[0].prompt, (0, 2)
    plain = AutoModelForCausalLM.from_pretrained(
        tiny_folders[any_model.name], attn_implementation="eager"
    ).eval()
    ids = torch.tensor([any_model.token_ids(prompt)])
    with torch.no_grad():
        expected = plain(ids, output_attentions=True).attentions
    found = attention_at(any_model, prompt, layers)
    assert set(found) == set(layers)
    for layer in layers:
        assert np.allclose(found[layer], expected[layer][0].numpy(), atol=1e-5)
        assert np.allclose(found[layer].sum(-1), 1, atol=1e-5)
    last = attention_at(any_model, prompt, layers, last=True)
    for layer in layers:
        assert np.array_equal(last[layer][:, 0], found[layer][:, -1])


def test_only_the_layers_asked_for_are_hooked_and_no_hook_stays(tiny_model, trace, monkeypatch):
    asked = []
    original = tiny_model.hooks

    def hooks(pairs):
        asked.extend(name for name, _ in pairs)
        return original(pairs)

    monkeypatch.setattr(tiny_model, "hooks", hooks)
    attention_at(tiny_model, trace.items[0].prompt, [1])
    assert [name for name in asked if "pattern" in name] == ["blocks.1.attn.hook_pattern"]
    assert not any(point.fwd_hooks for point in tiny_model.bridge.hook_dict.values())


def test_a_model_that_does_not_say_its_attention_is_refused(tiny_model, trace, monkeypatch):
    monkeypatch.setattr(tiny_model, "read_from", lambda *args: None)
    with pytest.raises(ModelError, match=r"found nothing.*brewlens.load_model.*eager"):
        attention_at(tiny_model, trace.items[0].prompt, [1])


def test_landmark_layers_by_default(tiny_model, traced):
    marks = traced.lifecycle.landmarks
    row = int(np.flatnonzero((marks.fjc != NEVER) & (marks.fpcl != marks.fjc))[0])
    view = attention(tiny_model, traced, row)
    layers = sorted({int(getattr(marks, name)[row]) for name in ("fpcl", "fcc", "fjc")})
    assert list(landmark_layers(traced, row)) == layers
    assert view.props["attentionHeadNames"] == [f"L{layer} H{head}" for layer in layers for head in range(4)]
    assert "FPCL" in view.notes[0] and view.element == "AttentionHeads"
    expected = attention_at(tiny_model, traced.items[row].prompt, layers)
    found = np.array(view.props["attention"])
    assert np.allclose(found, np.concatenate([expected[layer] for layer in layers]), atol=6e-5)
    ends = traced.tables["tokens"].set_index("id").loc[traced.items[row].id, "ends"]
    assert view.props["tokens"] == pieces(traced.items[row].prompt, ends)


def test_a_sample_without_landmarks_is_shown_all_the_same(tiny_model, traced):
    row = int(np.flatnonzero(traced.lifecycle.outcome == "no_brewing")[0])
    marks = {name: np.full_like(v, NEVER) for name, v in vars(traced.lifecycle.landmarks).items()}
    bare = replace(traced.lifecycle.landmarks, **marks)
    view = attention(tiny_model, replace(traced, lifecycle=replace(traced.lifecycle, landmarks=bare)), row)
    assert view.notes[0] == "This sample has no landmark. Shown are layers 2 and 3."
    assert len(view.props["attentionHeadNames"]) == 8


def test_layers_and_heads_can_be_chosen(tiny_model, traced):
    view = attention(tiny_model, traced, 0, layers=[3, 0], heads=[1])
    assert view.props["attentionHeadNames"] == ["L3 H1", "L0 H1"]
    for asked in ({"layers": [4]}, {"layers": []}, {"heads": [4]}, {"heads": []}):
        with pytest.raises(ValueError, match="asked for"):
            attention(tiny_model, traced, 0, **asked)


def test_too_much_for_a_page_is_refused(tiny_model, traced, monkeypatch):
    monkeypatch.setattr(sys.modules["brewlens.views.attention"], "MOST", 1000)
    with pytest.raises(ValueError, match=r"more than 1,000: give fewer layers= or heads="):
        attention(tiny_model, traced, 0)


def test_another_model_than_the_traced_one_is_refused(tiny_models, traced):
    with pytest.raises(ValueError, match="reads other tokens"):  # llama's tokenizer adds a BOS
        attention(tiny_models["llama"], traced, 0)
    deeper = synthetic_trace(n_layers=LAYERS + 2, items=traced.items)
    with pytest.raises(ValueError, match="has 4 layers; the trace is of reference with 6"):
        tokens(deeper, 0, model=tiny_models["qwen2"])


def test_a_token_without_text_has_its_name(tiny_models, trace):
    view = attention(tiny_models["llama"], trace, 0, layers=[0])
    assert view.props["tokens"][0] == "<s>"
    assert "".join(view.props["tokens"][1:]) == trace.items[0].prompt


def test_tokens_show_what_the_twin_changes(traced):
    for row, item in enumerate(traced.items):
        twin = traced.items.twin(item, "counterfactual")
        view = tokens(traced, row)
        assert view.props["labels"] == ["changed in the twin"]
        marked = [
            text
            for text, (value,) in zip(view.props["tokens"], view.props["values"], strict=True)
            if value == 1
        ]
        assert marked and sum(map(len, marked)) <= 4  # one literal, a token per character
        assert unescape("".join(view.props["tokens"])) == item.prompt
        assert f"answer is {twin.answer}" in view.notes[-1]


def test_tokens_show_where_the_last_token_looks(tiny_model, traced):
    view = tokens(traced, 1, model=tiny_model, layers=[1, 3])
    expected = attention_at(tiny_model, traced.items[1].prompt, [1, 3])
    values = np.array(view.props["values"])
    assert values.shape == (len(view.props["tokens"]), 5) and len(view.props["labels"]) == 5
    for k, layer in enumerate((1, 3)):
        assert np.allclose(values[:, 2 * k], expected[layer][:, -1].mean(0), atol=6e-5)
        assert np.allclose(values[:, 2 * k + 1], expected[layer][:, -1].max(0), atol=6e-5)


def test_nothing_to_show_is_said(trace, traced):
    with pytest.raises(ValueError, match="no table of tokens"):
        tokens(trace.with_tables(), 0)
    lonely = replace(traced.items[0], twins={})
    alone = replace(traced, items=replace(traced.items, items=(lonely, *traced.items.items[1:])))
    with pytest.raises(ValueError, match="no counterfactual twin"):
        tokens(alone, 0)
    with pytest.raises(ValueError, match="gave no model"):
        tokens(traced, 0, layers=[1])
    with pytest.raises(ValueError, match="no row for"):
        tokens(traced.with_tables(tokens=traced.tables["tokens"].iloc[:0]), 0)


@pytest.mark.parametrize(
    ("prompt", "other", "texts", "flags"),
    [
        ("x = 31", "x = 71", ["x", " =", " 31"], [0, 0, 1]),
        ("f(12)", "f(9)", ["f", "(", "1", "2", ")"], [0, 0, 1, 1, 0]),
        ("a 11 b", "a 1 b", ["a", " ", "1", "1", " b"], [0, 0, 0, 1, 0]),  # a deletion, where it can be
        ("a", "a", ["a"], [0]),
        ("a1", "a2", ["<s>", "a", "1"], [0, 0, 1]),
    ],
)
def test_changed_tokens(prompt, other, texts, flags):
    assert changed(prompt, other, texts).astype(int).tolist() == flags


def test_a_view_is_short_and_escapes_its_texts(tmp_path):
    view = View("<b>", "ColoredTokens", {"tokens": ["</script><script>alert(1)</script>"], "values": [1.0]})
    page = view.save(tmp_path / "new" / "v.html").read_text()
    assert page == View(view.title, view.element, view.props).save(tmp_path / "w.html").read_text()
    assert "&lt;b&gt;" in page and page.count("</script") == 1 and "alert" in page
    assert len(repr(view)) < 300
    props = page[page.rindex("Views.ColoredTokens, ") + len("Views.ColoredTokens, ") :]
    assert json.loads(props[: props.index(")\n</script>")]) == view.props
    first, second = view._repr_html_(), view._repr_html_()
    assert first != second  # each display has an element of its own
