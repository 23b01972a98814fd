"""The page: both sections, and everything that the browser loads, served from this machine."""

from __future__ import annotations

from pathlib import Path

from dash import Dash, html

from feedalign.lab.explore import deep_page, shallow_page


def create() -> Dash:
    """Return the application. Its `server` is a WSGI application, which any server can serve."""
    app = Dash(
        __name__,
        assets_folder=str(Path(__file__).with_name("assets")),
        title="feedalign explore",
        update_title="",
        serve_locally=True,
    )
    app.layout = layout  # a function: each tab gets a page of its own
    shallow_page.register(app)
    deep_page.register(app)
    return app


def layout() -> html.Main:
    """Return the whole page."""
    links = html.Nav(
        [html.A("A shallow network, in theory", href="#shallow"), html.A("A deep network, live", href="#deep")]
    )
    header = html.Header([html.H1("feedalign explore"), links])
    return html.Main([header, shallow_page.layout(), deep_page.layout()])
