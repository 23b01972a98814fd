"""Serving the page: on this machine only, until Ctrl-C."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from feedalign.checks import whole_number
from feedalign.errors import ArgumentError
from feedalign.extras import needs

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"
LAST_PORT = 65_535
# A page of another site can make its own name mean 127.0.0.1. Its requests still carry that name.
OWN_NAMES = (HOST, "localhost")


def serve(port: int = 8050, tell: Callable[[str], object] = print) -> None:
    """Serve the page at http://127.0.0.1:PORT, for this machine only, until Ctrl-C.

    Args:
        port: where to listen; 0 takes a free port.
        tell: called with each line for the user, the address among them.

    Raises:
        ArgumentError: `port` is no port, or another program listens there.
        MissingExtraError: a package of the extra `explore` is not installed.
    """
    port = whole_number("port", port, 0, LAST_PORT)
    with needs("explore", "feedalign explore"):
        from feedalign.lab.explore.app import create
        from feedalign.lab.explore.deep_study import DeepSetting, DeepTraining
        from feedalign.lab.explore.shallow_study import ShallowSetting, study

        app = create()
    try:
        server = make_server(HOST, port, local_only(app.server), Server, QuietHandler)
    except OSError as error:
        raise ArgumentError(
            f"port={port} cannot be used ({error}); choose another port, or 0 for a free one"
        ) from error
    with server:
        try:
            tell("Preparing; the first time this takes about a minute, on a busy machine a few minutes.")
            # Compiles the theory, which is then kept on disk, and loads what torch loads when it is first used.
            for activation in ("erf", "relu"):
                study(ShallowSetting(activation, end_time=1.0, simulate=True))
            DeepTraining(DeepSetting(epochs=1)).advance()
            tell(f"Open http://{HOST}:{server.server_port} in a browser; Ctrl-C ends the program.")
            server.serve_forever()
        except KeyboardInterrupt:
            tell("Ended.")


def local_only(application: WSGIApplication) -> WSGIApplication:
    """Return an application that answers only requests which name this machine as their host."""

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("HTTP_HOST", "").partition(":")[0] in OWN_NAMES:
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [f"This page is served to {HOST} only.\n".encode()]

    return answer


class Server(ThreadingMixIn, WSGIServer):
    """A server that answers several requests at a time, and does not wait for them when it ends."""

    daemon_threads = True


class QuietHandler(WSGIRequestHandler):
    """A handler that does not print a line for every request."""

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""
