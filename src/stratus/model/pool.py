"""What is a pool: a place for disks and images, its address, and the room it was seen to have."""

from enum import StrEnum

import msgspec

from stratus.model.ids import PoolId
from stratus.model.problem import Problem


class PoolDesired(StrEnum):
    """What the administrator wants of the pool."""

    ENABLED = "enabled"
    DRAINING = "draining"  # keeps what it has, gets nothing new


class PoolRoom(msgspec.Struct, frozen=True, kw_only=True):
    """What the pool itself said of its room and abilities."""

    total_bytes: int = 0
    free_bytes: int = 0
    clones_are_instant: bool = False
    reflink: bool = False
    fence: str = ""  # local | server | cluster


class PoolRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One pool as the store knows it."""

    id: PoolId
    name: str
    driver: str
    location: str
    desired: PoolDesired
    created_ms: int
    version: int
    room: PoolRoom | None = None  # None until somebody looked
    seen_ms: int = 0
    unreachable_ms: int = 0  # since when; 0 = it answers
    failure: Problem | None = None
    lease_owner: str = ""
