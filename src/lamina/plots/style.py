"""What all figures share: sizes, colours that colour-blind people tell apart, names as plain text.

Colours: Okabe and Ito 2008, "Color universal design"; maps: matplotlib's cividis and Blues.
"""

from __future__ import annotations

import functools
import io
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ParamSpec

from lamina.core.errors import require_extra

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

P = ParamSpec("P")

BLUE, ORANGE, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
INK, GREY, PALE = "#222222", "#767676", "#D9D9D9"

# Names come from files: "$" in them is no formula, and nothing is read from a user's style sheet.
_STYLE: dict[str, Any] = {
    "text.parse_math": False,
    "text.usetex": False,
    "font.family": ["DejaVu Sans"],
    "font.size": 10.0,
    "axes.titlesize": 11.0,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10.0,
    "axes.labelsize": 10.0,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.unicode_minus": True,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": PALE,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 9.0,
    "text.color": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "svg.fonttype": "none",
    "svg.hashsalt": "lamina",
}


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Have a function make its figure in the house style, whatever the user's is."""

    @functools.wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> Figure:
        matplotlib: Any = require_extra("matplotlib", "plots")
        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(_STYLE)
            return function(*args, **kwargs)

    return inner


def new_figure(width: float = 6.4, height: float = 4.0) -> tuple[Figure, Axes]:
    """Return an empty figure (inches) and its axes; no window, no global state."""
    figure: Figure = require_extra("matplotlib.figure", "plots").Figure(
        figsize=(width, height), layout="constrained"
    )
    return figure, figure.add_subplot()


def plain(text: object, most: int = 36) -> str:
    """Return text for a label: one line of printable characters, cut after ``most``."""
    line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text))
    return line if len(line) <= most else f"{line[: most - 1]}…"


def write_numbers_out(*axes: Axis) -> None:
    """Have axes write numbers whole, no power of ten apart; commas from 10,000: 2024 is a year."""

    def written(value: float, _: Any) -> str:
        text = f"{value:,.10g}" if abs(value) >= 10_000 else f"{value:.10g}"
        return text.replace("-", "−")

    for axis in axes:
        axis.set_major_formatter(written)


def use_log_scale(axis: Axis) -> None:
    """Give an axis a logarithmic scale with plain numbers: 0.01, not a power in formula signs."""
    ticker: Any = require_extra("matplotlib.ticker", "plots")

    class Plain(ticker.LogFormatter):  # type: ignore[misc]  # it knows which ticks have room
        def __call__(self, value: float, pos: Any = None) -> str:
            return f"{value:g}" if super().__call__(value, pos) else ""

    set_scale: Any = getattr(axis.axes, f"set_{axis.axis_name}scale")  # type: ignore[attr-defined]
    set_scale("log")
    axis.set_major_formatter(Plain())
    axis.set_minor_formatter(Plain(minor_thresholds=(1.5, 0.5)))


def to_svg(figure: Figure) -> bytes:
    """Return a figure as SVG; the same figure gives the same bytes."""
    return _written(figure, "svg", {"Date": None})


def to_png(figure: Figure, dpi: int = 150) -> bytes:
    """Return a figure as PNG."""
    return _written(figure, "png", {"Software": None}, dpi=dpi)


def to_file(figure: Figure, suffix: str) -> bytes:
    """Return a figure as the format of a file name's suffix: .png, .svg or .pdf."""
    if suffix == ".pdf":
        return _written(figure, "pdf", {"CreationDate": None})
    return to_svg(figure) if suffix == ".svg" else to_png(figure)


def _written(figure: Figure, form: str, metadata: dict[str, Any], **options: Any) -> bytes:
    matplotlib: Any = require_extra("matplotlib", "plots")
    buffer = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A font lacks some of the world's letters; a browser finds another for them.
        warnings.filterwarnings("ignore", message=r"Glyph .* missing from")
        matplotlib.rcParams.update(_STYLE)
        figure.savefig(buffer, format=form, metadata=metadata, **options)
    return buffer.getvalue()
