"""The pictures of a comparison: learning curves, schedules, profile, and the curve over rates."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from keras_greedylr.compare import statistics
from keras_greedylr.compare.comparison import Comparison
from keras_greedylr.find_lr import RangeTest

# Okabe and Ito, told apart by everyone; from the ninth line on dashed, then dotted.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
DASHES = ("-", "--", ":", "-.")


def draw(comparison: Comparison, folder: Path) -> list[Path]:
    """Draws every picture there is something to show in; returns the files."""
    pictures: dict[str, Callable[[Any, Comparison], None]] = {
        "curves": _curves,
        "schedules": _schedules,
        "profile": _profile,
    }
    if len(comparison.multiples) > 1:
        pictures["rates"] = _rates
    else:  # one of an earlier comparison in this folder is none of this one
        (folder / "rates.png").unlink(missing_ok=True)
    files = []
    for name, picture in pictures.items():
        files.append(folder / f"{name}.png")
        save(lambda axes, picture=picture: picture(axes, comparison), files[-1])  # type: ignore[misc]
    return files


def save(picture: Callable[[Any], None], path: Path) -> None:
    """Has `picture` draw on axes and saves them, with a legend beside if there are labels."""
    # Without pyplot: it would choose a window system for the whole program.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    picture(axes)
    axes.grid(color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside right upper", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _style(comparison: Comparison, name: str) -> dict[str, Any]:
    index = list(comparison.own_rates).index(name)
    dash = DASHES[index // len(COLORS) % len(DASHES)]
    return {"color": COLORS[index % len(COLORS)], "linestyle": dash, "label": name}


def _band(axes: Any, x: np.ndarray, values: np.ndarray, style: dict[str, Any]) -> None:
    """The median over the first axis, and the middle half around it."""
    finite = np.where(np.isfinite(values), values, np.nan)
    with warnings.catch_warnings(action="ignore"):  # where all diverged there is nothing to show
        low, middle, high = np.nanquantile(finite, (0.25, 0.5, 0.75), axis=0)
    axes.plot(x, middle, linewidth=2, **style)
    axes.fill_between(x, low, high, color=style["color"], alpha=0.15, linewidth=0)


def _wants_log(values: np.ndarray) -> bool:
    """Whether values, of which some may be zero or not finite, are better seen on a log axis."""
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    return len(positive) > 0 and finite.min() >= 0 and positive.max() > 5 * positive.min()


def _curves(axes: Any, comparison: Comparison) -> None:
    """The metric over the steps, with the middle half of the seeds."""
    shown = []
    for name in comparison.own_rates:
        runs = comparison.at(name)
        curves = [run.history[comparison.metric] for run in runs]
        # a callback may have ended some of them early
        values = np.array(list(itertools.zip_longest(*curves, fillvalue=np.nan))).T
        steps = np.arange(1, values.shape[1] + 1) * runs[0].steps
        _band(axes, steps, values, _style(comparison, name))
        shown.append(values.ravel())
    if comparison.mode == "min" and _wants_log(np.concatenate(shown)):
        axes.set_yscale("log")
    axes.axhline(comparison.goal, color="0.6", linewidth=1)
    axes.set(xlabel="step", ylabel=comparison.metric, title="Learning curves, and the target")


def _schedules(axes: Any, comparison: Comparison) -> None:
    """The rate over the steps, of each contestant's first seed."""
    used = []
    for name in comparison.own_rates:
        points = np.array(comparison.at(name)[0].rates)
        axes.step(*points.T, where="post", linewidth=2, **_style(comparison, name))
        used.append(points[:, 1])
    rates = np.concatenate(used)
    positive = rates[np.isfinite(rates) & (rates > 0)]
    if len(positive):
        axes.set_yscale("log")
        # A rate that ends at zero would be followed for ever.
        axes.set_ylim(max(positive.min(), positive.max() * 1e-5) / 2, positive.max() * 2)
    axes.set(xlabel="step", ylabel="learning rate", title="Schedules, first seed")


def _profile(axes: Any, comparison: Comparison) -> None:
    """The part of the runs, at all rates or at those tuned, that ended at least so well."""
    sign = 1.0 if comparison.mode == "min" else -1.0
    multiples = [] if comparison.tuned else comparison.multiples
    many = len(multiples) or 1
    over = "the tuned rates" if comparison.tuned else f"{many} rate{'s' * (many > 1)}"
    results = {
        name: np.concatenate([comparison.losses(name, m) for m in multiples or (None,)])
        for name in comparison.own_rates
    }
    everything = np.concatenate(list(results.values()))
    levels = np.unique(everything[np.isfinite(everything)])
    for name, losses in results.items():
        share = statistics.share_within(losses, levels)
        axes.step(sign * levels, share, where="post", linewidth=2, **_style(comparison, name))
    if comparison.mode == "max":
        axes.invert_xaxis()
    elif _wants_log(levels):
        axes.set_xscale("log")
    axes.set(
        xlabel=f"final {comparison.metric}",
        ylabel="part of the runs that ended as well or better",
        title=f"Performance profile over {over} and all seeds",
    )


def _rates(axes: Any, comparison: Comparison) -> None:
    """The result over the initial rate, with the middle half of the seeds."""
    sign = 1.0 if comparison.mode == "min" else -1.0
    rates = np.array(comparison.multiples) * comparison.problem["rate"]
    shown = []
    for name in comparison.own_rates:
        values = np.stack([sign * comparison.losses(name, m) for m in comparison.multiples], axis=1)
        _band(axes, rates, values, _style(comparison, name))
        shown.append(values.ravel())
    axes.set_xscale("log")
    axes.set_xlim(rates.min() / 1.5, rates.max() * 1.5)  # also where nothing finite is shown
    if comparison.mode == "min" and _wants_log(np.concatenate(shown)):
        axes.set_yscale("log")
    axes.set(
        xlabel="initial learning rate",
        ylabel=f"final {comparison.metric}",
        title="How each bears an initial rate that is off",
    )


def draw_range_test(test: RangeTest, path: Path) -> None:
    """Draws the losses of a range test, and the rate it suggests."""

    def picture(axes: Any) -> None:
        axes.plot(test.rates, test.losses, color="0.8", label="loss of a batch")
        axes.plot(test.rates, test.smoothed, color=COLORS[0], linewidth=2, label="smoothed")
        axes.axvline(test.suggestion, color=COLORS[1], label=f"suggestion, {test.suggestion:.2g}")
        axes.set_xscale("log")
        if _wants_log(test.losses):
            axes.set_yscale("log")
        axes.set(xlabel="learning rate", ylabel="loss", title="Range test")

    save(picture, path)
