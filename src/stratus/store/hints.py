"""Who should look at once? Wake-ups between the roles: a hint only, everybody also polls."""

import threading
import time

TOPICS_MAX = 64  # names in use at once; they come from our code, not from users


class Hints:
    """Counters that rise when something was committed, one per topic."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._counts: dict[str, int] = {}
        self._closed = False

    def send(self, topic: str) -> None:
        """Wake whoever waits for this topic; call it after the commit."""
        with self._changed:
            assert topic in self._counts or len(self._counts) < TOPICS_MAX, "topics are few"
            self._counts[topic] = self._counts.get(topic, 0) + 1
            self._changed.notify_all()

    def seen(self, topic: str) -> int:
        """Return the counter of this topic as it is now."""
        return self._counts.get(topic, 0)

    def wait(self, topic: str, seen: int, timeout_seconds: float) -> int:
        """Return the counter as soon as it differs from `seen`, or when the time is up."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while self._counts.get(topic, 0) == seen and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            return self._counts.get(topic, 0)

    def close(self) -> None:
        """Let go of everybody who waits, now and later."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
