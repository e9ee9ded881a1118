"""The page: one file that loads nothing, states the summary's numbers, and escapes what it quotes."""

from __future__ import annotations

import base64
import gzip
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import pytest
from markupsafe import Markup
from synthetic import synthetic_manifest, synthetic_summary, synthetic_trace

from brewlens.figures import examples
from brewlens.figures.plates import makers
from brewlens.report import build, page
from brewlens.report.placing import placed
from brewlens.study.analysis import analyse
from brewlens.tasks.item import ItemSet

ATTACK = "<script>alert('x')</script> & <b>bold</b>"


class Page(HTMLParser):
    """What a browser would load, follow and name."""

    def __init__(self, text: str):
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append(tag)
        self.attributes.append((tag, attributes))
        self.ids += [attributes["id"]] if "id" in attributes else []
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster", "background") or (name == "href" and tag != "a"):
                self.loads.append(value)
            elif name == "href":
                self.links.append(value)
            elif name == "xlink:href":
                self.loads.append(value)


def drawing(*stems):
    """Draws only the figures whose names begin so."""

    def some(trace):
        return (make() for name, make in makers(trace).items() if name.startswith(stems))

    return some


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run whose programs try to break out of the page, with the figures that take least time."""
    trace = synthetic_trace(30, ("computing", "loop"), n_layers=5)
    hostile = [replace(item, prompt=f"{ATTACK}\n{item.prompt}") for item in trace.items]
    trace = replace(trace, items=ItemSet(tuple(hostile), trace.items.partners, trace.items.provenance))
    folder = tmp_path_factory.mktemp("run")
    summary = synthetic_summary(trace)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "plates", drawing("outcomes", "accuracy", "lifecycle"))
        path = build(folder, trace, summary, synthetic_manifest(trace))
    return trace, summary, path, path.read_text("utf-8")


def test_it_loads_nothing(run):
    _, _, path, text = run
    found = Page(text)
    assert path.name == "report.html"
    assert found.loads and all(value.startswith(("#", "data:image/")) for value in found.loads)
    assert [a for tag, a in found.attributes if tag == "script"] == [
        {"type": "application/octet-stream", "id": "browser-data"},
        {},
    ]
    (policy,) = (a["content"] for _, a in found.attributes if "http-equiv" in a)
    (script,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; ") and f"script-src 'sha256-{digest}'" in policy
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(found.tags)
    assert "@import" not in text
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "http" not in script.replace("http://www.w3.org/2000/svg", "")
    assert {link for link in found.links if "//" in link and not link.startswith("data:")} == {
        "https://arxiv.org/abs/2606.17648"
    }
    assert path.stat().st_size < 5e6


def test_links_lead_to_files_and_places_that_are_there(run):
    _, _, path, text = run
    found = Page(text)
    inside = [link for link in found.links + found.loads if link.startswith("#") and "=" not in link]
    samples = [unquote(link.removeprefix("#sample=")) for link in found.links if link.startswith("#sample=")]
    assert samples == [run[0].items.ids[row] for row in examples(run[0]).values()]
    assert inside and {link[1:] for link in inside} <= set(found.ids)
    files = [link for link in found.links if link.startswith("figures/")]
    assert {link.rsplit(".", 1)[1] for link in files} == {"pdf", "svg", "png", "csv"}
    assert all((path.parent / link).stat().st_size for link in files)
    assert sorted(p.name for p in path.parent.iterdir()) == ["figures", "report.html"]
    assert {p.name for p in (path.parent / "figures").iterdir()} == {link.split("/")[1] for link in files}


def test_every_figure_of_a_run_has_a_section(run):
    sections = placed(makers(run[0]))
    assert sections["more"] == [] and sum(map(len, sections.values())) == len(makers(run[0]))


def test_no_two_elements_share_an_id(run):
    found = Page(run[3])
    twice = {i for i in found.ids if found.ids.count(i) > 1}
    assert not twice


def test_it_states_every_number_of_the_outcome_tables(run):
    _, summary, _, text = run
    for group in (*summary["families"].values(), summary["overall"]):
        shares = [group[k] for k in ("accuracy", "format_miss", "no_brewing", "surface", "majority")]
        shares += [group["probe_best"], group["context_stripped_best"]]
        shares += [*group["outcomes"].values(), *group["outcomes_paper"].values()]
        for s in shares:
            value, low, high = (f"{100 * s[key]:.1f}" for key in ("value", "low", "high"))
            assert f'<span class="v">{value}</span><span class="ci">{low}–{high}</span>' in text
        for mark in group["landmarks"].values():
            interval = f"{mark['low']:.3f}–{mark['high']:.3f}"
            assert f'>{mark["mean"]:.3f}<span class="ci">{interval}</span>' in text
            assert f">{mark['n']}</td>" in text


def table_of(text, caption):
    """Row heading -> cells of the table whose caption starts so; and its column headings."""

    def plain(html):
        return re.sub(r"<[^>]*>", "", html).strip()

    (table,) = re.findall(rf"<caption><span>{caption}.*?</table>", text, flags=re.DOTALL)
    head, *rows = re.findall(r"<tr.*?</tr>", table, flags=re.DOTALL)
    rows = [[plain(cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row, flags=re.DOTALL)] for row in rows]
    return [plain(cell) for cell in re.findall(r"<th.*?</th>", head)], {row[0]: row[1:] for row in rows}


def test_the_outcome_table_has_each_number_in_its_row_and_column(run):
    _, summary, _, text = run
    for rule, key in (("repaired", "outcomes"), ("paper’s", "outcomes_paper")):
        head, rows = table_of(text, f"Outcomes by the {rule} rule")
        assert head == ["Family", "n with FPCL", *(o for o in summary["overall"][key])]
        assert list(rows) == ["computing", "loop", "overall"]
        for family, cells in rows.items():
            group = summary["families"].get(family, summary["overall"])
            assert cells[0] == str(group["outcomes"]["resolved"]["n"])
            for cell, s in zip(cells[1:], group[key].values(), strict=True):
                assert cell == f"{100 * s['value']:.1f}{100 * s['low']:.1f}–{100 * s['high']:.1f}"


def test_it_states_every_configuration(run):
    _, summary, _, text = run
    assert len(summary["configurations"]) == 54
    cells = re.findall(r'<td class="num" style="--v:[\d.]+">(.*?)</td>', text)
    assert len(cells) == 54
    for cell in summary["configurations"]:
        s = cell["accuracy"]
        assert any(f">{100 * s['value']:.1f}<" in c and f"n = {s['n']}<" in c for c in cells)


def test_programs_are_text_and_never_markup(run):
    trace, _, _, text = run
    assert "<script>alert" not in text and "<b>bold" not in text
    shown = text.count("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;")
    assert shown == len(set(trace.lifecycle.outcome.tolist()))
    assert text.count('<details class="sample"') == shown


def test_the_page_alone_has_every_figures_numbers(run):
    _, _, path, text = run
    links = {a["download"]: a["href"] for tag, a in Page(text).attributes if "download" in a}
    figures = sorted(file.name for file in (path.parent / "figures").glob("*.csv"))
    assert sorted(links) == [f"{name}.gz" for name in figures]
    for name in figures:
        data = gzip.decompress(base64.b64decode(links[f"{name}.gz"].split(",")[1]))
        assert data == (path.parent / "figures" / name).read_bytes()


def test_it_says_what_chance_gives(run):
    _, summary, _, text = run
    assert f"{0.9**5:.3f}, so" in text and summary["first_hit_chance"]["no_fpcl"] == pytest.approx(0.9**5)
    assert "Against permuted answers" in text and "Against shifts along depth" in text


def test_it_says_what_was_run(run):
    trace, _, _, text = run
    for word in ("3f1c9a77d2", "b81e02", trace.items.fingerprint, "4.3.0", "1 min 4 s", "tail_start"):
        assert word in text


def test_it_is_accessible(run):
    text = run[3]
    found = Page(text)
    heads = [attributes for tag, attributes in found.attributes if tag == "th"]
    assert heads and all(a.get("scope") in ("col", "row", "colgroup") for a in heads)
    assert found.tags.count("caption") == found.tags.count("table") >= 6
    plots = [a for tag, a in found.attributes if a.get("class") == "plot"]
    assert len(plots) == found.tags.count("figure")
    assert all(a["role"] == "img" and len(a["aria-label"]) > 40 for a in plots)
    assert found.tags.count("h1") == 1 and ("html", {"lang": "en"}) in found.attributes


def test_the_same_run_gives_the_same_bytes(run, monkeypatch, tmp_path):
    trace, summary, _, _ = run
    some = ("outcomes_paper", "lifecycle_resolved")
    monkeypatch.setattr(page, "plates", drawing(*some))
    first, again = (build(tmp_path / name, trace, summary, synthetic_manifest(trace)) for name in "ab")
    assert first.read_bytes() == again.read_bytes()
    for name in (f"{stem}.{kind}" for stem in some for kind in ("pdf", "svg", "png", "csv")):
        files = [path.parent / "figures" / name for path in (first, again)]
        assert files[0].read_bytes() == files[1].read_bytes(), name


def test_a_bare_manifest_and_one_family_will_do(monkeypatch, tmp_path):
    monkeypatch.setattr(page, "inline", lambda *_: Markup("<svg></svg>"))
    trace = synthetic_trace(8, ("computing",), n_layers=4)
    trace = trace.select([r for r, o in enumerate(trace.lifecycle.outcome) if o == "no_brewing"])
    bare = replace(trace, items=ItemSet(tuple(replace(i, factors={}) for i in trace.items)))
    bare = analyse(bare, resamples=99)
    text = build(tmp_path, bare, synthetic_summary(bare), {}).read_text("utf-8")
    text = re.sub(r"<(style|script)\b.*?</\1>|data:application[^\"]*", "", text, flags=re.DOTALL)
    assert "None" not in text.replace("None was picked", "")
    assert "overall</th>" not in text and "nan" not in text


def test_a_summary_that_lacks_a_key_is_refused_before_anything_is_written(run, tmp_path):
    trace, summary, _, _ = run
    lame = {**summary, "overall": {k: v for k, v in summary["overall"].items() if k != "surface"}}
    del lame["short"]
    with pytest.raises(ValueError, match=r"found none of short, overall\.surface"):
        build(tmp_path, trace, lame, {})
    assert list(tmp_path.iterdir()) == []
