"""What does a shell see? The command line as a process of its own."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.cloud import Cloud
from tests.cli.scripted import ScriptedServer, answer, problem, raw, slow
from tests.cli.test_commands import admin_file_write, cloud_quiet

MAIN = "import sys; from stratus.cli.app import app, run; sys.exit(run(app, sys.argv[1:]))"
SECONDS = 30
EVENT = {
    "at": "2026-11-22T19:00:00.000Z",
    "kind": "instance.created",
    "subject": "ins-1",
    "project_id": None,
    "actor": "anna",
    "request_id": "",
    "data": {"name": "web"},
}


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """A site for this file."""
    with cloud_quiet(tmp_path_factory.mktemp("cloud")) as opened:
        yield opened


@pytest.fixture
def site(cloud: Cloud, home: Path) -> Cloud:
    """The site, with its admin file where the commands of this test find it."""
    admin_file_write(cloud, home)
    return cloud


def begin(*argv: str, **more: Any) -> subprocess.Popen[str]:  # noqa: ANN401  # Popen's
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **more}
    return subprocess.Popen([sys.executable, "-c", MAIN, *argv], **options)


def stratus(*argv: str, **more: Any) -> subprocess.CompletedProcess[str]:  # noqa: ANN401
    with begin(*argv, **more) as process:
        out, err = process.communicate(timeout=SECONDS)
    return subprocess.CompletedProcess(argv, process.returncode, out, err)


def event(cursor: str) -> bytes:
    return f"id: {cursor}\ndata: {json.dumps({**EVENT, 'cursor': cursor})}\n\n".encode()


STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


@pytest.mark.usefixtures("site")
def test_data_and_talk_go_separate_ways() -> None:
    made = stratus("run", "tiny", "--name", "apart", "--no-wait", "--json")
    assert made.returncode == 0
    assert json.loads(made.stdout)["items"][0]["name"] == "apart"
    assert made.stderr == ""
    refused = stratus("show", "nobody")
    assert (refused.returncode, refused.stdout) == (5, "")
    assert refused.stderr.startswith("stratus: There is no instance nobody")


@pytest.mark.parametrize(
    ("code", "status", "exit_"),
    [
        ("unauthenticated", 401, 3),
        ("forbidden", 403, 4),
        ("not_found", 404, 5),
        ("conflict", 409, 6),
        ("stale", 412, 6),
        ("quota_exceeded", 409, 7),
        ("never_fits", 422, 8),
        ("body_too_large", 413, 8),
        ("no_space", 503, 9),
        ("bug", 500, 70),
    ],
)
def test_a_refusal_is_an_exit_code_and_no_traceback(
    home: Path, code: str, status: int, exit_: int
) -> None:
    body = problem(code, "It is so.", "Do this.", status)
    with ScriptedServer([answer(status, body)]) as server:
        said = stratus("ps", env=environ(home, server))
    assert (said.returncode, said.stdout) == (exit_, "")
    lines = said.stderr.splitlines()
    assert lines[0] == "stratus: It is so."
    assert lines[-1] == "  request: req-test"
    assert "Traceback" not in said.stderr


def environ(home: Path, server: ScriptedServer) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "STRATUS_ENDPOINT": server.endpoint}


def test_a_dead_cloud_is_an_exit_code(home: Path) -> None:
    env = {**os.environ, "HOME": str(home), "STRATUS_ENDPOINT": "http://127.0.0.1:1"}
    said = stratus("ps", env=env)
    assert said.returncode == 9
    assert "does not answer: Connection refused" in said.stderr
    assert "stratus up" in said.stderr


@pytest.mark.usefixtures("site")
def test_a_reader_that_goes_away_is_no_fault() -> None:
    with begin("--help") as process:
        assert process.stdout is not None
        process.stdout.close()
        process.wait(SECONDS)
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert process.returncode == 141


@pytest.mark.usefixtures("site")
def test_ctrl_c_ends_the_waiting_but_not_the_request(cloud: Cloud) -> None:
    with begin("run", "tiny", "--name", "patient") as process:
        with cloud.client() as client:
            while not client.get("/v1/instances?name=patient").json()["items"]:
                time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (130, "")
    assert "the request goes on (operation opn-" in err
    assert "  try: Look later: stratus operation show opn-" in err
    assert "Traceback" not in err
    with cloud.client() as client:
        assert client.get("/v1/instances?name=patient").json()["items"][0]["desired"] == "running"


def test_ctrl_c_anywhere_else_is_no_traceback(home: Path) -> None:
    released = threading.Event()
    with ScriptedServer([slow(released)]) as server:
        with begin("ps", env=environ(home, server)) as process:
            while not server.asked:
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=SECONDS)
        released.set()
    assert process.returncode == 130
    assert err == "stratus: interrupted.\n"


@pytest.mark.usefixtures("site")
def test_a_terminal_sees_one_live_line_with_the_reason(cloud: Cloud) -> None:
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    env = {**os.environ, "TERM": "xterm"}
    with begin("run", "tiny", "--name", "watched", stderr=writer, env=env) as process:
        os.close(writer)
        with cloud.client() as client:
            while not (found := client.get("/v1/instances?name=watched").json()["items"]):
                time.sleep(0.05)
        time.sleep(1.5)
        cloud.runs(found[0]["id"])
        out = process.communicate(timeout=SECONDS)[0]
    seen = b""
    with contextlib.suppress(OSError):  # EIO: the other side is closed and all is read
        while data := os.read(reader, 65536):
            seen += data
    os.close(reader)
    assert process.returncode == 0
    assert b"watched: pending" in seen
    assert seen.endswith(b"\r\x1b[K")
    assert all(len(line) < 60 + 8 for line in seen.split(b"\r"))
    assert "running" in out


@pytest.mark.usefixtures("site")
def test_without_a_terminal_each_change_is_one_line(cloud: Cloud) -> None:
    with begin("run", "tiny", "--name", "logged") as process:
        with cloud.client() as client:
            while not (found := client.get("/v1/instances?name=logged").json()["items"]):
                time.sleep(0.05)
        time.sleep(2.5)
        cloud.runs(found[0]["id"])
        _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0
    assert len(err.splitlines()) == 1
    assert err.startswith("logged: pending")
    assert "\x1b" not in err


def test_a_broken_event_stream_is_taken_up_where_it_broke(home: Path) -> None:
    released = threading.Event()
    script = [
        raw(STREAM_HEAD + event("1-1") + event("1-2")),
        raw(STREAM_HEAD + b": alive\n\nid: 1-3\ndata: {"),  # broken in the middle of an event
        raw(STREAM_HEAD + event("1-3")),
        slow(released),
    ]
    with ScriptedServer(script) as server:
        with begin("events", "-f", "-q", env=environ(home, server)) as process:
            while len(server.asked) < 4:
                time.sleep(0.05)
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SECONDS)
        released.set()
    assert process.returncode == 0, err
    assert out.split() == ["1-1", "1-2", "1-3"]
    assert [a.headers.get("last-event-id") for a in server.asked] == [None, "1-2", "1-2", "1-3"]


def test_an_event_stream_that_ends_with_a_refusal_says_it(home: Path) -> None:
    body = json.dumps(problem("token_expired", "It has expired.", "Log in.", 401)).encode()
    stream = STREAM_HEAD + event("1-1") + b"event: problem\ndata: " + body + b"\n\n"
    with ScriptedServer([raw(stream)]) as server:
        said = stratus("events", "-f", "--json", env=environ(home, server))
    assert said.returncode == 3
    assert json.loads(said.stdout)["cursor"] == "1-1"
    assert "stratus: It has expired." in said.stderr


@pytest.mark.usefixtures("site")
def test_events_are_followed_live(cloud: Cloud) -> None:
    with begin("events", "-f", "--json") as process:
        assert process.stdout is not None
        time.sleep(1.5)  # the stream begins with what happens from now on
        with cloud.client() as client:
            body = {"project": cloud.project_id, "image": "tiny", "name": "followed"}
            id_ = client.post("/v1/instances", json=body).json()["items"][0]["id"]
        seen = json.loads(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=SECONDS)
    assert (seen["kind"], seen["subject"]) == ("instance.created", id_)
    assert process.returncode == 0


@pytest.mark.usefixtures("site")
def test_ssh_is_told_whose_key_to_expect(
    cloud: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\nexit 7\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    said = stratus("run", "tiny", "--name", "reached", "--no-wait", "-q")
    id_ = said.stdout.strip()
    early = stratus("ssh", "reached")
    assert early.returncode == 6
    assert "reached is not running: pending" in early.stderr
    cloud.runs(id_)
    done = stratus("ssh", "reached", "-l", "debian", "--", "uname", "-a")
    assert done.returncode == 7
    arguments = done.stdout.splitlines()
    assert f"HostKeyAlias={id_}" in arguments
    assert "StrictHostKeyChecking=accept-new" in arguments
    assert arguments[arguments.index("-l") + 1] == "debian"
    address = json.loads(stratus("show", "reached", "--json").stdout)["address"]
    assert arguments[-4:] == ["--", address, "uname", "-a"]


def test_a_fault_of_ours_is_told_without_a_traceback(home: Path) -> None:
    breaking = (
        "import sys\nfrom stratus.cli.app import app, command_add, run\n"
        "command_add(app, 'explode', 'tests.cli.exploding:explode', 'Explode.')\n"
        "sys.exit(run(app, ['explode']))"
    )
    for debug in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-c", breaking],
            capture_output=True,
            text=True,
            env={**os.environ, "HOME": str(home), "STRATUS_DEBUG": debug},
            cwd=Path(__file__).parents[2],
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 70
        assert "This is a fault of ours: ZeroDivisionError" in done.stderr
        assert ("Traceback" in done.stderr) == bool(debug)


def test_a_start_imports_no_more_than_it_must(home: Path) -> None:
    probe = (
        "import sys; from stratus.cli.app import app, run; "
        "code = run(app, sys.argv[1:]); sys.stderr.write(' '.join(sys.modules))"
    )
    with ScriptedServer([answer(200, {"items": [], "next": None})]) as server:
        for argv in (["--version"], ["ps", "--help"], ["ps", "--json"]):
            done = subprocess.run(
                [sys.executable, "-c", probe, *argv],
                capture_output=True,
                text=True,
                env=environ(home, server),
                timeout=SECONDS,
                check=True,
            )
            loaded = set(done.stderr.split())
            for heavy in ("rich", "httpx", "asyncio", "http.client", "ssl", "sqlalchemy", "json"):
                assert heavy not in loaded, f"{argv} imports {heavy}"
