"""What the page asks while it is open. assets/explore.js asks by POST, in JSON, and shows what it is answered."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dash import Dash
from dash.development.base_component import Component
from flask import Response, request

Shown = dict[str, dict[str, Any]]  # by component, its properties and their values


def answer_at(app: Dash, name: str, answer: Callable[[Any], dict[str, Any]]) -> None:
    """Let the application answer questions at /ask/NAME.

    Args:
        app: the application.
        name: of the question.
        answer: from the question to its answer; may run in several threads. The page sets the properties of components
            in the entry "shown", and the numbers beside the dials in the entry "dials".
    """

    def respond() -> Response:
        found = answer(request.get_json())
        return Response(json.dumps(found, default=_plain, allow_nan=False), mimetype="application/json")

    app.server.add_url_rule(f"/ask/{name}", name, respond, methods=["POST"])


def _plain(value: object) -> Any:
    """Return a component as the dictionary that Dash's part in the browser draws."""
    if isinstance(value, Component):
        return value.to_plotly_json()
    raise TypeError(f"an answer holds {value!r}, which is no JSON and no component")
