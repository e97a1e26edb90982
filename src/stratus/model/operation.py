"""What did a user ask for, and is it done? Computed from the things it was asked of."""

from enum import StrEnum

import msgspec

from stratus.model.ids import OperationId, ProjectId, UserId
from stratus.model.problem import Problem


class OperationStatus(StrEnum):
    """How far an operation has come."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # at least one of its subjects is parked; the others went on
    SUPERSEDED = "superseded"  # a later wish replaced this one


class OperationFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One operation with what has become of it."""

    id: OperationId
    kind: str
    project_id: ProjectId
    user_id: UserId
    created_ms: int
    subjects: tuple[str, ...]
    status: OperationStatus
    subjects_done: int = 0
    problem: Problem | None = None
