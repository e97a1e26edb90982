"""Who asked for what? One line per request, written away from the event loop.

Whoever reads the log may be slow, and a full pipe must not stop the door: lines are gathered
for a moment and written by a thread of their own. When even that does not keep up, lines are
left out and counted.
"""

import threading
import time
from collections import deque
from typing import Any, Final

import structlog

from stratus.api.exchange import Exchange
from stratus.api.settings import ApiSettings

LOG: Final = structlog.get_logger("stratus.access")
QUIET: Final = frozenset({"/healthz", "/readyz", "/metrics"})

Line = tuple[float, str, str, int, float, int, str, str, str, str]


class AccessLog:
    """The lines not written yet, and the thread that writes them."""

    def __init__(self, settings: ApiSettings) -> None:
        self._seconds = settings.log_seconds
        self._lines: deque[Line] = deque()
        self._lines_max = settings.log_lines_max
        self._left_out = 0
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def open(self) -> None:
        """Start writing."""
        self._thread = threading.Thread(target=self._write_loop, name="api-log", daemon=True)
        self._thread.start()

    def note(self, exchange: Exchange, method: str, path: str, status: int, seconds: float) -> None:
        """Gather the line of one request."""
        if len(self._lines) >= self._lines_max:
            self._left_out += 1
            return
        self._lines.append(
            (
                time.time(),
                method,
                path,
                status,
                seconds,
                exchange.sent_bytes,
                exchange.user,
                exchange.address,
                exchange.request_id,
                exchange.route,
            )
        )

    def close(self) -> None:
        """Write what is left, and return."""
        self._closed.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * self._seconds + 1)

    def _write_loop(self) -> None:
        log = LOG.bind()  # as it is configured now, once instead of at every line
        last = False
        while not last:
            last = self._closed.wait(self._seconds)
            for _ in range(len(self._lines)):
                self._write(log, self._lines.popleft())
            if self._left_out:
                log.warning("lines left out", lines=self._left_out)
                self._left_out = 0

    def _write(self, log: Any, line: Line) -> None:  # noqa: ANN401  # structlog's bound logger
        at, method, path, status, seconds, sent_bytes, user, address, request_id, route = line
        say = log.debug if route in QUIET and status < 400 else log.info
        say(
            "request",
            at=round(at, 3),
            method=method,
            path=path,
            status=status,
            ms=round(seconds * 1000, 2),
            bytes=sent_bytes,
            user=user,
            address=address,
            request_id=request_id,
        )
