"""The controls of the page: native inputs with labels, so that keyboard and screen reader work as everywhere.

Dash's own inputs are no help here: each keeps a position of its own, and puts this position back into the page when an
older position has come round through the program. A key that is pressed at that moment is lost. So the controls are
HTML of their own, which assets/explore.js puts into an empty form and reads.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

from dash import dcc, html

from feedalign.errors import ArgumentError


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
        """Return the number that belongs to a position, which the browser sends as text."""
        at = min(max(float(position), self.low), self.high)
        return float(f"{self.base**at:.2g}") if self.base else at

    def text(self, position: Any) -> str:
        """Return the number that belongs to a position as the page shows it."""
        return f"{self.number(position):g}"

    def markup(self) -> str:
        """Return the labelled slider; a screen reader reads the number from the slider, and the label without it."""
        return (
            f'<div class="dial" id="{self.key}-dial"><label for="{self.key}">{escape(self.label)}'
            f'<span aria-hidden="true"> = <b id="{self.key}-shown">{self.text(self.value)}</b></span></label>'
            f'<input type="range" id="{self.key}" name="{self.key}" min="{self.low}" max="{self.high}"'
            f' step="{self.step}" value="{self.value}" aria-valuetext="{self.text(self.value)}"></div>'
        )


@dataclass(frozen=True)
class Choice:
    """A choice of one from several.

    Attributes:
        key: of the choice on the page.
        label: what a screen reader reads before the options.
        options: label by value; the first is taken at the beginning.
    """

    key: str
    label: str
    options: dict[str, str]

    def markup(self) -> str:
        """Return the labelled buttons, one for each option."""
        buttons = [
            f'<label><input type="radio" name="{self.key}" value="{value}"{"" if i else " checked"}> '
            f"{escape(label)}</label>"
            for i, (value, label) in enumerate(self.options.items())
        ]
        return f'<div class="choice" role="radiogroup" aria-label="{escape(self.label)}">{"".join(buttons)}</div>'


@dataclass(frozen=True)
class Tick:
    """A box that a reader ticks. The browser sends the key of a ticked box only; no box is ticked at the beginning.

    Attributes:
        key: of the box on the page.
        label: what a reader sees.
    """

    key: str
    label: str

    def markup(self) -> str:
        """Return the labelled box."""
        return f'<label class="tick"><input type="checkbox" name="{self.key}" value="yes"> {escape(self.label)}</label>'


@dataclass(frozen=True)
class SeedField:
    """A field for a seed.

    Attributes:
        key: of the field on the page.
        value: the seed at the beginning.
    """

    key: str
    value: int

    def number(self, typed: str) -> int:
        """Return the seed in the field; 0 for an empty field, which is what the browser sends while a reader types.

        Raises:
            ArgumentError: the field holds something else than a whole number from 0 on.
        """
        if typed and not (typed.isascii() and typed.isdecimal()):
            raise ArgumentError(f"the seed is {typed}; a seed is a whole number: 0, 1, 2 and so on")
        return int(typed or 0)

    def markup(self) -> str:
        """Return the labelled field."""
        return (
            f'<div class="field"><label for="{self.key}">seed</label>'
            f'<input type="number" id="{self.key}" name="{self.key}" min="0" step="1" value="{self.value}"></div>'
        )


def group(title: str, *controls: Dial | Choice | Tick | SeedField) -> str:
    """Return controls that belong together, under a title."""
    inside = "".join(control.markup() for control in controls)
    return f"<fieldset><legend>{escape(title)}</legend>{inside}</fieldset>"


def form(key: str, *parts: str) -> html.Form:
    """Return an empty form; assets/explore.js fills it with the parts, and reads the controls in it."""
    data: dict[str, Any] = {"data-controls": "".join(parts)}
    return html.Form(id=key, className="controls", **data)


def section(key: str, title: str, words: str, controls: html.Form, results: list[Any]) -> html.Section:
    """Return a section of the page: words above, controls beside results below."""
    beside = html.Div([controls, html.Div(results)], className="beside")
    return html.Section([html.H2(title, id=key), html.P(words), beside])


def chart(key: str, title: str, explanation: str, figure: Any = None) -> html.Figure:
    """Return a place for a figure, with its title above and its explanation below."""
    graph = dcc.Graph(
        id=key, figure=figure, style={"height": "17rem"}, config={"displayModeBar": False, "responsive": True}
    )
    return html.Figure([html.H3(title), graph, html.Figcaption(explanation)], className="chart")
