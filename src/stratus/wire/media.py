"""Which context media can a guest be given? A small family, chosen by name."""

from collections.abc import Callable
from typing import Final

import msgspec

from stratus.model.volume import SeedFiles
from stratus.wire import nocloud
from stratus.wire.guest_context import GuestContext


class Medium(msgspec.Struct, frozen=True, kw_only=True):
    """One way to bring context to a guest: the label that its reader looks for, and the files."""

    label: str
    files: Callable[[GuestContext], dict[str, str]]


MEDIUM_DEFAULT: Final = "nocloud"
MEDIA: Final = {"nocloud": Medium(label=nocloud.LABEL, files=nocloud.nocloud_files)}


def seed_of(context: GuestContext, *, medium: str = MEDIUM_DEFAULT) -> SeedFiles:
    """Return the content of the seed volume that tells this context."""
    chosen = MEDIA[medium]
    return SeedFiles(chosen.label, chosen.files(context))
