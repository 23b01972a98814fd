"""The page is served to this machine only, and Ctrl-C ends it."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from wsgiref.util import setup_testing_defaults

import pytest
from tests.cases.browser import PATIENCE

from feedalign import cli
from feedalign.errors import ArgumentError
from feedalign.lab.explore.serving import HOST, local_only, serve


@pytest.mark.slow
def test_the_command_tells_its_address_answers_and_ends_with_ctrl_c() -> None:
    command = [sys.executable, "-m", "feedalign", "explore", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline().startswith("Preparing")
            line = process.stdout.readline()
            found = re.fullmatch(r"Open (http://127\.0\.0\.1:(\d+)) in a browser; Ctrl-C ends the program\.\n", line)
            assert found is not None
            with urllib.request.urlopen(found[1], timeout=PATIENCE) as answer:
                assert b"feedalign explore" in answer.read()
            foreign = urllib.request.Request(found[1], headers={"Host": f"feedalign.example:{found[2]}"})
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(foreign, timeout=PATIENCE)
            # 127.0.0.2 is this machine as well; a server that listens at every address would answer there.
            with pytest.raises(OSError, match=r"refused|reach|assign"):
                socket.create_connection(("127.0.0.2", int(found[2])), timeout=5)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=PATIENCE) == 0
            assert process.stdout.read() == "Ended.\n"
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_a_port_that_is_taken_is_told_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ArgumentError, match=f"port={port} cannot be used .*; choose another port"):
            serve(port)
        assert cli.main(["explore", "--port", str(port)]) == 2
    assert f"feedalign: port={port} cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize("port", [-1, 65_536, 1.5])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(ArgumentError, match="port"):
        serve(port)


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8050", "200 OK"),
        ("127.0.0.1", "200 OK"),  # at port 80
        ("localhost:8050", "200 OK"),
        ("evil.example:8050", "403 Forbidden"),
        ("127.0.0.1.evil.example:8050", "403 Forbidden"),
        ("", "403 Forbidden"),
    ],
)
def test_only_requests_for_this_machine_are_answered(host: str, status: str) -> None:
    told: list[str] = []

    def page(environ: object, start_response: Callable[..., object]) -> list[bytes]:
        start_response("200 OK", [])
        return [b"page"]

    environ: dict[str, object] = {}
    setup_testing_defaults(environ)
    environ["HTTP_HOST"] = host
    body = b"".join(local_only(page)(environ, lambda status, headers: told.append(status)))  # type: ignore[arg-type]
    assert told == [status]
    assert (body == b"page") is (status == "200 OK")
