"""How do we talk to a libvirt daemon, in bounded time, and survive its going and coming?

Every call of a driver runs in a thread of its own, so that its caller is answered in time even
when libvirt is not: a hung daemon is noticed by keep-alive, a hung guest only by the clock. A
call that nobody waits for any more does not take another step.
"""

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Generic, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import libvirt
from msgspec.structs import replace

from stratus.drivers.failure import DriverFailed, EngineUnreachable
from stratus.drivers.hypervisor.libvirt_refusal import (
    TRANSIENT_CODES,
    is_unsupported,
    refusal_problem,
    said_by,
    silence_problem,
)
from stratus.model.problem import Problem

log = logging.getLogger(__name__)

KEEPALIVE_SECONDS: Final = 5
KEEPALIVE_MISSES_MAX: Final = 3
OPEN_SECONDS_MAX: Final = 20.0
LOOK_SECONDS_MAX: Final = 60.0  # a daemon asked for the first time asks every QEMU binary
CHANGE_SECONDS_MAX: Final = 120.0
STUCK_CALLS_MAX: Final = 16  # of one connection; beyond it every call is refused at once
RECONNECT_SECONDS_MIN: Final = 0.5
RECONNECT_SECONDS_MAX: Final = 10.0

T = TypeVar("T")
P = ParamSpec("P")


class Abandoned(Exception):
    """Nobody waits for this call any more; it must not take another step."""


@dataclass(kw_only=True)
class Call:
    """One call of a driver on its way to the daemon."""

    conn: libvirt.virConnect
    after_step: Callable[[str], None]
    abandoned: threading.Event = field(default_factory=threading.Event)

    def do(self, step: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Take one step, unless nobody waits for it any more."""
        if self.abandoned.is_set():
            raise Abandoned
        result = step(*args, **kwargs)
        self.after_step(step.__name__)
        return result


def no_step(_name: str) -> None:
    """Do nothing after a step."""


class LibvirtConnection:
    """One connection to the daemon at `uri`; made when needed, and again when lost.

    `refusal_code` is the code of every refusal; without it each kind of refusal has its own.
    """

    def __init__(
        self, uri: str, *, after_step: Callable[[str], None] = no_step, refusal_code: str = ""
    ) -> None:
        event_loop_ensure()
        self.uri = uri
        self.scheme = urlsplit(uri).scheme.partition("+")[0]
        self.is_local = not urlsplit(uri).hostname and "+ssh" not in uri
        self.is_session = urlsplit(uri).path == "/session"
        self.after_step = after_step
        self.refusal_code = refusal_code
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._conn: libvirt.virConnect | None = None
        self._stuck = 0
        self._retry_at = 0.0
        self._retry_seconds = RECONNECT_SECONDS_MIN
        self._trouble: Problem | None = None
        self._opened: list[Callable[[libvirt.virConnect], None]] = []
        self._lost: list[Callable[[], None]] = []
        self._closed = False

    def on_open(self, act: Callable[[libvirt.virConnect], None]) -> None:
        """Do this with the present connection, and with every one made from now on."""
        with self._lock:
            self._opened.append(act)
            conn = self._conn
        with suppress(EngineUnreachable):  # done as soon as the daemon answers
            if conn is None:
                self._connected()
            else:
                self.look(lambda call: act(call.conn))

    def on_lost(self, act: Callable[[], None]) -> None:
        """Do this whenever the connection breaks."""
        self._lost.append(act)

    def look(self, body: Callable[[Call], T]) -> T:
        """Do what only looks; raise EngineUnreachable when that takes too long."""
        return self._bounded(body, LOOK_SECONDS_MAX)

    def change(self, body: Callable[[Call], T]) -> T:
        """Do what changes something; raise EngineUnreachable when that takes too long."""
        return self._bounded(body, CHANGE_SECONDS_MAX)

    def close(self) -> None:
        """Let go of the daemon."""
        with self._lock:
            conn, self._conn, self._closed = self._conn, None, True
        if conn is not None:
            thread = threading.Thread(target=_close_quietly, args=(conn,), daemon=True)
            thread.start()
            thread.join(OPEN_SECONDS_MAX)

    # -- one call ------------------------------------------------------------------------------

    def _bounded(self, body: Callable[[Call], T], seconds_max: float) -> T:
        assert not self._closed, "this connection was closed"
        with self._lock:
            if self._stuck >= STUCK_CALLS_MAX:
                raise self._unreachable(f"{self._stuck} earlier calls are still not answered")
        conn = self._connected()
        call = Call(conn=conn, after_step=self.after_step)
        outcome: _Outcome[T] = _Outcome()
        done = self._in_thread(lambda: body(call), outcome, seconds_max)
        if not done:
            call.abandoned.set()
            raise self._unreachable(f"no answer within {seconds_max:.0f} seconds")
        if isinstance(outcome.error, libvirt.libvirtError):
            raise self._translated(conn, outcome.error) from outcome.error
        return outcome.get()

    def _in_thread(self, act: Callable[[], T], outcome: "_Outcome[T]", seconds: float) -> bool:
        """Run it beside us for so long; tell whether it came to an end."""
        finished = threading.Event()

        def run() -> None:
            try:
                outcome.result = act()
            except BaseException as error:  # handed over to the caller, who waits
                outcome.error = error
            finally:
                finished.set()
                with self._lock:
                    if outcome.given_up:
                        self._stuck -= 1

        threading.Thread(target=run, daemon=True, name=f"libvirt {self.uri}").start()
        if finished.wait(seconds):
            return True
        with self._lock:
            if not finished.is_set():
                outcome.given_up = True
                self._stuck += 1
        return finished.is_set()

    # -- the connection ------------------------------------------------------------------------

    def _connected(self) -> libvirt.virConnect:
        """Return the present connection, or make one; others wait for the one who makes it."""
        conn = self._conn
        if conn is not None:
            return conn
        if not self._opening.acquire(timeout=OPEN_SECONDS_MAX + KEEPALIVE_SECONDS):
            raise self._unreachable("it is still being connected")
        try:
            if self._conn is not None:
                return self._conn
            if self._trouble is not None and time.monotonic() < self._retry_at:
                raise EngineUnreachable(self._trouble)
            return self._open()
        finally:
            self._opening.release()

    def _open(self) -> libvirt.virConnect:
        outcome: _Outcome[libvirt.virConnect] = _Outcome()
        done = self._in_thread(lambda: self._open_raw(), outcome, OPEN_SECONDS_MAX)
        if done and outcome.error is None:
            self._trouble, self._retry_seconds = None, RECONNECT_SECONDS_MIN
            conn = outcome.get()
            with self._lock:
                self._conn = conn
            return conn
        if done and not isinstance(outcome.error, libvirt.libvirtError):
            outcome.get()
        said = f"no connection within {OPEN_SECONDS_MAX:.0f} seconds"
        if isinstance(outcome.error, libvirt.libvirtError):
            said = said_by(outcome.error)
        self._trouble = silence_problem(self.uri, said)
        self._retry_at = time.monotonic() + self._retry_seconds
        self._retry_seconds = min(2 * self._retry_seconds, RECONNECT_SECONDS_MAX)
        raise EngineUnreachable(self._trouble) from outcome.error

    def _open_raw(self) -> libvirt.virConnect:
        conn = libvirt.open(self.uri)
        try:
            conn.setKeepAlive(KEEPALIVE_SECONDS, KEEPALIVE_MISSES_MAX)
            conn.registerCloseCallback(self._closed_by_daemon, None)
        except libvirt.libvirtError as error:
            if not is_unsupported(error):  # the test driver has nobody to lose
                raise
        for act in tuple(self._opened):
            act(conn)
        return conn

    def _closed_by_daemon(self, conn: libvirt.virConnect, reason: int, _opaque: None) -> None:
        log.info("libvirt connection %s ended, reason %d", self.uri, reason)
        self._forget(conn)

    def _forget(self, conn: libvirt.virConnect) -> None:
        """Use this connection no more."""
        with self._lock:
            if self._conn is not conn:
                return
            self._conn = None
        for act in tuple(self._lost):
            act()

    def _translated(self, conn: libvirt.virConnect, error: libvirt.libvirtError) -> Exception:
        """Turn libvirt's error into a refusal, or into silence when the connection is gone."""
        if not is_alive(conn):
            self._forget(conn)
            return self._unreachable(said_by(error))
        transient = error.get_error_code() in TRANSIENT_CODES
        problem = refusal_problem(error)
        if self.refusal_code:
            problem = replace(problem, code=self.refusal_code)
        return DriverFailed(problem, transient=transient)

    def _unreachable(self, said: str) -> EngineUnreachable:
        return EngineUnreachable(silence_problem(self.uri, said))


class _Outcome(Generic[T]):
    """What became of something that runs in another thread."""

    def __init__(self) -> None:
        self.result: T | None = None
        self.error: BaseException | None = None
        self.given_up = False

    def get(self) -> T:
        """Return the result, or raise what it raised."""
        if self.error is not None:
            raise self.error
        return cast(T, self.result)


def is_alive(conn: libvirt.virConnect) -> bool:
    """Tell whether the connection stands; nobody is asked."""
    try:
        return bool(conn.isAlive())
    except libvirt.libvirtError:
        return False


def _close_quietly(conn: libvirt.virConnect) -> None:
    with suppress(libvirt.libvirtError):
        conn.unregisterCloseCallback()
    with suppress(libvirt.libvirtError):
        conn.close()


# libvirt knows one event loop per process, to be there before the first connection.
_loop_lock = threading.Lock()
_loop_threads: list[threading.Thread] = []


def event_loop_ensure() -> None:
    """Leave libvirt's event loop running in a thread of its own, once per process."""
    with _loop_lock:
        if _loop_threads:
            return
        libvirt.registerErrorHandler(_swallow, None)  # else libvirt prints every error by itself
        libvirt.virEventRegisterDefaultImpl()
        thread = threading.Thread(target=_loop_run, daemon=True, name="libvirt events")
        thread.start()
        _loop_threads.append(thread)


def _swallow(_opaque: None, _error: tuple[object, ...]) -> None:
    """Print nothing: errors reach us as exceptions."""


def _loop_run() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError as error:
            log.warning("libvirt event loop: %s", said_by(error))
            time.sleep(KEEPALIVE_SECONDS)
