"""What is a page: a bounded piece of a list, and where the next one begins."""

from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """Some items in order. `next` is the opaque cursor of what follows; None at the end."""

    items: tuple[T, ...]
    next: str | None = None
