"""One look for every figure, whatever the user's own settings are."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from feedalign.style import band, figure_style, layer_colours, mean_and_range, svg


def drawn() -> bytes:
    with figure_style():
        figure = Figure(figsize=(2, 2))
        axes = figure.subplots()
        band(axes, np.arange(3.0), np.arange(12.0).reshape(4, 3), label="a")
        axes.legend()
    return svg(figure)


def test_a_figure_is_svg_and_repeats_byte_for_byte() -> None:
    assert ElementTree.fromstring(drawn()).tag == "{http://www.w3.org/2000/svg}svg"
    assert drawn() == drawn()


def test_the_users_settings_change_nothing_and_come_back() -> None:
    own: Any = {"font.size": 30.0, "axes.facecolor": "black", "svg.hashsalt": "other", "savefig.transparent": True}
    expected = drawn()
    with mpl.rc_context(own):
        assert drawn() == expected
        assert {name: mpl.rcParams[name] for name in own} == own


def test_a_band_is_mean_and_standard_deviation() -> None:
    samples = np.array([[0.0, 1.0, np.nan], [2.0, 1.0, 4.0]])
    axes = Figure().subplots()
    band(axes, np.arange(3.0), samples)
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [1, 1, 4])
    corners = np.asarray(axes.collections[0].get_paths()[0].vertices)
    at_first = corners[corners[:, 0] == 0, 1]
    assert (at_first.min(), at_first.max()) == (0, 2)


def test_points_are_mean_and_range() -> None:
    axes = Figure().subplots()
    mean_and_range(axes, np.array([5.0]), np.array([[1.0], [2.0], [6.0]]), marker="o")
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[5, 3]])
    np.testing.assert_array_equal(axes.collections[0].get_paths()[0].vertices, [[5, 1], [5, 6]])


def test_every_layer_has_a_colour_of_its_own() -> None:
    assert len(set(layer_colours(6))) == 6
