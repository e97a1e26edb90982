"""How do an image's bytes come from the web into a pool? In one bounded, resumable stream.

Each call is one attempt: it goes on from what is staged, and whatever ends it, the bytes that came
count for the next. A `Mark` beside the bytes remembers which version of the file they belong to
(RFC 9110, section 13: validators), so that two versions are never joined.
"""

import io
import ipaddress
import os
import re
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Final, cast

import httpx
import msgspec

from stratus.drivers.failure import DriverFailed
from stratus.drivers.refusal import failed, refusals
from stratus.drivers.volume.contract import VolumeDriver
from stratus.model.image import ImageSpec
from stratus.model.limits import IMAGE_BYTES_MAX
from stratus.model.units import HOUR_MS, KIB, MIB, SECOND_MS, size_text

REDIRECTS_MAX: Final = 5
CONNECT_SECONDS_MAX: Final = 15.0
URL_CHARS_MAX: Final = 4096
CHUNK_BYTES: Final = 1 * MIB
TRANSIENT_STATUS: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
REDIRECT_STATUS: Final = frozenset({301, 302, 303, 307, 308})
CONTENT_RANGE: Final = re.compile(r"^bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)\Z")
HOST_PATTERN: Final = re.compile(r"^[A-Za-z0-9._:-]{1,253}\Z")  # a name, IPv4 or IPv6
USER_AGENT: Final = "stratuslab-image-import"

Clock = Callable[[], float]
Progress = Callable[[int], None]


class DownloadLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much and how long; named and settable by the site."""

    bytes_max: int = IMAGE_BYTES_MAX
    total_seconds: float = 6 * HOUR_MS / SECOND_MS
    stall_seconds: float = 30.0  # without a byte, or below the least rate for so long
    bytes_per_second_min: int = 8 * KIB
    local_addresses: bool = False  # may users make us fetch from this very machine and link?


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """Which version of which file the staged bytes are from."""

    url: str
    etag: str = ""
    modified: str = ""
    total_bytes: int = 0  # 0 = the server did not say


class Downloader:
    """Fetches images into pools; `directory` keeps the marks of unfinished ones."""

    def __init__(
        self,
        directory: Path,
        *,
        limits: DownloadLimits | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock = time.monotonic,
    ) -> None:
        """Use this directory for marks; `tls` adds a site's own authorities, and is verified."""
        self.directory = directory
        self.limits = limits or DownloadLimits()
        self._tls = tls or ssl.create_default_context()
        self._clock = clock
        with refusals(f"Opening the download marks in {directory}"):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def fetch(
        self, pool: VolumeDriver, spec: ImageSpec, *, progress: Progress = lambda _bytes: None
    ) -> int:
        """Stage all bytes of the image in the pool; return how many they are.

        Raises DriverFailed (`download_failed`, `body_too_large`, or what the pool says), marked
        transient where trying again unchanged is worth it. `progress` hears the bytes staged so
        far, and may end the download by raising.
        """
        present = pool.image_bytes_staged(spec.id)
        if spec.size_bytes and present == spec.size_bytes:
            return present
        if spec.size_bytes > self.limits.bytes_max:
            raise _oversized(spec.size_bytes, self.limits.bytes_max)
        attempt = _Attempt(self, pool, spec, progress)
        staged = attempt.run(present)
        if staged is None:
            # What is staged is no beginning of what the server has: once more, from the first byte.
            staged = attempt.run(0)
        if staged is None:
            raise _broken(spec.source, "the server refuses every range", transient=False)
        return staged

    def forget(self, spec: ImageSpec) -> None:
        """Remove the mark of this image; call it when the image is published or unwanted."""
        with refusals(f"Forgetting the download of {spec.id}"):
            self._mark_path(spec).unlink(missing_ok=True)

    def _mark_path(self, spec: ImageSpec) -> Path:
        assert "/" not in spec.id, spec.id
        return self.directory / f"{spec.id}.json"

    def _mark_read(self, spec: ImageSpec) -> Mark | None:
        """The mark of this image's staged bytes; None when there is none, or of another source."""
        with refusals(f"Reading the mark of {spec.id}"):
            try:
                mark = msgspec.json.decode(self._mark_path(spec).read_bytes(), type=Mark)
            except (FileNotFoundError, msgspec.MsgspecError):
                return None
        return mark if mark.url == spec.source else None

    def _mark_write(self, spec: ImageSpec, mark: Mark) -> None:
        """Write the mark before the bytes it speaks of, so that it never comes too late."""
        path = self._mark_path(spec)
        part = path.with_suffix(f".{os.getpid()}.part")
        with refusals(f"Writing the mark of {spec.id}"):
            with part.open("wb") as file:
                file.write(msgspec.json.encode(mark))
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)


class _Attempt:
    """One attempt at one image, within one deadline."""

    def __init__(
        self, owner: Downloader, pool: VolumeDriver, spec: ImageSpec, progress: Progress
    ) -> None:
        self._owner = owner
        self._limits = owner.limits
        self._pool = pool
        self._spec = spec
        self._progress = progress
        self._until = owner._clock() + owner.limits.total_seconds

    def run(self, present: int) -> int | None:
        """Fetch what lies behind the present bytes; None when the server says they do not fit."""
        spec = self._spec
        mark = self._owner._mark_read(spec)
        offset = present if self._joins(mark) else 0
        if mark is not None and 0 < offset == mark.total_bytes:
            return offset
        with self._response(_range_headers(offset, mark)) as response:
            if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE and offset:
                return offset if _total_of_unsatisfied(response) == offset else None
            start = self._start(response, offset, mark)
            if start is None:
                return None
            total = self._total(response, start)
            if present and start == 0:
                # Before the new mark: a crash must not leave it beside bytes of another version.
                self._pool.image_stage(spec.id, io.BytesIO(), offset=0, bytes_max=0)
            self._owner._mark_write(spec, _mark_of(response, spec.source, total))
            reader = _Reader(response, self._limits, self._owner._clock, self._until)
            reader.progress = lambda count: self._progress(start + count)
            staged = self._pool.image_stage(
                spec.id,
                cast(BinaryIO, reader),
                offset=start,
                bytes_max=spec.size_bytes or self._limits.bytes_max,
            )
        if total and staged != total:
            raise _broken(spec.source, f"{staged} of {total} bytes came", transient=True)
        return staged

    def _joins(self, mark: Mark | None) -> bool:
        """Tell whether staged bytes may be gone on with.

        Either the server can be asked for the same version, or a checksum will find out.
        """
        return mark is not None and bool(mark.etag or mark.modified or self._spec.sha256)

    def _start(self, response: httpx.Response, offset: int, mark: Mark | None) -> int | None:
        """From which byte on the response is; None when it is not what was asked for."""
        if response.status_code == httpx.codes.OK:
            return 0
        if response.status_code == httpx.codes.PARTIAL_CONTENT and offset:
            told = CONTENT_RANGE.match(response.headers.get("content-range", ""))
            etag = response.headers.get("etag", "")
            other = mark is not None and mark.etag and etag != mark.etag
            return offset if told and int(told[1]) == offset and not other else None
        raise _broken(
            self._spec.source,
            f"the server answered {response.status_code} {response.reason_phrase}".strip(),
            transient=response.status_code in TRANSIENT_STATUS,
        )

    def _total(self, response: httpx.Response, start: int) -> int:
        """How long the whole file is, checked before any byte is read; 0 when not said."""
        if response.headers.get("content-encoding", "identity") != "identity":
            raise _broken(
                self._spec.source, "the server packs the file on the way", transient=False
            )
        length = response.headers.get("content-length", "")
        total = start + int(length) if re.match(r"^[0-9]{1,18}\Z", length) else 0
        wanted = self._spec.size_bytes
        if total and wanted and total != wanted:
            raise _broken(
                self._spec.source,
                f"the server offers {total} bytes, {wanted} were announced",
                transient=False,
            )
        if total > self._limits.bytes_max:
            raise _oversized(total, self._limits.bytes_max)
        return total or wanted

    @contextmanager
    def _response(self, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """Ask for the file, following a few redirections; network errors become refusals."""
        source = self._spec.source
        timeout = httpx.Timeout(self._limits.stall_seconds, connect=CONNECT_SECONDS_MAX)
        try:
            with httpx.Client(verify=self._owner._tls, timeout=timeout, http2=False) as client:
                url = _url_parse(source)
                for _ in range(REDIRECTS_MAX + 1):
                    with client.stream("GET", url, headers=headers) as response:
                        if not self._limits.local_addresses:
                            _address_require(response)
                        if response.status_code not in REDIRECT_STATUS:
                            yield response
                            return
                        url = _redirected(url, response)
                    self._deadline_require()
        except httpx.HTTPError as error:
            raise _network_failure(source, error) from error
        raise _broken(source, f"more than {REDIRECTS_MAX} redirections", transient=False)

    def _deadline_require(self) -> None:
        if self._owner._clock() > self._until:
            raise _late(self._spec.source, self._limits)


class _Reader(io.RawIOBase):
    """The body as a stream that gives up when it becomes too slow or takes too long."""

    def __init__(
        self, response: httpx.Response, limits: DownloadLimits, clock: Clock, until: float
    ) -> None:
        self._chunks = response.iter_raw()
        self._source = str(response.url)
        self._limits = limits
        self._clock = clock
        self._until = until
        self._rest = b""
        self._count = 0
        self._window_start = clock()
        self._window_count = 0
        self.progress: Progress = lambda _bytes: None

    def readable(self) -> bool:
        """It is for reading only."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return up to `size` bytes, b"" at the end; anything else that ends it raises."""
        wanted = CHUNK_BYTES if size < 0 else size
        if not self._rest:
            self._rest = self._next()
        piece, self._rest = self._rest[:wanted], self._rest[wanted:]
        self._count += len(piece)
        self.progress(self._count)
        return piece

    def _next(self) -> bytes:
        try:
            chunk = next(self._chunks, b"")
        except httpx.HTTPError as error:
            raise _network_failure(self._source, error) from error
        now = self._clock()
        if now > self._until:
            raise _late(self._source, self._limits)
        self._window_count += len(chunk)
        elapsed = now - self._window_start
        if elapsed >= self._limits.stall_seconds:
            if chunk and self._window_count < self._limits.bytes_per_second_min * elapsed:
                raise _broken(
                    self._source,
                    f"only {size_text(self._window_count)} came in {elapsed:.0f} s",
                    transient=True,
                )
            self._window_start, self._window_count = now, 0
        return chunk


def _address_require(response: httpx.Response) -> None:
    """Refuse what this machine itself or its link serves: users must not read that through us.

    The address is the one really connected to, whatever the name server says a moment later.
    """
    stream = response.extensions["network_stream"]
    peer = stream.get_extra_info("server_addr")
    address = ipaddress.ip_address(str(peer[0]).partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    if address.is_loopback or address.is_link_local or address.is_unspecified:
        raise _broken(
            str(response.url),
            f"it leads to {address}, an address of this machine or its link",
            transient=False,
        )


def _range_headers(offset: int, mark: Mark | None) -> dict[str, str]:
    """Ask for the plain file, and for its rest only if it is still the version of the mark."""
    headers = {"accept-encoding": "identity", "user-agent": USER_AGENT}
    if offset:
        headers["range"] = f"bytes={offset}-"
        validator = (mark.etag or mark.modified) if mark else ""
        if validator:
            headers["if-range"] = validator
    return headers


def _mark_of(response: httpx.Response, url: str, total: int) -> Mark:
    etag = response.headers.get("etag", "")
    return Mark(
        url=url,
        etag="" if etag.startswith("W/") else etag,  # weak ones do not promise equal bytes
        modified=response.headers.get("last-modified", ""),
        total_bytes=total,
    )


def _total_of_unsatisfied(response: httpx.Response) -> int:
    """How long the file is, as a server tells when a range lies behind its end."""
    told = re.match(r"^bytes \*/([0-9]{1,18})\Z", response.headers.get("content-range", ""))
    return int(told[1]) if told else -1


def _url_parse(text: str) -> httpx.URL:
    try:
        url = httpx.URL(text) if len(text) <= URL_CHARS_MAX else httpx.URL("")
    except httpx.InvalidURL as error:
        raise _unfit_url(text) from error
    if not _is_web(url):
        raise _unfit_url(text)
    return url


def _is_web(url: httpx.URL) -> bool:
    host = url.raw_host.decode("ascii", errors="replace")
    return url.scheme in ("http", "https") and HOST_PATTERN.match(host) is not None


def _redirected(url: httpx.URL, response: httpx.Response) -> httpx.URL:
    """Where a redirection leads; never from https down to http."""
    try:
        target = url.join(response.headers.get("location", ""))
    except httpx.InvalidURL as error:
        raise _broken(str(url), "it redirects to nowhere", transient=False) from error
    if not _is_web(target):
        raise _broken(str(url), f"it redirects to {target.scheme or 'nowhere'}", transient=False)
    if url.scheme == "https" and target.scheme != "https":
        raise _broken(str(url), "it redirects from https down to http", transient=False)
    return target


def _network_failure(source: str, error: httpx.HTTPError) -> DriverFailed:
    said = str(error) or type(error).__name__
    untrusted = "CERTIFICATE_VERIFY_FAILED" in said
    return _broken(source, said, transient=not untrusted)


def _late(source: str, limits: DownloadLimits) -> DriverFailed:
    return _broken(
        source, f"it was not complete after {limits.total_seconds:.0f} s", transient=True
    )


def _broken(source: str, why: str, *, transient: bool) -> DriverFailed:
    remedy = (
        "We go on by ourselves from what has come; look at the server if it lasts."
        if transient
        else "Check the address in a browser, then import the image again."
    )
    return failed(
        "download_failed", f"{_shown(source)}: {why}.", remedy=remedy, transient=transient
    )


def _oversized(size_bytes: int, bytes_max: int) -> DriverFailed:
    return failed(
        "body_too_large",
        f"The image has {size_text(size_bytes)}; {size_text(bytes_max)} are allowed.",
        remedy="Use a smaller image, or ask your administrator for a higher limit.",
    )


def _unfit_url(text: str) -> DriverFailed:
    return failed(
        "download_failed",
        f"{_shown(text)} is no http or https address.",
        remedy="Give an address that begins with https://, or upload the file.",
    )


def _shown(source: str) -> str:
    """The address without user, password and query, which may be secret."""
    return re.sub(r"//[^/@]*@", "//", source.partition("?")[0])[:200]
