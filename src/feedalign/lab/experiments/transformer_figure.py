"""The figure of character models: learning, alignment by block, and what is recovered."""

from __future__ import annotations

from collections.abc import Mapping

import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from feedalign.lab.panels import panels
from feedalign.style import RULE_COLOURS, RULE_LABELS, figure_style, layer_colours

# By the name of an arm without its norm.
COLOURS = {
    "backprop": RULE_COLOURS["backprop"],
    "backprop, one block": "#56B4E9",
    "backprop, no blocks": "#999999",
    "dfa, own": "#E69F00",
    "dfa, shared": RULE_COLOURS["dfa"],
    "dfa, shared, fixed embedding": "#8C5A00",
    "direct-kolen-pollack, own": "#66C2A5",
    "direct-kolen-pollack, shared": "#009E73",
    "fa": "#CC79A7",
    "frozen": "0.35",
    "readout-only": RULE_COLOURS["readout-only"],
    "sign-symmetry": "#7B3294",
}
STYLES = {"post-norm": "-", "pre-norm": "--"}
COUNTED = {2: "pairs", 3: "triples"}  # of characters


@figure_style()
def draw(dataset: xr.Dataset, recovered: Mapping[str, xr.DataArray]) -> Figure:
    """Draw the three panels.

    Args:
        dataset: bits and gradient alignment by arm, step, seed and draw.
        recovered: part of backprop's gain, [seed, draw], by arm.
    """
    titles = ("learning", "gradient alignment by block, DFA", "what is recovered")
    figure, (left, middle, right) = panels(13.0, 4.6, titles, width_ratios=(1.1, 1.1, 0.9))
    _draw_bits(left, dataset)
    _draw_alignment(middle, dataset)
    for axes in (left, middle):
        axes.set_xlabel("step")
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, columnspacing=1.0, handlelength=2.2, fontsize=7
        )
    _draw_recovery(right, recovered)
    return figure


def _draw_bits(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the mean bits of every arm after the initial state, and the bits of counting."""
    for arm in dataset.arm.values:
        rule, style = _look(arm)
        bits = dataset.bits.sel(arm=arm).mean(("seed", "draw"))[1:]
        label = _label(rule) if style == "-" else None
        axes.plot(bits.step, bits, style, color=COLOURS[rule], lw=1.2, label=label)
    for order, name in COUNTED.items():
        counted = float(dataset.ngram_bits.sel(order=order))
        axes.axhline(counted, color="0.8", lw=0.8, zorder=0)
        axes.text(1.01, counted, name, color="0.4", fontsize=7, va="center", transform=axes.get_yaxis_transform())
    for norm, style in STYLES.items():
        axes.plot([], [], style, color="0.4", lw=1.2, label=norm)
    axes.set_ylabel("bits per character")


def _draw_alignment(axes: Axes, dataset: xr.Dataset) -> None:
    """Draw the alignment of every block under DFA with own feedback (thin) and shared feedback (thick)."""
    colours = layer_colours(dataset.sizes["block"])
    for arm in dataset.arm.values:
        rule, style = _look(arm)
        if rule not in ("dfa, own", "dfa, shared"):
            continue
        for block, colour in zip(dataset.block.values, colours, strict=True):
            values = dataset.gradient_alignment.sel(arm=arm, block=block).mean(("seed", "draw"))
            label = f"block {block}, {rule.removeprefix('dfa, ')} feedback" if style == "-" else None
            axes.plot(values.step, values, style, color=colour, lw=2 if "shared" in rule else 0.9, label=label)
    axes.axhline(0, color="0.8", lw=0.8, zorder=0)
    axes.set_ylabel("gradient alignment (cosine)")


def _draw_recovery(axes: Axes, recovered: Mapping[str, xr.DataArray]) -> None:
    """Draw the part of backprop's gain, a row for each rule: post-norm filled, pre-norm open."""
    rules = list(dict.fromkeys(_look(arm)[0] for arm in recovered))
    for arm, values in recovered.items():
        rule, style = _look(arm)
        numbers = values.values.ravel()
        mean = numbers.mean()
        reach = [[mean - numbers.min()], [numbers.max() - mean]]
        face = COLOURS[rule] if style == "-" else "white"
        axes.errorbar(
            mean, -rules.index(rule), xerr=reach, fmt="o", ms=5, lw=1, color=COLOURS[rule], markerfacecolor=face
        )
    axes.axvline(0, color=COLOURS["frozen"], lw=0.8, zorder=0)
    axes.axvline(1, color=COLOURS["backprop"], lw=0.8, zorder=0)
    axes.set_yticks(range(0, -len(rules), -1), [_label(rule) for rule in rules], fontsize=7)
    axes.set(xlabel="part of backprop's gain\n(0: frozen blocks, 1: backprop)", ylabel="arm", ylim=(-len(rules), 1))


def _label(arm: str) -> str:
    """Return the name of an arm as a reader sees it."""
    rule, _, rest = arm.partition(", ")
    for feedback in ("own", "shared"):
        rest = rest.replace(feedback, f"{feedback} feedback")
    return ", ".join(filter(None, [RULE_LABELS[rule] + (" blocks" if rule == "frozen" else ""), rest]))


def _look(arm: str) -> tuple[str, str]:
    """Return an arm without its norm, and the line style of the norm."""
    rule, _, norm = str(arm).rpartition(", ")
    return (rule, STYLES[norm]) if norm in STYLES else (str(arm), "-")
