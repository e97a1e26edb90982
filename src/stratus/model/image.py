"""What is an image: a bootable artefact, its digests, and the signed statements about it."""

from enum import StrEnum

import msgspec

from stratus.model.ids import ImageId, PoolId, ProjectId, UserId
from stratus.model.problem import Problem
from stratus.model.volume import Presence


class ImageFormat(StrEnum):
    """How the bytes are arranged."""

    RAW = "raw"
    QCOW2 = "qcow2"


class Visibility(StrEnum):
    """Who may start an image besides its project."""

    PRIVATE = "private"
    PUBLIC = "public"


class Digests(msgspec.Struct, frozen=True, kw_only=True):
    """Size and digests of the stored bytes, lower-case hex."""

    size_bytes: int
    sha256: str
    sha1: str = ""


class ImageSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool should hold for an image; the bytes must match before they are published.

    `source` is an http(s) URL, or `upload:<image id>` for bytes that came through the API.
    """

    id: ImageId
    source: str
    format: ImageFormat
    size_bytes: int  # of the bytes as fetched; 0 = not said beforehand
    sha256: str  # of the bytes as fetched; "" = not said beforehand


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One image as the store knows it."""

    id: ImageId
    project_id: ProjectId
    user_id: UserId
    name: str
    title: str
    source: str
    format: ImageFormat
    visibility: Visibility
    wanted: bool
    created_ms: int
    version: int
    pool_id: PoolId | None = None
    size_bytes: int = 0
    virtual_bytes: int = 0  # size of the disk that a guest sees
    sha256: str = ""
    sha1: str = ""
    identifier: str = ""  # StratusLab identifier, 27 characters derived from the SHA-1
    presence: Presence = Presence.UNKNOWN
    fetched_bytes: int = 0
    failures: int = 0
    failure: Problem | None = None
    parked: Problem | None = None
    gone_ms: int = 0
