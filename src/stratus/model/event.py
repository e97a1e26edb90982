"""What happened? One line of the log that is audit trail, history and event stream in one."""

from typing import Any

import msgspec

from stratus.model.ids import ProjectId


class Event(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One change, written in the same transaction as the change itself.

    `cursor` orders events for replay; it is opaque to readers.
    """

    cursor: str
    at_ms: int
    kind: str  # noun.verb, as in instance.created
    subject: str  # id of the thing
    project_id: ProjectId | None = None
    actor: str = ""  # user name, or the role of ours that did it
    request_id: str = ""
    data: dict[str, Any] = {}
