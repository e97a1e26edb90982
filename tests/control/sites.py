"""A site that has just been set up, for the tests of commands: real store, settable clock."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest
from sqlalchemy import Table, select

from stratus.control.login import actor_by_token
from stratus.control.site import FIRST_PROJECT, FirstSecrets, site_init
from stratus.control.tenancy import members_put, projects_add, projects_show, users_add
from stratus.control.world import Origin, World
from stratus.model.event import Event
from stratus.model.ids import ProjectId
from stratus.model.problem import Problem, Refused
from stratus.model.tenancy import Actor, Quota, Role
from stratus.store.engine import Store
from stratus.store.events import CURSOR_BEGIN, event_page
from stratus.store.projects import member_roles
from tests.store.worlds import row_insert

BEGIN_MS: Final = 1_800_000_000_000
ORIGIN: Final = Origin(request_id="req-test")


# For tests of what is decided before the database is asked: the engine makes no difference.
in_memory = pytest.mark.parametrize("bare", ["sqlite"], indirect=True)


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.ms = BEGIN_MS

    def __call__(self) -> int:
        return self.ms


class Site:
    """One site with its first administrator and project."""

    def __init__(self, store: Store) -> None:
        self.clock = Clock()
        self.world = World(store=store, now_ms=self.clock, chance=random.Random(7).getrandbits)
        secrets = site_init(self.world, name="Lab of tests", origin=ORIGIN)
        assert secrets is not None
        self.secrets: FirstSecrets = secrets
        self.admin: Actor = actor_by_token(self.world, secrets.token)
        self.project_id: ProjectId = projects_show(self.world, self.admin, FIRST_PROJECT).id

    def user(
        self,
        name: str = "ana",
        role: Role | None = None,
        *,
        on: str = "default",
        auditor: bool = False,
    ) -> Actor:
        """Make a user, with this role on a project where one is said."""
        facts, _ = users_add(self.world, self.admin, name=name, auditor=auditor, origin=ORIGIN)
        if role is not None:
            members_put(self.world, self.admin, on, name, role, origin=ORIGIN)
        return Actor(
            user_id=facts.id,
            name=name,
            auditor=auditor,
            roles=self.world.store.read(lambda connection: member_roles(connection, facts.id)),
        )

    def project(self, name: str, quota: Quota | None = None) -> ProjectId:
        """Make one more project."""
        return projects_add(self.world, self.admin, name=name, quota=quota, origin=ORIGIN).id

    def events(self, kind: str) -> list[Event]:
        """Return the events of this kind, the oldest first."""
        page = self.world.store.read(
            lambda c: event_page(c, after=CURSOR_BEGIN, rows_max=1000, project_ids=None)
        )
        return [event for event in page.items if event.kind == kind]

    def rows(self, table: Table) -> list[Any]:
        """Return what a table holds."""
        return list(self.world.store.read(lambda c: c.execute(select(table)).all()))

    def insert(self, table: Table, **given: Any) -> None:  # noqa: ANN401  # column values
        """Put a row there, as another role would."""
        self.world.store.write(lambda connection: row_insert(connection, table, **given))


class Refusal:
    """What was refused, readable once the block has ended."""

    problem: Problem


@contextmanager
def refused(code: str, *words: str, field: str | None = None) -> Iterator[Refusal]:
    """Demand that the block is refused with this code, and that the detail has these words."""
    refusal = Refusal()
    with pytest.raises(Refused) as caught:
        yield refusal
    refusal.problem = caught.value.problem
    assert refusal.problem.code == code, refusal.problem
    for word in words:
        assert word in refusal.problem.detail, refusal.problem.detail
    if field is not None:
        assert refusal.problem.context["field"] == field
