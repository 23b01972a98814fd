"""The controls of the page: native inputs with labels, so that keyboard and screen reader work as everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from dash import dcc, html

from feedalign.lab.explore.answering import Shown


@dataclass(frozen=True)
class Dial:
    """A number that a reader moves.

    Attributes:
        key: of the input element on the page.
        label: what a reader sees.
        low: the smallest position.
        high: the largest position.
        step: from one position to the next.
        value: the position at the beginning.
        base: 0: the position is the number; otherwise the number is this base to the power of the position.
    """

    key: str
    label: str
    low: float
    high: float
    step: float
    value: float
    base: float = 0

    def number(self, position: Any) -> float:
        """Return the number that belongs to a position; the browser sends positions as text or as numbers."""
        at = min(max(float(position), self.low), self.high)
        return float(f"{self.base**at:.2g}") if self.base else at

    def component(self) -> html.Div:
        """Return the labelled slider."""
        return html.Div(
            [
                html.Label([self.label, " = ", html.Output(id=f"{self.key}-shown")], htmlFor=self.key),
                dcc.Input(id=self.key, type="range", min=self.low, max=self.high, step=self.step, value=self.value),
            ],
            id=f"{self.key}-dial",
            className="dial",
        )


def numbers_shown(dials: Sequence[Dial], positions: Sequence[Any]) -> Shown:
    """Return the number beside each dial for the dials' positions, as the page shows it."""
    return {
        f"{dial.key}-shown": {"children": f"{dial.number(position):g}"}
        for dial, position in zip(dials, positions, strict=True)
    }


def group(title: str, children: Iterable[Any]) -> html.Fieldset:
    """Return controls that belong together, under a title."""
    return html.Fieldset([html.Legend(title), *children])


def choice(key: str, options: dict[str, str], value: str) -> dcc.RadioItems:
    """Return a choice of one from several; options are label by value."""
    return dcc.RadioItems(
        id=key, options=[{"value": name, "label": label} for name, label in options.items()], value=value, inline=True
    )


def seed_field(key: str, value: int) -> html.Div:
    """Return a field for a seed."""
    return html.Div(
        [html.Label("seed", htmlFor=key), dcc.Input(id=key, type="number", min=0, step=1, value=value)],
        className="field",
    )


def whole(value: Any) -> int:
    """Return the seed in a field; 0 for an empty field, which is what the browser sends while a reader types."""
    return int(value) if value not in (None, "") else 0


def section(key: str, title: str, words: str, controls: Sequence[Any], results: Sequence[Any]) -> html.Section:
    """Return a section of the page: words above, controls beside results below."""
    beside = [html.Form(controls, className="controls"), html.Div(results)]
    return html.Section([html.H2(title, id=key), html.P(words), html.Div(beside, className="beside")])


def chart(key: str, title: str, explanation: str, figure: Any = None) -> html.Figure:
    """Return a place for a figure, with its title above and its explanation below."""
    graph = dcc.Graph(
        id=key, figure=figure, style={"height": "17rem"}, config={"displayModeBar": False, "responsive": True}
    )
    return html.Figure([html.H3(title), graph, html.Figcaption(explanation)], className="chart")
