"""The page in a real web browser, without a network: what one clicks and reads is what the trace says."""

from __future__ import annotations

import gzip
import re
import shutil
from dataclasses import replace
from urllib.parse import quote

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from synthetic import CLASSES, synthetic_manifest, synthetic_summary, synthetic_trace

from brewlens import tasks
from brewlens.decoding.readout import Readout
from brewlens.figures import Plate, examples, theme
from brewlens.lifecycle import lifecycle
from brewlens.report import build, page
from brewlens.report.browser import changed
from brewlens.results import Trace
from brewlens.tasks.item import ItemSet

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium or Chrome on the PATH")
ATTACK = "</script><script>window.attacked = 1</script><img src=x onerror='window.attacked=1'> & \"é😀\u2028"
DECODERS = {
    "linear probe": "probe",
    "context-stripped": "context_stripped",
    "logit lens": "logit_lens",
    "context-stripped (raw)": "context_stripped_raw",
    "surface (text only)": "surface",
}


def bare(plate, folder, glyphs):
    """A figure that takes no time: its files are empty."""
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    for kind in ("pdf", "svg", "png", "csv"):
        (folder / "figures" / f"{plate.name}.{kind}").touch()
    return Markup('<svg class="plot" role="img" viewBox="0 0 600 300"></svg>')


def simple(trace):
    """Some of a run's figures, of next to nothing."""
    data = pd.DataFrame({"family": ["computing"], "share": [0.5]})
    rows = {"outcomes": None, "outcomes_paper": None, "accuracy": None}
    rows |= {f"lifecycle_{outcome}": row for outcome, row in examples(trace).items()}
    for name, row in rows.items():
        yield Plate(name, theme.blank(1, 1), data, "A figure", row)


@pytest.fixture(scope="module")
def trace():
    """Items whose ids and programs try to break out of the page."""
    items = tasks.generate(("computing", "conditional"), n=30, seed=3)
    hostile = ItemSet(
        tuple(replace(i, id=f"{i.id} {ATTACK}", prompt=f"{ATTACK}\n{i.prompt}") for i in items),
        {k: replace(i, prompt=f"{ATTACK}\n{i.prompt}") for k, i in items.partners.items()},
        items.provenance,
    )
    made = synthetic_trace(n_layers=6, items=hostile)
    twins = [made.items.twin(item, "counterfactual") for item in made.items]
    programs = {i.id: i.prompt for i in (*made.items, *twins) if i is not None}
    ends = [[0, *range(4, len(p), 4), len(p)] for p in programs.values()]
    tokens = pd.DataFrame({"id": list(programs), "token_ids": [[0] * len(e) for e in ends], "ends": ends})
    return made.with_tables(tokens=tokens)


@pytest.fixture(scope="module")
def report(trace, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "plates", simple)
        patch.setattr(page, "inline", bare)
        folder = tmp_path_factory.mktemp("run")
        return build(folder, trace, synthetic_summary(trace), synthetic_manifest(trace))


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, report):
    """Opens the page; afterwards nothing was asked of a network, and the console stayed silent."""
    contexts, problems = [], []

    def answer(route):
        if route.request.url.startswith(("file:", "data:", "blob:")):
            return route.continue_()
        problems.append(route.request.url)
        return route.abort()

    def opened(fragment="", *, path=None, look=True, **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        context.set_default_timeout(20_000)
        context.route("**/*", answer)
        tab = context.new_page()
        tab.on("console", lambda message: problems.append(message.text))
        tab.on("pageerror", lambda error: problems.append(str(error)))
        tab.goto(f"{(path or report).as_uri()}{fragment}")
        if look:
            tab.locator("#browser").scroll_into_view_if_needed()
            tab.locator("#browser-app").wait_for(state="visible")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


def facts(tab):
    names, values = (tab.locator(f"#b-facts {kind}").all_text_contents() for kind in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def said(chart):
    """Layer, answer and probability that a chart says of its cell; layer None where there is only one."""
    text = chart.locator("output").text_content()
    found = re.fullmatch(r"(?:layer (\d+), )?answer (.+?): ([\d.]+|below 0\.004)(?: \((.*)\))?", text)
    assert found, text
    layer = None if found[1] is None else int(found[1])
    return layer, found[2], 0.0 if found[3].startswith("below") else float(found[3]), found[4] or ""


@needs_browser
def test_family_outcome_next_and_previous(visit, trace):
    tab, frame = visit(), trace.to_frame()
    tab.select_option("#b-family", label="conditional (30)")
    count = int((frame[frame["family"] == "conditional"]["outcome"] == "resolved").sum())
    tab.select_option("#b-outcome", label=f"resolved ({count})")
    rows = frame[(frame["family"] == "conditional") & (frame["outcome"] == "resolved")]
    for place, row in [(k, row) for k, (_, row) in enumerate(rows.iterrows())][:3]:
        assert tab.text_content("#b-place") == f"{place + 1} of {count}: {row['id']}"
        found = facts(tab)
        assert found["Outcome"] == "resolved" and found["Right answer"] == row["answer"]
        marks = [row["fpcl"], row["fcc"], row["fjc"], row["brewing"]]
        shown = ["–" if pd.isna(mark) else str(mark) for mark in marks]
        assert found["First hits"] == "FPCL {}, FCC {}, FJC {}, brewing {}".format(*shown)
        assert found["Model’s answer"].startswith(f"{row['output']}, right")
        assert found["Paper’s rule"] == row["outcome_paper"].replace("_", " ")
        assert f"favours {row['tail_class']} with {row['tail_confidence']:.2f}" == found["Tail"]
        tab.click("#b-next")
    for _ in range(4):
        tab.click("#b-previous")
    assert tab.text_content("#b-place").startswith(f"{count} of {count}: ")  # before the first is the last
    assert tab.get_attribute("#b-place", "role") == "status"


@needs_browser
def test_search_by_answer_and_by_id(visit, trace):
    tab, answers = visit(), list(trace.items.answers)
    tab.fill("#b-search", "7")
    assert tab.text_content("#b-place").startswith(f"1 of {answers.count('7')}: ")
    assert facts(tab)["Right answer"] == "7"
    tab.fill("#b-search", trace.items.ids[40][:20].upper())
    alike = [i for i in trace.items.ids if trace.items.ids[40][:20] in i]
    assert tab.text_content("#b-place") == f"1 of {len(alike)}: {alike[0]}"
    tab.fill("#b-search", "no such sample")
    assert tab.text_content("#b-place") == "No sample is like this."
    assert tab.locator("#b-sample").is_hidden()
    tab.fill("#b-search", "")
    assert tab.locator("#b-sample").is_visible()


@needs_browser
def test_every_cell_says_what_the_readout_says(visit, trace):
    row = 17
    tab = visit(f"#sample={quote(trace.items.ids[row], safe='')}")
    figures = tab.locator("#b-charts figure")
    names = [re.sub(": (available|ready)$", "", t) for t in figures.locator("figcaption").all_text_contents()]
    assert names == list(DECODERS)
    step = 1 / 255
    for number, decoder in enumerate(DECODERS.values()):
        exact, chart = trace.readouts[decoder].probabilities[row], figures.nth(number)
        chart.locator("svg").focus()
        for key in ("ArrowDown",) * 6 + ("ArrowLeft",) * 9:
            tab.keyboard.press(key)
        seen = np.full(exact.shape, np.nan)
        for layer in range(len(exact)):
            for _ in CLASSES:
                at, answer, p, notes = said(chart)
                assert at == (layer if len(exact) > 1 else None)
                seen[layer, CLASSES.index(answer)] = p
                assert ("right" in notes) == (answer == trace.items[row].answer)
                assert ("the model’s" in notes) == (answer == trace.lifecycle.output[row])
                tab.keyboard.press("ArrowRight")
            for key in ("ArrowUp",) + ("ArrowLeft",) * 9:
                tab.keyboard.press(key)
        assert np.abs(seen - exact).max() <= step
        label = chart.locator("svg").get_attribute("aria-label")
        for layer, best in enumerate(exact.argmax(axis=1)):
            shown = re.search(rf"[. ]{layer}: (\d) \(([\d.]+)\)", label)
            assert CLASSES.index(shown[1]) == best
            assert float(shown[2]) == pytest.approx(exact[layer, best], abs=step + 0.005)


@needs_browser
def test_hovering_says_the_cell_under_the_pointer(visit, trace):
    row = next(r for r, o in enumerate(trace.lifecycle.outcome) if o == "overprocessed")
    tab = visit(f"#sample={quote(trace.items.ids[row], safe='')}")
    chart = tab.locator("#b-charts figure").nth(1)
    ground = chart.locator(".ground")
    ground.scroll_into_view_if_needed()
    box = ground.bounding_box()
    for layer, answer in ((0, 0), (2, 7), (5, 9)):
        tab.mouse.move(
            box["x"] + box["width"] * (answer + 0.5) / len(CLASSES),
            box["y"] + box["height"] * (1 - (layer + 0.5) / trace.n_layers),
        )
        at, what, p, _ = said(chart)
        assert (at, what) == (layer, CLASSES[answer])
        assert abs(p - trace.readouts["context_stripped"].probabilities[row, layer, answer]) <= 1 / 255
    tab.mouse.move(0, 0)
    assert chart.locator("output").text_content().strip() == ""
    labels = chart.locator("text:not([class])").all_text_contents()
    marks = {name for label in labels for name in label.split(", ")}
    assert {"FCC", "FJC"} <= marks and "FPCL" not in marks


@needs_browser
def test_the_table_says_the_same(visit, trace):
    row = 5
    tab = visit(f"#sample={quote(trace.items.ids[row], safe='')}")
    tab.click("#b-table summary")
    tab.locator("#b-table tbody tr").nth(3).wait_for()  # browsers say later that it was opened
    cells = tab.locator("#b-table tbody tr").nth(3).locator("td").all_text_contents()
    for cell, decoder in zip(cells, DECODERS.values(), strict=True):
        if decoder == "surface":
            assert cell == "–"
            continue
        exact = trace.readouts[decoder].probabilities[row, 3]
        assert cell.split()[0] == CLASSES[exact.argmax()]
        assert float(cell.split()[1].rstrip(";")) == pytest.approx(exact.max(), abs=1 / 255)
    tab.keyboard.press("Escape")
    tab.click("#b-next")
    assert tab.locator("#b-table tbody tr").count() == trace.n_layers


@needs_browser
def test_programs_tokens_and_twins_are_text(visit, trace):
    for row in (0, 33):
        item = trace.items[row]
        twin = trace.items.twin(item, "counterfactual")
        tab = visit(f"#sample={quote(item.id, safe='')}")
        assert tab.text_content("#b-program") == item.prompt
        assert tab.text_content("#b-twin") == twin.prompt
        tokens = tab.locator("#b-program .token").all_text_contents()
        assert tokens == [item.prompt[k : k + 4] for k in range(0, len(item.prompt), 4)]
        assert tab.locator("#b-program .token.last").text_content() == tokens[-1]
        for target, text, other in (("#b-program", item, twin), ("#b-twin", twin, item)):
            marked = "".join(tab.locator(f"{target} mark").all_text_contents())
            assert marked == text.prompt[slice(*changed(text.prompt, other.prompt))] != ""
        assert facts(tab)["Twin’s answer"] == twin.answer and facts(tab)["Item"].startswith(item.id)
        assert tab.evaluate("window.attacked") is None
        assert tab.locator("#b-sample img, #b-sample script").count() == 0


@needs_browser
def test_a_run_without_tokens_twins_and_onsets_will_do(visit, trace, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "plates", simple)
    monkeypatch.setattr(page, "inline", bare)
    alone = ItemSet(tuple(replace(item, twins={}, factors={}) for item in trace.items))
    tables = {name: table for name, table in trace.tables.items() if name not in ("tokens", "onsets")}
    poor = replace(trace, items=alone, tables=tables, onsets={})
    tab = visit(path=build(tmp_path, poor, synthetic_summary(poor), {}))
    item = alone[next(iter(examples(poor).values()))]
    assert tab.text_content("#b-program") == item.prompt and tab.locator("#b-program .token").count() == 0
    assert tab.locator("#b-twin-side").is_hidden() and tab.locator("#b-program mark").count() == 0
    found = facts(tab)
    assert found["Twin’s answer"] == "no twin" and found["Item"] == item.id
    assert not {"Onsets", "By onsets", "p(ever)"} & set(found)


@needs_browser
def test_arrow_keys_change_the_sample_and_the_address(visit, trace):
    tab = visit()
    tab.locator("#b-next").focus()
    first = tab.text_content("#b-place")
    tab.keyboard.press("ArrowRight")
    second = tab.text_content("#b-place")
    start = next(iter(examples(trace).values()))
    assert first.endswith(trace.items.ids[start]) and second.endswith(trace.items.ids[start + 1])
    assert tab.evaluate("decodeURIComponent(location.hash)") == f"#sample={trace.items.ids[start + 1]}"
    tab.keyboard.press("ArrowLeft")
    assert tab.text_content("#b-place") == first
    tab.locator("#b-search").focus()
    tab.keyboard.press("ArrowRight")  # there it moves the cursor
    assert tab.text_content("#b-place") == first
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline != "none"


@needs_browser
def test_an_address_opens_its_sample(visit, trace):
    tab = visit("#sample=nobody")
    assert tab.text_content("#b-place") == "Sample nobody is not in this page."
    link = tab.locator(".open-in-browser a").last
    tab.locator("details.sample").last.evaluate("element => { element.open = true; }")
    link.click()
    last = trace.items.ids[list(examples(trace).values())[-1]]
    tab.wait_for_function("id => document.querySelector('#b-place').textContent.endsWith(id)", arg=last)
    assert tab.locator("#b-place").evaluate("element => element.getBoundingClientRect().top") < 900


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_one_way_only(visit, scheme):
    tab = visit(viewport={"width": 390, "height": 800}, color_scheme=scheme, has_touch=True)
    tab.evaluate("for (const element of document.querySelectorAll('details')) element.open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390
    ink, paper = (
        [int(v) for v in re.findall(r"\d+", tab.evaluate(f"getComputedStyle(document.body).{name}"))[:3]]
        for name in ("color", "backgroundColor")
    )
    assert (sum(ink) > sum(paper)) == (scheme == "dark") and abs(sum(ink) - sum(paper)) > 500
    widths = tab.locator("#browser button, #browser select").evaluate_all(
        "all => all.map(element => element.getBoundingClientRect().height)"
    )
    assert min(widths) >= 36


@needs_browser
def test_print_opens_what_is_folded_and_leaves_the_browser_out(visit):
    tab = visit()
    tab.emulate_media(media="print")
    assert tab.locator("#browser").is_hidden() and tab.locator("nav").is_hidden()
    assert tab.locator(".printed").first.is_visible() and tab.locator(".files").first.is_hidden()
    tab.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert tab.locator("details:not([open]):not(#b-table)").count() == 0
    tab.evaluate("dispatchEvent(new Event('afterprint'))")
    assert tab.locator("details:not([open]):not(#b-table)").count() > 2
    assert tab.pdf().startswith(b"%PDF")


@needs_browser
def test_without_script_the_typical_samples_remain(visit, trace):
    tab = visit(java_script_enabled=False, look=False)
    assert tab.locator("#browser-message").is_visible() and tab.locator("#browser-app").is_hidden()
    assert "needs JavaScript" in tab.text_content("#browser-message")
    assert tab.locator("details.sample").count() == len(examples(trace))
    assert tab.locator(".open-in-browser").first.is_hidden() and tab.locator("#copy").is_hidden()
    typical = trace.items[next(iter(examples(trace).values()))]
    assert tab.locator(".sample pre").first.text_content() == typical.prompt


@needs_browser
def test_a_browser_that_cannot_unpack_says_so(visit):
    tab = visit(look=False)
    tab.add_init_script("delete window.DecompressionStream")
    tab.reload()
    assert "lacks DecompressionStream" in tab.text_content("#browser-message")
    assert tab.locator("#browser-app").is_hidden()


@needs_browser
def test_nothing_is_unpacked_before_it_is_looked_at(visit):
    tab = visit(look=False)
    tab.wait_for_timeout(200)
    assert tab.locator("#browser-app").is_hidden()
    assert tab.text_content("#browser-message") == "The samples are being unpacked."


@needs_browser
def test_citation_and_numbers_are_handed_out(visit, trace):
    tab = visit(look=False, accept_downloads=True)
    tab.click("#copy")
    tab.wait_for_function("document.querySelector('#copied').textContent !== ''")
    assert tab.evaluate("getSelection().toString()").startswith("@misc{brewing2026,")
    with tab.expect_download() as waiting:
        tab.locator("a.numbers").first.click()
    assert waiting.value.suggested_filename == "outcomes.csv.gz"
    numbers = gzip.decompress(waiting.value.path().read_bytes()).decode()
    assert numbers.splitlines()[0].startswith("family,")


def large(layers):
    """6 x 810 items of noise, which packs worse than readouts do, and of no analysis."""
    items = tasks.generate(tasks.FAMILIES, n=27, seed=0)
    copies = tuple(
        replace(item, id=f"{item.id}.{k}", prompt=f"# {k * 7919}\n{item.prompt}")
        for k in range(30)
        for item in items
    )
    items = ItemSet(copies, items.partners)
    rng, n = np.random.default_rng(0), len(items)
    names = ("probe", "context_stripped", "logit_lens", "context_stripped_raw", "context_stripped_pooled")
    readouts = {
        name: Readout(rng.normal(0, 2, (n, layers, 10)).astype(np.float32), CLASSES, name, items.ids)
        for name in names
    }
    life = lifecycle(
        readouts["probe"],
        readouts["context_stripped"],
        families=[item.family for item in items],
        answers=items.answers,
        output=rng.integers(0, 10, n),
        format_miss=np.zeros(n, bool),
    )
    return Trace(items, np.arange(n) % 5, readouts, life, "large")


@pytest.mark.parametrize("layers", [12, 28])
def test_a_large_run_stays_below_ten_megabytes(layers, monkeypatch, tmp_path):
    trace = large(layers)
    assert len(trace) == 6 * 810
    figure, data = theme.blank(1, 1), pd.DataFrame({"x": [0]})
    heavy = [Plate(f"figure_{k}", figure, data, "A figure") for k in range(30)]
    monkeypatch.setattr(page, "plates", lambda trace: iter(heavy))
    monkeypatch.setattr(page, "inline", lambda *_: Markup(f"<svg class='plot'>{'x' * 180_000}</svg>"))
    small = synthetic_trace(9, n_layers=4)
    path = build(tmp_path, trace, synthetic_summary(small), {})
    text = path.read_text("utf-8")
    assert 5_400_000 < path.stat().st_size < 10_000_000
    if layers == 12:
        assert "All 4860 samples." in text
    else:
        shown = int(re.search(r"(\d+) of 4860 samples, taken evenly", text)[1])
        assert 1000 < shown < 4860
