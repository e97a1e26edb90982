"""Does the command line stay calm when the network does not?"""

import threading
from pathlib import Path

import pytest

from stratus.cli.client import Client, decode
from stratus.cli.settings import Place
from stratus.cli.transport import Connection, Cut, Slow, Unreachable
from stratus.cli.trouble import Exit, Trouble
from stratus.wire.v1 import TypeView
from tests.cli.conftest import Stratus
from tests.cli.scripted import Act, ScriptedServer, answer, cut, problem, raw, slow

TYPE = {"name": "m1.small", "vcpus": 1, "memory_mib": 2048, "swap_mib": 0, "root_gib": 0}
PAGE = {"items": [TYPE], "next": None}


@pytest.fixture
def naps() -> list[float]:
    """The pauses that the client made."""
    return []


def client_of(server: ScriptedServer, naps: list[float]) -> Client:
    return Client(Place(endpoint=server.endpoint, token="st_x_y"), sleep=naps.append)


def ask(connection: Connection) -> bytes:
    return connection.ask("GET", "/", headers={}, body=b"", timeout_seconds=5).body


def test_a_connection_is_kept_between_requests(naps: list[float]) -> None:
    with ScriptedServer([answer(200, TYPE), answer(200, TYPE)]) as server:
        client = client_of(server, naps)
        for _ in range(2):
            assert client.get("/v1/types/m1.small", TypeView).vcpus == 1
    assert naps == []


def test_a_kept_connection_that_ended_is_opened_anew(naps: list[float]) -> None:
    with ScriptedServer([answer(200, TYPE), cut, answer(200, TYPE)]) as server:
        client = client_of(server, naps)
        client.get("/v1/types/m1.small", TypeView)
        assert client.get("/v1/types/m1.small", TypeView).name == "m1.small"
    assert len(naps) == 1


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\n\r\nabcde",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde",
        b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nabcde",
    ],
)
def test_every_way_to_say_the_length_is_understood(data: bytes) -> None:
    with ScriptedServer([raw(data)]) as server:
        assert ask(Connection(server.endpoint)) == b"abcde"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
    ],
)
def test_half_an_answer_is_no_answer(data: bytes) -> None:
    with ScriptedServer([raw(data)]) as server, pytest.raises(Cut):
        ask(Connection(server.endpoint))


def test_an_answer_that_never_comes_is_given_up() -> None:
    released = threading.Event()
    with ScriptedServer([slow(released)]) as server:
        connection = Connection(server.endpoint)
        with pytest.raises(Slow):
            connection.ask("GET", "/", headers={}, body=b"", timeout_seconds=0.1)
        released.set()


def test_a_head_request_has_no_body() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\nUpload-Offset: 7\r\n\r\n"
    with ScriptedServer([raw(head)]) as server:
        said = Connection(server.endpoint).ask("HEAD", "/", headers={}, body=b"", timeout_seconds=5)
    assert said.headers["upload-offset"] == "7"
    assert said.body == b""


def test_where_nothing_listens_is_said_at_once(naps: list[float]) -> None:
    client = Client(Place(endpoint="http://127.0.0.1:1"), sleep=naps.append)
    with pytest.raises(Trouble) as caught:
        client.call("GET", "/v1")
    assert caught.value.exit is Exit.UNAVAILABLE
    assert "Connection refused" in caught.value.detail
    assert naps == []


def test_an_unknown_name_is_said_as_such() -> None:
    with pytest.raises(Unreachable, match="not known"):
        ask(Connection("http://no-such-host.invalid"))


def test_a_repeated_change_carries_the_same_key(naps: list[float]) -> None:
    with ScriptedServer([cut, cut, answer(200, TYPE)]) as server:
        client_of(server, naps).call("POST", "/v1/types", body=b"{}")
    keys = {asked.headers["idempotency-key"] for asked in server.asked}
    assert len(server.asked) == 3
    assert len(keys) == 1
    assert len(naps) == 2


def test_two_changes_carry_two_keys(naps: list[float]) -> None:
    with ScriptedServer([answer(200, TYPE), answer(200, TYPE)]) as server:
        client = client_of(server, naps)
        for _ in range(2):
            client.call("POST", "/v1/types", body=b"{}")
    assert len({asked.headers["idempotency-key"] for asked in server.asked}) == 2


def test_repeating_has_an_end(naps: list[float]) -> None:
    notes: list[str] = []
    with ScriptedServer([cut] * 50) as server, pytest.raises(Trouble) as caught:
        Client(Place(endpoint=server.endpoint), sleep=naps.append, note=notes.append).call(
            "GET", "/v1"
        )
    assert caught.value.exit is Exit.UNAVAILABLE
    assert len(server.asked) == 6
    assert naps == [0.2, 0.4, 0.8, 1.6, 3.2]
    assert notes[0] == "The connection broke; trying again in 0.4 s."


def test_what_must_not_be_repeated_is_not(naps: list[float]) -> None:
    with ScriptedServer([cut, answer(200)]) as server, pytest.raises(Trouble):
        client_of(server, naps).call("POST", "/v1/tokens", body=b"{}", once=True)
    assert len(server.asked) == 1


BUSY = problem("overloaded", "The service is busy.", "Wait.", 503)
FULL = problem("no_space", "The pool is full.", "Delete something.", 503)


def test_a_busy_cloud_is_given_the_time_it_asks_for(naps: list[float]) -> None:
    with ScriptedServer([answer(503, BUSY, Retry_After="3"), answer(200, TYPE)]) as server:
        client_of(server, naps).get("/v1/types/m1.small", TypeView)
    assert naps == [3.0]


@pytest.mark.parametrize(
    "refusal",
    [
        answer(503, FULL, Retry_After="1"),
        answer(503, BUSY, Retry_After="3600"),
    ],
)
def test_waiting_is_not_offered_where_it_does_not_help(refusal: Act, naps: list[float]) -> None:
    with ScriptedServer([refusal]) as server, pytest.raises(Trouble) as caught:
        client_of(server, naps).call("GET", "/v1")
    assert caught.value.exit is Exit.UNAVAILABLE
    assert naps == []


def test_a_repeated_change_waits_for_its_own_first_try(naps: list[float]) -> None:
    busy = problem("conflict", "A request with this key is being carried out.", "Wait.", 409)
    with ScriptedServer([cut, answer(409, busy), answer(200, TYPE)]) as server:
        client_of(server, naps).call("POST", "/v1/types", body=b"{}")
    assert len(server.asked) == 3


def test_a_first_conflict_is_final(naps: list[float]) -> None:
    said = problem("conflict", "It is running.", "Stop it first.", 409)
    with ScriptedServer([answer(409, said)]) as server, pytest.raises(Trouble) as caught:
        client_of(server, naps).call("POST", "/v1/types", body=b"{}")
    assert caught.value.exit is Exit.CONFLICT
    assert caught.value.request_id == "req-test"


def test_a_stranger_is_recognised_as_one(naps: list[float]) -> None:
    with (
        ScriptedServer([answer(404, b"<html>not here</html>")]) as server,
        pytest.raises(Trouble) as caught,
    ):
        client_of(server, naps).call("GET", "/v1")
    assert caught.value.exit is Exit.NOT_FOUND
    assert "not in the words of StratusLab" in caught.value.detail


def test_a_newer_cloud_may_say_more_but_not_less() -> None:
    assert decode(
        b'{"name":"a","vcpus":1,"memory_mib":1,"swap_mib":0,"root_gib":0,"gpus":2}', TypeView
    )
    with pytest.raises(Trouble) as caught:
        decode(b'{"name":"a"}', TypeView)
    assert "same release" in caught.value.remedy


def test_a_list_is_followed_to_its_end(naps: list[float]) -> None:
    one, two = {"items": [TYPE], "next": "c/1"}, {"items": [TYPE, TYPE], "next": None}
    with ScriptedServer([answer(200, one), answer(200, two)]) as server:
        assert len(client_of(server, naps).items("/v1/types", TypeView)) == 3
    assert server.asked[1].target == "/v1/types?limit=1000&cursor=c%2F1"


def test_a_list_that_runs_in_circles_ends(naps: list[float]) -> None:
    page = {"items": [TYPE], "next": "same"}
    with ScriptedServer([answer(200, page)] * 5) as server:
        assert len(client_of(server, naps).items("/v1/types", TypeView)) == 2


def test_the_token_goes_along_and_answers_are_printed_unchanged(
    stratus: Stratus, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = b'"vcpus":1,"memory_mib":64,"swap_mib":0,"root_gib":0'
    body = b'{"items":[{"name":"x",' + size + b',"new":[1.50]}],"next":null}'
    with ScriptedServer([answer(200, body)]) as server:
        monkeypatch.setenv("STRATUS_ENDPOINT", server.endpoint)
        monkeypatch.setenv("STRATUS_TOKEN_FILE", str(token_file))
        said = stratus("type", "ls", "--json")
    assert said.code == 0
    assert said.out.encode() == body + b"\n"
    assert server.asked[0].headers["authorization"] == "Bearer st_test_secret"


def test_nothing_from_the_cloud_commands_the_terminal(
    stratus: Stratus, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = {**TYPE, "name": "a\x1b]0;owned\x07\r\nb"}
    with ScriptedServer([answer(200, {"items": [evil], "next": None})]) as server:
        monkeypatch.setenv("STRATUS_ENDPOINT", server.endpoint)
        monkeypatch.setenv("STRATUS_TOKEN_FILE", str(token_file))
        said = stratus("type", "ls")
    assert "\x1b" not in said.out
    assert len(said.out.splitlines()) == 2
