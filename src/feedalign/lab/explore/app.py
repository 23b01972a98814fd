"""The page: both sections, what the browser loads, and the answers to what the page asks while it is open."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from dash import Dash, html
from dash.development.base_component import Component
from flask import Response, request

from feedalign.lab.explore import deep_page, shallow_page


def create() -> Dash:
    """Return the application. Its `server` is a WSGI application, which any server can serve.

    assets/explore.js asks at /ask/NAME by POST, in JSON. It sets the properties of components in the entry "shown" of
    the answer, and the numbers beside the dials in the entry "dials". Questions may come in several threads at once.
    """
    app = Dash(
        __name__,
        assets_folder=str(Path(__file__).with_name("assets")),
        title="feedalign explore",
        update_title="",
        serve_locally=True,
    )
    app.layout = layout  # a function: each tab gets a page of its own
    for name, answer in (shallow_page.answers() | deep_page.answers()).items():
        app.server.add_url_rule(f"/ask/{name}", name, partial(_respond, answer), methods=["POST"])
    return app


def layout() -> html.Main:
    """Return the whole page."""
    links = html.Nav(
        [html.A("A shallow network, in theory", href="#shallow"), html.A("A deep network, live", href="#deep")]
    )
    header = html.Header([html.H1("feedalign explore"), links])
    return html.Main([header, shallow_page.layout(), deep_page.layout()])


def _respond(answer: Callable[[Any], dict[str, Any]]) -> Response:
    # Components become the dictionaries that Dash's part in the browser draws.
    text = json.dumps(answer(request.get_json()), default=Component.to_plotly_json, allow_nan=False)
    return Response(text, mimetype="application/json")
