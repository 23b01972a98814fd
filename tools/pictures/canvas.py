"""A small pen for SVG: every colour is a name that the page can change, so one file serves light and dark."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

# Light and dark value of each colour. Rules and roles have the colours of the figures (Okabe and Ito's palette).
COLOURS = {
    "ink": ("#24292f", "#e6e8ee"),
    "muted": ("#667085", "#a3a9b8"),
    "paper": ("#f4f5f8", "#262a36"),
    "forward": ("#0072b2", "#6bb8f0"),
    "error": ("#d55e00", "#ff9557"),
    "good": ("#007a58", "#3ccf9f"),
    "soft": ("#fbe3d4", "#4a2f22"),
    "cool": ("#d9eaf6", "#1f3a4f"),
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

Point = tuple[float, float]


def palette(which: int) -> str:
    """Return the colours as declarations of a style sheet; 0 is light, 1 is dark."""
    return "".join(f"--{name}:{values[which]};" for name, values in COLOURS.items())


class Canvas:
    """Shapes on a canvas whose origin is the upper left corner.

    Args:
        width: of the canvas, in pixels at full size.
        height: of the canvas.
        title: what a reader who cannot see the picture is told.
    """

    def __init__(self, width: float, height: float, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._shapes: list[str] = []

    def text(
        self,
        at: Point,
        words: str,
        *,
        size: float = 14,
        colour: str = "ink",
        anchor: str = "middle",
        bold: bool = False,
    ) -> None:
        """Write one line, whose middle is at the height of `at`."""
        weight = ' font-weight="600"' if bold else ""
        self._shapes.append(
            f'<text x="{at[0]:.1f}" y="{at[1] + 0.35 * size:.1f}" font-size="{size:g}" text-anchor="{anchor}" '
            f'fill="var(--{colour})"{weight}>{escape(words, quote=False)}</text>'
        )

    def lines(self, at: Point, words: Sequence[str], *, size: float = 14, **how: str) -> None:
        """Write several lines, centred at `at`."""
        for i, line in enumerate(words):
            self.text((at[0], at[1] + 1.25 * size * (i - (len(words) - 1) / 2)), line, size=size, **how)  # type: ignore[arg-type]

    def box(
        self, centre: Point, size: Point, words: Sequence[str] = (), *, fill: str = "paper", edge: str = "muted",
        text: float = 14, colour: str = "ink", radius: float = 8,
    ) -> None:  # fmt: skip
        """Draw a box with rounded corners and centred text."""
        x, y = centre[0] - size[0] / 2, centre[1] - size[1] / 2
        self._shapes.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" rx="{radius:g}" '
            f'fill="var(--{fill})" stroke="var(--{edge})" stroke-width="1.2"/>'
        )
        self.lines(centre, words, size=text, colour=colour)

    def cell(self, corner: Point, side: float, colour: str, opacity: float) -> None:
        """Draw one entry of a matrix."""
        self._shapes.append(
            f'<rect x="{corner[0]:.1f}" y="{corner[1]:.1f}" width="{side:.1f}" height="{side:.1f}" '
            f'fill="var(--{colour})" fill-opacity="{opacity:.2f}"/>'
        )

    def area(self, corner: Point, size: Point, colour: str) -> None:
        """Fill a rectangle without an edge."""
        self._shapes.append(
            f'<rect x="{corner[0]:.1f}" y="{corner[1]:.1f}" width="{size[0]:.1f}" height="{size[1]:.1f}" '
            f'fill="var(--{colour})"/>'
        )

    def line(
        self,
        points: Iterable[Point],
        *,
        colour: str = "ink",
        width: float = 1.6,
        dashed: bool = False,
        opacity: float = 1,
    ) -> None:
        """Draw straight pieces from point to point."""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        self._shapes.append(
            f'<polyline points="{path}" fill="none" stroke="var(--{colour})" stroke-width="{width:g}" '
            f'stroke-opacity="{opacity:g}" stroke-linejoin="round"{dash}/>'
        )

    def arrow(self, points: Sequence[Point], *, colour: str = "ink", width: float = 1.8, dashed: bool = False) -> None:
        """Draw straight pieces with a head at the last point."""
        (x, y), (x1, y1) = points[-2:]
        angle, head = math.atan2(y1 - y, x1 - x), 8.0
        back = (x1 - 0.8 * head * math.cos(angle), y1 - 0.8 * head * math.sin(angle))
        self.line([*points[:-1], back], colour=colour, width=width, dashed=dashed)
        corners = [(x1, y1)] + [
            (x1 - head * math.cos(angle + turn), y1 - head * math.sin(angle + turn)) for turn in (0.45, -0.45)
        ]
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in corners)
        self._shapes.append(f'<polygon points="{path}" fill="var(--{colour})"/>')

    def dot(self, at: Point, radius: float = 5, *, colour: str = "ink", hollow: bool = False) -> None:
        """Draw a disc, or a ring."""
        fill = "var(--paper)" if hollow else f"var(--{colour})"
        self._shapes.append(
            f'<circle cx="{at[0]:.1f}" cy="{at[1]:.1f}" r="{radius:g}" fill="{fill}" stroke="var(--{colour})" '
            'stroke-width="1.6"/>'
        )

    def ellipse(self, centre: Point, radii: Point, degrees: float, *, colour: str, fill: str) -> None:
        """Draw an ellipse that is turned by an angle, counter-clockwise."""
        self._shapes.append(
            f'<ellipse cx="{centre[0]:.1f}" cy="{centre[1]:.1f}" rx="{radii[0]:.1f}" ry="{radii[1]:.1f}" '
            f'transform="rotate({-degrees:g} {centre[0]:.1f} {centre[1]:.1f})" fill="var(--{fill})" '
            f'stroke="var(--{colour})" stroke-width="1.6"/>'
        )

    def svg(self) -> str:
        """Return the picture. Inside of a page the page's own colours replace these."""
        style = f".fa-picture{{{palette(0)}}}@media (prefers-color-scheme:dark){{.fa-picture{{{palette(1)}}}}}"
        shapes = "\n".join(self._shapes)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" class="fa-picture" viewBox="0 0 {self.width:g} {self.height:g}" '
            f'width="{self.width:g}" font-family="{FONT}" role="img" aria-label="{escape(self.title)}">\n'
            f"<title>{escape(self.title)}</title>\n<style>{style}</style>\n{shapes}\n</svg>\n"
        )
