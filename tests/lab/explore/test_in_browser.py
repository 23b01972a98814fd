"""The page as a student uses it, in a real browser: a control is moved, and the new curve is read."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import pytest
from tests.cases.browser import PATIENCE, opened, program

from feedalign.lab.explore.shallow_study import ShallowSetting, study

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Of the page, which the command itself serves."""
    program()  # no server for a browser that is not there
    command = [sys.executable, "-m", "feedalign", "explore", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = [re.search(r"http://\S+", process.stdout.readline()) for _ in range(2)][1]
            assert found is not None
            yield found[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE) == 0
        finally:
            process.kill()


def curve(page: Page, chart: str, name: str) -> tuple[list[float], list[float]]:
    """The points (x, y) of a curve that a figure shows."""
    data = page.evaluate(
        f"document.querySelector('#{chart} .js-plotly-plot').data.map(({{name, x, y}}) => [name, x, y])"
    )
    ((x, y),) = [(x, y) for found, x, y in data if found == name]
    return x, y


def names(page: Page, chart: str) -> list[str]:
    """The names of the curves that a figure shows."""
    found: list[str] = page.evaluate(
        f"document.querySelector('#{chart} .js-plotly-plot').data.map(curve => curve.name)"
    )
    return found


def ready(page: Page) -> None:
    """Wait until the curves of theory are drawn."""
    page.locator("#error .scatterlayer .trace").first.wait_for()


def wait_for_end(page: Page, chart: str, value: float) -> None:
    """Wait until the first curve of a figure ends at this value."""
    page.wait_for_function(
        "([chart, value]) => Math.abs(document.querySelector(`#${chart} .js-plotly-plot`).data[0].y.at(-1) / value - 1)"
        " < 1e-9",
        arg=[chart, value],
    )


def test_a_control_moved_by_keyboard_moves_the_curves(reader: BrowserContext, address: str) -> None:
    """To the curves that the theory gives at the learning rate which the page shows."""
    with opened(reader, address, 1400) as page:
        ready(page)
        before = curve(page, "error", "DFA, theory")
        page.get_by_label("η, learning rate").focus()
        for shown in (0.56, 0.63, 0.71, 0.79):
            page.keyboard.press("ArrowRight")
            page.get_by_text(f"η, learning rate = {shown}").wait_for()
        expected = study(ShallowSetting(lr=0.79, end_time=2000.0)).theory["dfa"]
        wait_for_end(page, "error", expected.generalisation_error[-1])
        times, errors = curve(page, "error", "DFA, theory")
        assert errors != before[1]
        np.testing.assert_allclose(times, expected.times)
        np.testing.assert_allclose(errors, expected.generalisation_error)
        np.testing.assert_allclose(curve(page, "overlap", "DFA, theory")[1], expected.overlap)
        np.testing.assert_allclose(curve(page, "R", "R₁₂")[1], expected.R[:, 0, 1])


def test_no_key_is_lost_however_fast_the_keys_are_pressed(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("η, learning rate").focus()
        for key in ["ArrowRight"] * 12 + ["ArrowLeft"] * 8:
            page.keyboard.press(key)
        page.get_by_text("η, learning rate = 0.79").wait_for()  # four positions from 0.5
        wait_for_end(
            page, "error", study(ShallowSetting(lr=0.79, end_time=2000.0)).theory["dfa"].generalisation_error[-1]
        )


def test_every_control_is_reached_by_tab_and_the_focus_is_seen(reader: BrowserContext, address: str) -> None:
    """A group of radio buttons is one stop of the Tab key; the arrow keys move within the group."""
    with opened(reader, address, 1400) as page:
        ready(page)
        wanted = page.evaluate(
            "[...document.querySelectorAll('input, button')].filter((each) => each.offsetParent"
            " && (each.type !== 'radio' || each.checked)).map((each) => each.id || each.name)"
        )
        reached: list[str] = []
        while wanted[-1] not in reached:
            assert len(reached) < 100
            page.keyboard.press("Tab")
            name, line = page.evaluate(
                "[document.activeElement.id || document.activeElement.name,"
                " parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
            )
            reached.append(name)
            assert line >= 2, name
        assert [name for name in reached if name in wanted] == wanted


def told(page: Page) -> dict[tuple[str, str], str]:
    """What the browser tells a screen reader of the controls: where each stands, by its role and its name."""
    nodes = page.context.new_cdp_session(page).send("Accessibility.getFullAXTree")["nodes"]
    found = {}
    for node in nodes:
        role, name = (node.get(key, {}).get("value", "") for key in ("role", "name"))
        states = {each["name"]: each["value"].get("value") for each in node.get("properties", [])}
        stands = states.get("checked") or node.get("value", {}).get("value")
        found[role, name] = str(stands)
    return found


def test_a_screen_reader_is_told_what_each_control_is_and_where_it_stands(reader: BrowserContext, address: str) -> None:
    """Of a slider the number, not the position, which is the number's logarithm."""
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("η, learning rate").press("ArrowRight")
        page.get_by_text("η, learning rate = 0.56").wait_for()
        # The tree that Chromium shows to programs has positions only.
        assert page.get_by_label("η, learning rate").get_attribute("aria-valuetext") == "0.56"
        controls = told(page)
        assert {("slider", "η, learning rate"), ("slider", "F₁")} <= controls.keys()
        assert ("slider", "F₃") not in controls  # a unit that does not exist
        assert controls["radio", "erf"] == "true"
        assert controls["radio", "ReLU"] == "false"
        assert controls["checkbox", "simulate a network of 500 inputs"] == "false"
        kinds = {("spinbutton", "seed"), ("radiogroup", "activation"), ("group", "Learning"), ("button", "Train")}
        assert kinds <= controls.keys()


def test_enter_in_a_field_keeps_the_page_and_a_wrong_seed_is_told_in_words(
    reader: BrowserContext, address: str
) -> None:
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("σ, label noise").fill("0.2")
        seed = page.locator("#seed")
        seed.fill("-3")
        trouble = page.locator("#shallow-troubles")
        trouble.get_by_text("the seed is -3; a seed is a whole number").wait_for()
        seed.fill("7")
        seed.press("Enter")
        trouble.get_by_text("a seed is a whole number").wait_for(state="hidden")
        expected = study(ShallowSetting(noise_std=0.2, seed=7)).theory["dfa"]
        wait_for_end(page, "error", expected.generalisation_error[-1])


def test_controls_that_move_faster_than_the_answers_end_where_they_were_left(
    reader: BrowserContext, address: str
) -> None:
    """ReLU students of three units take long enough for more controls to move while an answer is under way."""
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("ReLU").first.check()
        page.get_by_label("K, student units").fill("3")
        page.get_by_label("M, teacher units").fill("3")
        for noise in ("0.2", "0.4", "0.6"):
            page.get_by_label("σ, label noise").fill(noise)
        setting = ShallowSetting("relu", A=(1.0, 0.5, 0.8), F=(0.4, -1.2, 0.8), noise_std=0.6, end_time=2000.0)
        wait_for_end(page, "error", study(setting).theory["dfa"].generalisation_error[-1])


def test_curves_are_shown_while_a_slider_moves(reader: BrowserContext, address: str) -> None:
    """And not only when the slider rests."""
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("ReLU").first.check()
        page.get_by_label("K, student units").fill("3")  # an answer now takes longer than the next move of the slider
        page.get_by_label("M, teacher units").fill("3")
        seen = set()
        for position in range(1, 5000):  # far more than are needed, on a machine that is busy with other things as well
            page.get_by_label("σ, label noise").fill(f"{position % 21 * 0.05:.2f}")
            page.wait_for_timeout(20)
            seen.add(curve(page, "error", "DFA, theory")[1][-1])
            if len(seen) > 3:
                break
        assert len(seen) > 3


def test_units_feedback_and_minimum_follow(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_text("arrived at the predicted minimum").wait_for()
        assert page.get_by_label("F₃").is_hidden()
        page.get_by_label("K, student units").fill("3")
        page.get_by_text("Make K and M equal").wait_for()
        page.get_by_label("F₃").wait_for()
        assert names(page, "R") == ["R₁₁", "R₁₂", "R₂₁", "R₂₂", "R₃₁", "R₃₂"]
        page.get_by_label("K, student units").fill("2")
        page.get_by_label("F₂").fill("0.2")
        page.locator("#pick td").get_by_text("0.20", exact=True).wait_for()
        page.get_by_label("ReLU").first.check()
        page.get_by_text("A ReLU student can learn this teacher").wait_for()


def test_a_page_without_answers_says_so_and_catches_up(reader: BrowserContext, address: str) -> None:
    """When the program answers again, the page shows the positions where the controls stand by then."""
    with opened(reader, address, 1400) as page:
        ready(page)
        page.route("**/ask/shallow", lambda route: route.abort("aborted"))
        page.get_by_label("σ, label noise").fill("0.2")
        trouble = page.locator("#shallow-troubles")
        trouble.get_by_text("The program does not answer").wait_for()
        page.get_by_label("σ, label noise").fill("0.4")
        page.unroute("**/ask/shallow")
        wait_for_end(page, "error", study(ShallowSetting(noise_std=0.4)).theory["dfa"].generalisation_error[-1])
        trouble.get_by_text("The program does not answer").wait_for(state="hidden")


def test_a_divergence_is_told_in_words(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("ReLU").first.check()
        page.get_by_label("F₂").fill("1.2")
        page.get_by_label("η, learning rate").fill("1")
        page.get_by_label("simulate a network of 500 inputs").check()
        trouble = page.locator("#shallow-troubles")
        trouble.get_by_text("the simulation diverged at t").wait_for()
        page.get_by_label("simulate a network of 500 inputs").uncheck()
        trouble.get_by_text("the simulation diverged at t").wait_for(state="hidden")


def test_a_training_is_watched_to_its_end(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("epochs").fill("5")
        page.get_by_label("hidden layers").fill("2")
        page.get_by_role("button", name="Train").click()
        page.get_by_text(re.compile("Epoch 5 of 5. Test accuracy: DFA ")).wait_for()
        assert names(page, "gradient") == ["layer 1", "layer 2"] * 2
        assert names(page, "weight") == ["layer 2", "layer 3"] * 2
        epochs, accuracies = curve(page, "accuracy", "backprop")
        assert epochs[-1] == 5
        assert accuracies[-1] > 0.8


def test_a_training_can_be_stopped_and_begun_again(reader: BrowserContext, address: str) -> None:
    with opened(reader, address, 1400) as page:
        ready(page)
        page.get_by_label("epochs").fill("100")
        page.get_by_role("button", name="Train").click()
        progress = page.locator("#progress")
        progress.get_by_text(re.compile("Epoch [2-9]")).wait_for()
        page.get_by_role("button", name="Stop").click()
        page.wait_for_timeout(1000)  # an epoch that was under way is still shown
        stopped = progress.inner_text()
        page.wait_for_timeout(1000)
        assert progress.inner_text() == stopped
        page.get_by_label("epochs").fill("5")
        page.get_by_role("button", name="Train").click()
        progress.get_by_text("Epoch 5 of 5").wait_for()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1400])
def test_every_chart_is_seen(
    reader: BrowserContext, address: str, width: int, scheme: Literal["light", "dark"]
) -> None:
    """Without an error in the console, in the colours the reader wants, and without scrolling sideways."""
    with opened(reader, address, width, scheme) as page:
        ready(page)
        charts = page.locator(".js-plotly-plot")
        assert charts.count() == 8
        for chart in charts.all():
            chart.scroll_into_view_if_needed()
            box = chart.bounding_box()
            assert box is not None
            assert box["width"] > 250
            assert box["height"] > 200
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        paper, ink = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor,"
            " getComputedStyle(document.querySelector('#error .xtick text')).fill]"
        )
        shades = [sum(map(int, re.findall(r"\d+", colour)[:3])) / 3 for colour in (paper, ink)]
        assert (shades[0] < shades[1]) is (scheme == "dark")
        assert abs(shades[0] - shades[1]) > 150
