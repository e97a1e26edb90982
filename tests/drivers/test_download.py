"""Do an image's bytes arrive whole from real web servers, good and bad ones?"""

import hashlib
import http.server
import re
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from msgspec.structs import replace

from stratus.drivers.download import Downloader, DownloadLimits, Mark
from stratus.drivers.volume.conformance import refused
from stratus.drivers.volume.fake import FakePool, FakePoolState
from stratus.model.ids import ImageId
from stratus.model.image import ImageFormat, ImageSpec
from stratus.model.units import KIB, MIB

CONTENT = bytes(range(256)) * 2048  # 512 KiB
IMAGE = ImageId("img-1")
LIMITS = DownloadLimits(local_addresses=True, stall_seconds=5.0)


class Faults:
    """How the server misbehaves; tests turn these at will."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.etag = '"v1"'
        self.modified = ""
        self.ranges = True
        self.ignores_if_range = False
        self.cut_at: int | None = None  # close the connection after so many bytes of a body
        self.says_length = True
        self.length_lie = 0
        self.status = 200
        self.pause_seconds = 0.0  # between pieces
        self.redirect = ""
        self.encoding = ""
        self.wrong_range = False
        self.requests: list[dict[str, str]] = []


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Server"

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def do_GET(self) -> None:
        faults = self.server.faults
        faults.requests.append({k.lower(): v for k, v in self.headers.items()})
        if faults.redirect and self.path != "/final":
            self._head(302, {"Location": faults.redirect, "Content-Length": "0"})
            return
        if faults.status != 200:
            self._head(faults.status, {"Content-Length": "0"})
            return
        start = self._start()
        if start >= len(faults.content) > 0:
            total = len(faults.content)
            self._head(416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
            return
        self._body(start)

    def _start(self) -> int:
        faults = self.server.faults
        asked = re.match(r"bytes=(\d+)-$", self.headers.get("Range", ""))
        if not asked or not faults.ranges:
            return 0
        condition = self.headers.get("If-Range", "")
        stale = condition not in ("", faults.etag, faults.modified)
        return 0 if stale and not faults.ignores_if_range else int(asked[1])

    def _body(self, start: int) -> None:
        faults = self.server.faults
        body = faults.content[start:]
        headers = {"ETag": faults.etag, "Last-Modified": faults.modified}
        headers["Content-Encoding"] = faults.encoding
        if faults.says_length:
            headers["Content-Length"] = str(len(body) + faults.length_lie)
        else:
            headers["Connection"] = "close"
            self.close_connection = True
        if start:
            first = start + 1 if faults.wrong_range else start
            total = len(faults.content)
            headers["Content-Range"] = f"bytes {first}-{total - 1}/{total}"
        self._head(206 if start else 200, headers)
        if faults.cut_at is not None:
            body = body[: faults.cut_at]
            self.close_connection = True
        step = 16 * KIB if faults.pause_seconds else len(body) or 1
        for at in range(0, len(body), step):
            self.wfile.write(body[at : at + step])
            time.sleep(faults.pause_seconds)
        if faults.length_lie:
            self.close_connection = True

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.end_headers()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults = Faults()

    def handle_error(self, *_: object) -> None:
        """Stay quiet when a client leaves in the middle."""


@pytest.fixture
def server() -> Iterator[Server]:
    with running(Server()) as one:
        yield one


class running:
    """A server that serves from a thread for a while."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Server:
        self.thread.start()
        return self.server

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(timeout=5)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def state() -> FakePoolState:
    return FakePoolState()


def spec_of(server: Server, *, path: str = "/image.raw", size: int = 0, sha: str = "") -> ImageSpec:
    return ImageSpec(
        id=IMAGE,
        source=f"http://127.0.0.1:{server.server_port}{path}",
        format=ImageFormat.RAW,
        size_bytes=size,
        sha256=sha,
    )


def downloader(tmp_path: Path, **limits: float) -> Downloader:
    return Downloader(tmp_path / "marks", limits=replace(LIMITS, **limits))


def staged_content(state: FakePoolState) -> bytes:
    return bytes(state._staged.get(IMAGE, b""))


SHA = hashlib.sha256(CONTENT).hexdigest()


def test_an_image_arrives_whole_and_can_be_published(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    heard: list[int] = []
    pool = FakePool(state)
    one = downloader(tmp_path)
    assert one.fetch(pool, spec_of(server), progress=heard.append) == len(CONTENT)
    assert heard[-1] == len(CONTENT)
    assert staged_content(state) == CONTENT
    assert server.faults.requests[0]["accept-encoding"] == "identity"
    assert pool.image_publish(IMAGE, format=ImageFormat.RAW, size_bytes=0, sha256=SHA)
    one.forget(spec_of(server))
    one.forget(spec_of(server))
    assert not list((tmp_path / "marks").iterdir())


@pytest.mark.parametrize("validator", ["etag", "modified"])
def test_a_cut_download_goes_on_where_it_stopped(
    server: Server, state: FakePoolState, tmp_path: Path, validator: str
) -> None:
    if validator == "modified":
        server.faults.etag, server.faults.modified = "", "Wed, 21 Oct 2026 07:28:00 GMT"
    server.faults.cut_at = 100_000
    failure = refused(
        "download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    )
    assert failure.transient
    assert len(staged_content(state)) == 100_000
    server.faults.cut_at = None
    assert downloader(tmp_path).fetch(FakePool(state), spec_of(server)) == len(CONTENT)
    assert staged_content(state) == CONTENT
    again = server.faults.requests[-1]
    assert again["range"] == "bytes=100000-"
    assert again["if-range"] == server.faults.etag or server.faults.modified


def test_a_cut_at_every_try_still_ends(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.cut_at = 150_000
    for _ in range(3):
        fetch = partial(downloader(tmp_path).fetch, FakePool(state), spec_of(server))
        assert refused("download_failed", fetch).transient
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    assert staged_content(state) == CONTENT


def test_a_server_without_ranges_starts_again_from_the_first_byte(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.cut_at, server.faults.ranges = 100_000, False
    refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server)))
    server.faults.cut_at = None
    assert downloader(tmp_path).fetch(FakePool(state), spec_of(server)) == len(CONTENT)
    assert staged_content(state) == CONTENT


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_two_versions_of_a_file_are_never_joined(
    server: Server, state: FakePoolState, tmp_path: Path, ignores_if_range: bool
) -> None:
    server.faults.cut_at = 100_000
    refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server)))
    server.faults.cut_at = None
    server.faults.content, server.faults.etag = CONTENT[::-1], '"v2"'
    server.faults.ignores_if_range = ignores_if_range
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    assert staged_content(state) == CONTENT[::-1]


def test_without_any_validator_only_a_checksum_lets_bytes_be_joined(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.etag = 'W/"weak"'
    for sha, expected in (("", None), (SHA, "bytes=100000-")):
        server.faults.cut_at = 100_000
        spec = spec_of(server, sha=sha)
        FakePool(state).ensure_image_absent(IMAGE)
        refused("download_failed", lambda s=spec: downloader(tmp_path).fetch(FakePool(state), s))
        server.faults.cut_at = None
        downloader(tmp_path).fetch(FakePool(state), spec)
        assert server.faults.requests[-1].get("range") == expected
        assert staged_content(state) == CONTENT


def test_bytes_from_another_address_are_not_gone_on_with(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.cut_at = 100_000
    refused(
        "download_failed",
        lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server, sha=SHA)),
    )
    server.faults.cut_at = None
    downloader(tmp_path).fetch(FakePool(state), spec_of(server, path="/other.raw", sha=SHA))
    assert "range" not in server.faults.requests[-1]
    assert staged_content(state) == CONTENT


def test_a_complete_download_is_not_fetched_again(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    asked = len(server.faults.requests)
    assert downloader(tmp_path).fetch(FakePool(state), spec_of(server)) == len(CONTENT)
    known = spec_of(server, size=len(CONTENT))
    assert downloader(tmp_path).fetch(FakePool(state), known) == len(CONTENT)
    assert len(server.faults.requests) == asked


def test_a_range_behind_the_end_means_complete_or_from_the_start(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.says_length = False  # so that the mark does not know the length either
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    asked = len(server.faults.requests)
    assert downloader(tmp_path).fetch(FakePool(state), spec_of(server)) == len(CONTENT)
    assert len(server.faults.requests) == asked + 1
    server.faults.content, server.faults.ignores_if_range = CONTENT[:1000], True
    assert downloader(tmp_path).fetch(FakePool(state), spec_of(server)) == 1000
    assert staged_content(state) == CONTENT[:1000]


def test_a_range_that_was_not_asked_for_is_not_believed(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.cut_at = 100_000
    refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server)))
    server.faults.cut_at, server.faults.wrong_range = None, True
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    assert staged_content(state) == CONTENT


# -- bounds ----------------------------------------------------------------------------------------


def test_a_wrong_length_is_refused_before_any_byte(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    spec = spec_of(server, size=len(CONTENT) - 1)
    failure = refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec))
    assert not failure.transient
    assert not staged_content(state)


def test_a_body_beyond_the_limit_is_refused_whether_it_is_said_or_not(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    small = downloader(tmp_path, bytes_max=1000)
    refused("body_too_large", lambda: small.fetch(FakePool(state), spec_of(server)))
    assert not staged_content(state)
    refused("body_too_large", lambda: small.fetch(FakePool(state), spec_of(server, size=1001)))
    server.faults.says_length = False
    refused("body_too_large", lambda: small.fetch(FakePool(state), spec_of(server)))
    assert len(staged_content(state)) <= 1000


def test_a_body_without_a_length_that_ends_early_is_noticed(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.says_length, server.faults.cut_at = False, 1000
    spec = spec_of(server, size=len(CONTENT))
    assert refused(
        "download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec)
    ).transient


def test_a_body_shorter_than_its_length_is_noticed(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.length_lie = 10
    assert refused(
        "download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    ).transient
    assert len(staged_content(state)) == len(CONTENT)


def test_a_silent_server_is_given_up(server: Server, state: FakePoolState, tmp_path: Path) -> None:
    server.faults.pause_seconds = 5.0
    slow = downloader(tmp_path, stall_seconds=0.2)
    assert refused(
        "download_failed", lambda: slow.fetch(FakePool(state), spec_of(server))
    ).transient


def test_a_trickle_is_given_up(server: Server, state: FakePoolState, tmp_path: Path) -> None:
    server.faults.pause_seconds = 0.05  # 320 KiB/s
    slow = downloader(tmp_path, stall_seconds=0.3, bytes_per_second_min=10 * MIB)
    failure = refused("download_failed", lambda: slow.fetch(FakePool(state), spec_of(server)))
    assert failure.transient
    assert "only" in failure.problem.detail


def test_a_download_has_a_deadline(server: Server, state: FakePoolState, tmp_path: Path) -> None:
    server.faults.pause_seconds = 0.05
    slow = downloader(tmp_path, total_seconds=0.2, bytes_per_second_min=0)
    failure = refused("download_failed", lambda: slow.fetch(FakePool(state), spec_of(server)))
    assert "not complete after" in failure.problem.detail
    assert 0 < len(staged_content(state)) < len(CONTENT)


def test_a_listener_may_end_a_download(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    class Unwanted(Exception):
        pass

    def progress(_bytes: int) -> None:
        raise Unwanted

    with pytest.raises(Unwanted):
        downloader(tmp_path).fetch(FakePool(state), spec_of(server), progress=progress)
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))


def test_what_the_pool_refuses_comes_through(server: Server, tmp_path: Path) -> None:
    full = FakePoolState(total_bytes=1000)
    refused("no_space", lambda: downloader(tmp_path).fetch(FakePool(full), spec_of(server)))


# -- addresses -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [
        "file:///etc/passwd",
        "ftp://example.org/x",
        "upload:img-1",
        "",
        "http://",
        "http://[",
        "https://" + "x" * 5000,
    ],
)
def test_only_web_addresses_are_fetched(state: FakePoolState, tmp_path: Path, source: str) -> None:
    spec = ImageSpec(id=IMAGE, source=source, format=ImageFormat.RAW, size_bytes=0, sha256="")
    failure = refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec))
    assert not failure.transient


@pytest.mark.parametrize(
    ("status", "transient"), [(404, False), (403, False), (410, False), (503, True), (429, True)]
)
def test_an_answer_says_whether_trying_again_is_worth_it(
    server: Server, state: FakePoolState, tmp_path: Path, status: int, transient: bool
) -> None:
    server.faults.status = status
    failure = refused(
        "download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    )
    assert failure.transient is transient
    assert str(status) in failure.problem.detail


def test_a_server_that_is_not_there_is_worth_another_try(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    spec = spec_of(server)
    server.shutdown()
    server.server_close()
    assert refused(
        "download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec)
    ).transient


def test_redirections_are_followed_a_few_times(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.redirect = "/final"
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    assert staged_content(state) == CONTENT
    server.faults.redirect = "/round"
    FakePool(state).ensure_image_absent(IMAGE)
    downloader(tmp_path).forget(spec_of(server))
    failure = refused(
        "download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    )
    assert "redirections" in failure.problem.detail
    for target in ("file:///etc/passwd", "ftp://example.org/", "http://["):
        server.faults.redirect = target
        refused(
            "download_failed",
            lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server)),
        )
    assert not staged_content(state)


def test_a_body_packed_on_the_way_is_refused(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    server.faults.encoding = "gzip"
    refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server)))


def test_this_machines_own_addresses_are_refused_unless_the_site_allows_them(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    strict = downloader(tmp_path, local_addresses=False)
    failure = refused("download_failed", lambda: strict.fetch(FakePool(state), spec_of(server)))
    assert "127.0.0.1" in failure.problem.detail
    assert not staged_content(state)


def test_secrets_in_an_address_are_not_repeated(state: FakePoolState, tmp_path: Path) -> None:
    source = "http://user:s3cret@127.0.0.1:1/x?token=t0ken"
    spec = ImageSpec(id=IMAGE, source=source, format=ImageFormat.RAW, size_bytes=0, sha256="")
    failure = refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec))
    assert "s3cret" not in failure.problem.detail
    assert "t0ken" not in failure.problem.detail


# -- TLS -------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key in one file."""
    both = tmp_path / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(both), "-out", str(tmp_path / "certificate.pem")),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    both.write_text(both.read_text() + (tmp_path / "certificate.pem").read_text())
    return both


def test_tls_is_verified_and_never_left_by_a_redirection(
    server: Server, state: FakePoolState, tmp_path: Path, authority: Path
) -> None:
    secure = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    secure.socket = context.wrap_socket(secure.socket, server_side=True)
    with running(secure):
        source = f"https://127.0.0.1:{secure.server_port}/x"
        spec = ImageSpec(id=IMAGE, source=source, format=ImageFormat.RAW, size_bytes=0, sha256="")
        failure = refused(
            "download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec)
        )
        assert "CERTIFICATE_VERIFY_FAILED" in failure.problem.detail
        assert not failure.transient
        trusting = Downloader(
            tmp_path / "marks",
            limits=LIMITS,
            tls=ssl.create_default_context(cafile=str(tmp_path / "certificate.pem")),
        )
        secure.faults.redirect = spec_of(server).source
        failure = refused("download_failed", lambda: trusting.fetch(FakePool(state), spec))
        assert "down to http" in failure.problem.detail
        assert not server.faults.requests
        secure.faults.redirect = ""
        assert trusting.fetch(FakePool(state), spec) == len(CONTENT)


def test_marks_outlive_a_crash_between_truncating_and_staging(
    server: Server, state: FakePoolState, tmp_path: Path
) -> None:
    """A new version's mark must never stand beside an old version's bytes."""
    server.faults.cut_at = 100_000
    refused("download_failed", lambda: downloader(tmp_path).fetch(FakePool(state), spec_of(server)))
    server.faults.content, server.faults.etag = CONTENT[::-1], '"v2"'

    class Crashed(BaseException):
        pass

    class Crashing(Downloader):
        def _mark_write(self, spec: ImageSpec, mark: Mark) -> None:
            super()._mark_write(spec, mark)
            raise Crashed

    with pytest.raises(Crashed):
        Crashing(tmp_path / "marks", limits=LIMITS).fetch(FakePool(state), spec_of(server))
    server.faults.cut_at = None
    downloader(tmp_path).fetch(FakePool(state), spec_of(server))
    assert staged_content(state) == CONTENT[::-1]
    assert [path.name for path in (tmp_path / "marks").iterdir()] == [f"{IMAGE}.json"]
