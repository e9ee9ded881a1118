"""Sphinx configuration. `make docs` builds with warnings as errors and without a network."""

from __future__ import annotations

import re
from typing import Any

from latex2mathml.converter import convert
from sphinx.domains.python import PyObject
from sphinx.util.nodes import make_refnode

import brewlens

project = "brewlens"
author = copyright = "The brewlens authors"
version = release = brewlens.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "run"]
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

# Signatures as they are written, `Float[Tensor, "sample layer"]`, without the modules of each type.
python_use_unqualified_type_names = True
autodoc_preserve_defaults = True
autodoc_default_options = {"members": True, "exclude-members": "model_config"}
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # fields of a class are listed once, in its docstring
napoleon_attr_annotations = False  # their types are in the signature
maximum_signature_line_length = 100
toc_object_entries_show_parents = "hide"

# Every reference of a docstring must lead somewhere; types of other libraries and inner modules need not.
nitpicky = True
nitpick_ignore_regex = [("py:class", ".*"), ("py:mod", ".*"), ("py:obj", r"typing\.Literal.*")]

html_theme = "furo"
html_title = "brewlens"
html_static_path = ["_static"]
html_css_files = ["brewlens.css"]
html_copy_source = html_show_sphinx = False
html_math_renderer = "mathml"
pygments_style, pygments_dark_style = "friendly", "github-dark"
ANNOTATED = re.compile(r"(?:~?typing\.)?Annotated\[(~?\w+), (?:[^\[\]]|\[[^\]]*\])*\]")
_FONTS = 'system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", "DejaVu Sans", sans-serif'
_MONO = 'ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace'


def _colours(ink: str, muted: str, line: str, page: str, side: str, accent: str) -> dict[str, str]:
    """The colours of the report."""
    return {
        "font-stack": _FONTS,
        "font-stack--monospace": _MONO,
        "color-foreground-primary": ink,
        "color-foreground-secondary": muted,
        "color-foreground-muted": muted,
        "color-background-primary": page,
        "color-background-secondary": side,
        "color-background-border": line,
        "color-brand-primary": accent,
        "color-brand-content": accent,
        "color-brand-visited": accent,
        "color-api-name": accent,
        "color-api-pre-name": muted,
        "color-api-keyword": muted,
    }


html_theme_options = {
    "light_css_variables": _colours("#1d2329", "#5c6670", "#dde2e6", "#ffffff", "#f6f7f8", "#0b6199"),
    "dark_css_variables": _colours("#e7ebef", "#a3aeb8", "#323a42", "#12161a", "#1a1f24", "#6db8ec"),
    "navigation_with_keys": True,
}


def _inline(self: Any, node: Any) -> None:
    self.body.append(convert(node.astext()))
    raise _skip()


def _block(self: Any, node: Any) -> None:
    self.body.append(f'<div class="formula">{convert(node.astext(), display="block")}</div>')
    raise _skip()


def _skip() -> Exception:
    from docutils.nodes import SkipNode

    return SkipNode()


def _exported(app: Any, env: Any, node: Any, text: Any) -> Any:
    """Where a docstring names an object by the module that defines it: the page of the room that shows it."""
    parts = node["reftarget"].split(".")
    python = env.get_domain("py")
    alias = parts == ["Landmarks"] and node.get("py:module") == "brewlens.intervention"  # not the class
    if node.get("refdomain") != "py" or alias:
        return None
    for tail in (".".join(parts[-2:]), parts[-1]):
        found = [name for name in python.objects if name == tail or name.endswith(f".{tail}")]
        if found:
            name = min(found, key=len)
            at = python.objects[name]
            return make_refnode(app.builder, node["refdoc"], at.docname, at.node_id, text, name)
    return None


def _plain(app: Any, what: str, name: str, obj: Any, options: Any, given: str, returns: str) -> Any:
    """A signature without what a field is checked against: ``int``, not ``Annotated[int, Ge(ge=2)]``."""
    return given and ANNOTATED.sub(r"\1", given), returns


def setup(app: Any) -> dict[str, bool]:
    """Formulas as MathML, which browsers draw themselves; fields of classes under their usual name."""
    app.add_html_math_renderer("mathml", (_inline, None), (_block, None))
    app.connect("missing-reference", _exported)
    app.connect("autodoc-process-signature", _plain)
    for field in PyObject.doc_field_types:
        if field.name == "variable":
            field.label = "Attributes"
    return {"parallel_read_safe": True, "parallel_write_safe": True}
