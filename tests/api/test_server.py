"""Does the server start and stop where and when the composition root says?"""

import socket
import stat
import threading
import time
from pathlib import Path

import httpx
import pytest

from stratus.api.server import server_make
from stratus.model.problem import Refused
from tests.api.asking import instance_make
from tests.api.cloud import cloud_open


def test_a_port_in_use_is_refused_in_words(directory: Path) -> None:
    with cloud_open(directory, serve=False) as cloud, socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(Refused) as refused:
            server_make(cloud.api, host="127.0.0.1", port=taken.getsockname()[1])
        assert refused.value.problem.code == "machine_unfit"
        assert "in use" in refused.value.problem.detail


def test_an_address_that_is_not_here_is_refused_in_words(directory: Path) -> None:
    with cloud_open(directory, serve=False) as cloud, pytest.raises(Refused) as refused:
        server_make(cloud.api, host="203.0.113.1", port=0)
    assert refused.value.problem.code == "machine_unfit"


def test_a_unix_socket_is_for_its_owner_and_group(directory: Path) -> None:
    path = directory / "api.sock"
    with cloud_open(directory, serve=False) as cloud:
        server = server_make(cloud.api, host="127.0.0.1", unix=path)
        server.start()
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert f"unix:{path}" in server.addresses
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
            headers = {"Authorization": f"Bearer {cloud.secrets.token}"}
            assert client.get("http://x/v1/me", headers=headers).json()["name"] == "admin"
        assert httpx.get(f"{server.addresses[0]}/healthz").status_code == 200
        server.stop()
        assert not path.exists()


def test_a_socket_left_by_a_killed_process_is_taken_over(directory: Path) -> None:
    path = directory / "api.sock"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with cloud_open(directory, serve=False) as cloud:
        server = server_make(cloud.api, unix=path)
        server.start()
        with pytest.raises(Refused):
            server_make(cloud.api, unix=path)  # this one is alive
        server.stop()


def test_a_stop_lets_a_request_under_way_finish(directory: Path) -> None:
    with cloud_open(directory) as cloud:
        made = instance_make(cloud.client())["id"]
        cloud.consoles[made] = b"said"
        cloud.consoles.hold = threading.Event()
        answers: list[httpx.Response] = []

        def ask() -> None:
            answers.append(cloud.client().get(f"/v1/instances/{made}/console"))

        asking = threading.Thread(target=ask)
        asking.start()
        time.sleep(0.3)
        assert cloud.server is not None
        stopping = threading.Thread(target=cloud.server.stop)
        stopping.start()
        time.sleep(0.3)
        cloud.consoles.hold.set()
        asking.join(10)
        stopping.join(10)
        assert [answer.content for answer in answers] == [b"said"]
        assert not cloud.server.running
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{cloud.server.addresses_at_start[0]}/healthz")


def test_a_second_stop_is_harmless(directory: Path) -> None:
    with cloud_open(directory) as cloud:
        assert cloud.server is not None
        cloud.server.stop()
        cloud.server.stop()
