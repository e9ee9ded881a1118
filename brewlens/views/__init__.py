"""Interactive views, all from local files: a plotly explorer of lifecycles, and CircuitsVis drawings.

``explore`` needs a stored trace only; ``attention``, and ``tokens`` if it is to show attention, see a model.
"""

from brewlens.views.attention import attention
from brewlens.views.explorer import explore, explore_html
from brewlens.views.tokens import tokens
from brewlens.views.view import View

__all__ = ["View", "attention", "explore", "explore_html", "tokens"]
