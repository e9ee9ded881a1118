"""Views in a browser without a network: they draw themselves, ask for nothing, and complain of nothing."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import numpy as np
import pytest

from brewlens import tasks
from brewlens.figures import examples, theme
from brewlens.pieces import token_table
from brewlens.views import attention, explore, explore_html, tokens
from tests.synthetic import synthetic_trace
from tests.tiny import LAYERS

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the path")


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.fixture
def open_page(browser):
    """Open a file offline; the second value collects what should not be."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, offline=True)

    def opened(path):
        page, wrong = context.new_page(), []
        page.on("request", lambda r: wrong.append(r.url) if r.url != path.as_uri() else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.goto(path.as_uri())
        return page, wrong

    yield opened
    context.close()


@pytest.fixture(scope="module")
def traced(tiny_model):
    items = tasks.generate("value_tracking", n=12, seed=1)
    return synthetic_trace(n_layers=LAYERS, items=items).with_tables(tokens=token_table(tiny_model, items))


def test_the_explorer_shows_samples_and_decoders(traced, tmp_path, open_page):
    first, other = examples(traced)["resolved"], examples(traced)["unresolved"]
    path = explore_html(traced, tmp_path / "explorer.html", [first, other], per_outcome=0)
    page, wrong = open_page(path)
    page.wait_for_selector(".updatemenu-header")
    drawn = "document.getElementById('brewlens-explorer')"
    lists = page.locator(".updatemenu-header")
    assert lists.count() == 3

    lists.nth(0).click()
    page.locator(".updatemenu-dropdown-button").nth(1).click()
    title = f"right answer {traced.items[other].answer}, model's answer {traced.lifecycle.output[other]}"
    page.wait_for_function(f"() => {drawn}.layout.title.text.includes({title!r})")
    z = page.evaluate(f"() => {drawn}.data[0].z")
    assert np.allclose(z, traced.readouts["probe"].probabilities[other], atol=6e-5)
    alone = explore(traced, other, per_outcome=0)
    assert page.evaluate(f"() => {drawn}.layout.shapes.length") == len(alone.layout.shapes)

    lists.nth(2).click()
    lens = theme.decoder("logit_lens").name
    page.locator(".updatemenu-dropdown-button", has_text=re.compile(f"^{lens}$")).click()
    visible = f"() => {drawn}.data.filter(t => t.type === 'heatmap' && t.visible === true).map(t => t.name)"
    page.wait_for_function(f"() => ({visible})().includes({lens!r})")
    assert page.evaluate(visible) == [theme.decoder("probe").name, lens]

    # The hover text of one cell: layer, class, probability, right answer, output.
    place = page.evaluate(
        f"() => {{const l = {drawn}._fullLayout, b = {drawn}.getBoundingClientRect();"
        "return [b.left + l.xaxis._offset + l.xaxis.d2p('3'), b.top + l.yaxis._offset + l.yaxis.d2p(1)]}"
    )
    page.mouse.move(place[0] - 40, place[1])
    page.mouse.move(*place, steps=5)
    # On a slow machine the cells that the mouse passed are still shown for a while.
    page.wait_for_selector(".hovertext:has-text('layer 1, class 3')")
    said = page.locator(".hovertext").first.text_content()
    p = traced.readouts["probe"].probabilities[other, 1, 3]
    assert "layer 1, class 3" in said and f"p = {p:.4f}" in said and title in said
    assert not page.locator("[data-title*='hare']").count()  # no button that sends numbers away
    assert not wrong


def test_attention_is_drawn(tiny_model, traced, tmp_path, open_page):
    short = min(range(len(traced)), key=lambda row: len(traced.items[row].prompt))
    view = attention(tiny_model, traced, short, layers=[2], heads=[0, 3])
    page, wrong = open_page(view.save(tmp_path / "attention.html"))
    page.wait_for_selector("text=L2 H3")
    assert page.locator("#brewlens-view canvas").count() == 3  # the heads, and one of them large
    assert "Head Selector" in page.locator("#brewlens-view").inner_text()
    assert not wrong


def test_tokens_are_drawn_with_hostile_texts_as_texts(tiny_models, traced, tmp_path, open_page):
    prompt = f"</script><script>document.title='broken'</script>{traced.items[0].prompt}"
    items = (replace(traced.items[0], prompt=prompt), *traced.items.items[1:])
    hostile = replace(traced, items=replace(traced.items, items=items), tables={})
    view = tokens(hostile, 0, model=tiny_models["llama"], layers=[1])  # whose first token is "<s>"
    page, wrong = open_page(view.save(tmp_path / "tokens.html"))
    page.wait_for_selector("text=changed in the twin")
    shown = page.locator(".colored-tokens").inner_text()
    assert re.sub(r"\s", "", shown) == re.sub(r"\s", "", f"<s>{prompt}")
    assert page.title() != "broken"
    assert not wrong


def test_two_views_and_tables_on_one_page(tiny_model, traced, tmp_path, open_page):
    view = tokens(traced, 0)
    parts = [view._repr_html_(), view._repr_html_(), traced._repr_html_(), traced.items[0]._repr_html_()]
    path = tmp_path / "page.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{''.join(parts)}", encoding="utf-8")
    page, wrong = open_page(path)
    page.wait_for_selector("text=changed in the twin")
    page.wait_for_function("() => document.querySelectorAll('.colored-tokens').length === 2")
    assert page.locator("svg[role=img]").count() >= 3
    assert not wrong
