"""The lifecycle explorer: any sample, any decoder, every number by hovering; one page that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brewlens.figures import theme
from brewlens.figures.lifecycle import decoders_of
from brewlens.files import replacing
from brewlens.views.choice import Sample, chosen_rows
from brewlens.views.states import DOMAINS, State, state

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from brewlens.results import Trace

_FONT = "system-ui, -apple-system, 'Segoe UI', sans-serif"
# By default plotly has a button that sends the numbers to a server.
_BUTTONS = ("sendChartToCloud", "select2d", "lasso2d")
_CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False}
_ABOVE, _BELOW, _ROW = 136, 134, 27  # pixels: margins, and the height of a layer


def explore(
    trace: Trace,
    sample: Sample | Sequence[Sample] | None = None,
    *,
    family: str | None = None,
    per_outcome: int = 3,
) -> Figure:
    """Lifecycles to look around in: choose a sample and two decoders, hover for layer, class, probability.

    Two heat maps, layer by answer class, from white (0) to the decoder's colour (1): availability on the
    left, readiness on the right, unless other decoders are chosen from the lists above them. A dot marks the
    class that is most probable at a layer, filled where it is right; a frame the right answer. Lines mark
    FPCL, FCC and FJC, which are those of the trace's own two decoders whatever is shown. Third, the
    probability of the right answer by every decoder; click a name to take its line out or in. Then the
    program.

    Args:
        trace: The trace; no model is needed.
        sample: Row or id, or several; the first is shown first. Any number up to 60 can be chosen from.
        family: Take typical samples from this family.
        per_outcome: How many typical samples of each outcome are offered besides.

    Returns:
        A plotly figure; in a notebook it shows itself, from plotly's own files. A page that a notebook is
        exported to leaves it out: put ``IPython.display.IFrame(explore_html(...), "100%", 640)`` there.

    Raises:
        ValueError: If a sample or the family is unknown, or there would be none or more than 60 samples.
    """
    import plotly.graph_objects as go

    rows, said = chosen_rows(trace, sample, family, per_outcome)
    own = [readout.decoder for readout in decoders_of(trace)]
    deep = [name for name, readout in trace.readouts.items() if readout.n_layers == trace.n_layers]
    names = list(dict.fromkeys([*own, *deep]))
    states = [state(trace, row, names, f"{trace.model}: {said}") for row in rows]
    traces = [part for side in (0, 1) for name in names for part in _panel(go, name, side, name == own[side])]
    lines = [_line(go, name, shown=name in own) for name in names]
    every = [*traces, _output(go), *lines]
    for drawn, values in zip(every, states[0].traces, strict=True):
        drawn.update({name: value for name, value in values.items() if name != "symbol"})
        if "symbol" in values:
            drawn.update(marker={"symbol": values["symbol"]})
    figure = go.Figure(every, layout=_layout(trace, states[0]))
    figure.update_layout(updatemenus=[_samples(states), *(_choices(names, own, side) for side in (0, 1))])
    return figure


def explore_html(
    trace: Trace,
    path: str | Path,
    sample: Sample | Sequence[Sample] | None = None,
    *,
    family: str | None = None,
    per_outcome: int = 3,
) -> Path:
    """Write :func:`explore` as one HTML file with plotly in it (5 MB), which opens offline.

    Arguments and errors as in :func:`explore`; equal traces give equal bytes.
    """
    figure = explore(trace, sample, family=family, per_outcome=per_outcome)
    page = figure.to_html(include_plotlyjs=True, config=_CONFIG, div_id="brewlens-explorer")
    path = Path(path)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _panel(go: Any, name: str, side: int, visible: bool) -> list[Any]:
    """Heat map and dots of one decoder in the left (0) or right (1) panel."""
    look = theme.decoder(name)
    place = {"xaxis": ("x", "x2")[side], "visible": visible, "name": look.name}
    colors = [[0, theme.PAPER], [1, look.color]]
    marker = {"size": 7, "color": theme.INK, "line": {"width": 1.2, "color": theme.INK}}
    return [
        go.Heatmap(zmin=0, zmax=1, colorscale=colors, showscale=False, xgap=1, ygap=1, **place),
        go.Scatter(mode="markers", marker=marker, showlegend=False, hoverinfo="skip", **place),
    ]


def _output(go: Any) -> Any:
    marker = {"size": 11, "color": theme.INK}
    return go.Scatter(mode="markers", marker=marker, xaxis="x2", showlegend=False, name="model's answer")


def _line(go: Any, name: str, *, shown: bool) -> Any:
    look = theme.decoder(name)
    return go.Scatter(
        mode="lines+markers",
        name=look.name,
        line={"color": look.color, "width": 2},
        marker={"size": 5},
        xaxis="x3",
        visible=True if shown else "legendonly",
    )


def _layout(trace: Trace, first: State) -> dict[str, Any]:
    layers, classes = trace.n_layers, first.classes
    marks = list(range(0, layers, 1 if layers <= 16 else 2 if layers <= 32 else 4))
    axis = {"zeroline": False, "fixedrange": True, "linecolor": theme.MUTED, "tickcolor": theme.MUTED}
    named = {"type": "category", "categoryorder": "array", "categoryarray": list(classes), "showgrid": False}
    title = {"text": "answer class", "standoff": 6}
    heat = {**axis, **named, "title": title, "range": [-0.5, len(classes) - 0.5]}
    share = {"range": [-0.03, 1.03], "tickvals": [0, 0.5, 1], "gridcolor": theme.GRID}
    return {
        "title": {"text": first.title, "x": 0.012, "y": 0.975, "yanchor": "top", "font": {"size": 17}},
        "height": min(1100, _ABOVE + _BELOW + _ROW * (layers + 1)),
        "margin": {"l": 62, "r": 12, "t": _ABOVE, "b": _BELOW},
        "font": {"family": _FONT, "size": 12, "color": theme.INK},
        "paper_bgcolor": theme.PAPER,
        "plot_bgcolor": theme.PAPER,
        "hoverlabel": {
            "bgcolor": theme.PAPER,
            "font": {"color": theme.INK},
            "bordercolor": theme.MUTED,
        },
        "xaxis": {**heat, "domain": DOMAINS[0]},
        "xaxis2": {**heat, "domain": DOMAINS[1]},
        "xaxis3": {
            **axis,
            **share,
            "domain": DOMAINS[2],
            "title": {"text": "p(right answer)", "standoff": 6},
        },
        "yaxis": {
            **axis,
            "range": [-0.6, layers + 0.5],
            "tickvals": [*marks, layers],
            "ticktext": [*map(str, marks), "output"],
            "showgrid": False,
            "title": {"text": "layer"},
        },
        "legend": {"orientation": "h", "x": 0, "y": 0.01, "yref": "container", "yanchor": "bottom"},
        "modebar": {"remove": list(_BUTTONS)},
        "shapes": first.shapes,
        "annotations": first.annotations,
    }


def _samples(states: Sequence[State]) -> dict[str, Any]:
    """The list of samples. Each trace is given each attribute, an entry per trace; what it lacks is null."""
    buttons = []
    for at in states:
        traces = {name: [t.get(name) for t in at.traces] for name in ("x", "z", "hovertemplate")}
        traces["marker.symbol"] = [t.get("symbol") for t in at.traces]
        layout = {"title.text": at.title, "shapes": at.shapes, "annotations": at.annotations}
        buttons.append({"label": at.label, "method": "update", "args": [traces, layout]})
    return _menu(buttons, x=0.0, active=0, lift=54)


def _choices(names: Sequence[str], own: Sequence[str], side: int) -> dict[str, Any]:
    """The list above a panel, which says what the panel shows."""
    at = [2 * len(names) * side + k for k in range(2 * len(names))]
    buttons = [
        {
            "label": theme.decoder(name).name,
            "method": "restyle",
            "args": [{"visible": [other == name for other in names for _ in range(2)]}, at],
        }
        for name in names
    ]
    return _menu(buttons, x=DOMAINS[side][0], active=list(names).index(own[side]), lift=8)


def _menu(buttons: list[dict[str, Any]], *, x: float, active: int, lift: int) -> dict[str, Any]:
    """A list ``lift`` pixels above the panels."""
    place = {"x": x, "y": 1.0, "xanchor": "left", "yanchor": "bottom", "pad": {"b": lift}}
    look = {"bgcolor": theme.PAPER, "bordercolor": theme.MUTED, "font": {"size": 12, "color": theme.INK}}
    return {"type": "dropdown", "buttons": buttons, "active": active, "showactive": True, **place, **look}
