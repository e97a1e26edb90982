"""Does a site begin once, with what it needs, and with nothing trusted that nobody vouched for?"""

import random
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from stratus.control.login import actor_by_token, login
from stratus.control.site import (
    FIRST_POLICY,
    FIRST_TYPES,
    admin_secrets_renew,
    site_init,
    site_name,
)
from stratus.control.tenancy import projects_page, users_page
from stratus.control.trust import policy_show
from stratus.control.types import types_show
from stratus.control.world import World
from stratus.model.tenancy import Role, Scope
from stratus.model.trust import RuleAction
from stratus.store.engine import Store, store_open
from stratus.store.site import site_epoch
from stratus.store.users import user_by_name, user_update
from tests.control.sites import ORIGIN, Clock, Site, in_memory, refused

T = TypeVar("T")


def test_a_new_site_has_an_administrator_a_project_types_and_a_policy(site: Site) -> None:
    assert site_name(site.world) == "Lab of tests"
    assert site.world.store.read(site_epoch) == 1
    assert site.admin.admin
    assert site.admin.scopes == frozenset(Scope)
    assert site.admin.roles == {site.project_id: Role.OWNER}
    (project,) = projects_page(site.world, site.admin, rows_max=10).items
    assert project.name == "default"
    assert set(types_show(site.world, site.admin)) == set(FIRST_TYPES)
    assert policy_show(site.world, site.admin) == FIRST_POLICY
    assert FIRST_POLICY.default is RuleAction.DENY


def test_the_types_are_those_of_the_last_release_of_stratuslab() -> None:
    sizes = {t.name: (t.vcpus, t.memory_mib, t.swap_mib) for t in FIRST_TYPES}
    assert sizes == {
        "t1.micro": (1, 512, 512),
        "m1.small": (1, 1536, 1536),
        "m1.medium": (1, 3072, 3072),
        "m1.large": (2, 6144, 6144),
        "m1.xlarge": (4, 8192, 8192),
        "c1.medium": (2, 1536, 1536),
        "c1.xlarge": (4, 6144, 6144),
    }


def test_the_first_password_and_token_open_the_site(site: Site) -> None:
    secrets = site.secrets
    _, text = login(site.world, name=secrets.user, password=secrets.password, origin=ORIGIN)
    assert actor_by_token(site.world, text).admin


def test_setting_up_again_changes_nothing(site: Site) -> None:
    before = len(site.events("site.created"))
    assert site_init(site.world, name="Another name") is None
    assert site_name(site.world) == "Lab of tests"
    assert len(users_page(site.world, site.admin, rows_max=10).items) == 1
    assert len(site.events("site.created")) == before == 1


def test_of_two_that_set_up_at_once_one_is_told_the_secrets(site: Site) -> None:
    late = World(store=_Blind(site.world.store), now_ms=Clock(), chance=site.world.chance)
    assert site_init(late, name="Lab of tests") is None


class _Blind:
    """A store that looked, the first time, before anything was there."""

    def __init__(self, store: Store) -> None:
        self.dialect = store.dialect
        self.hints = store.hints
        self._store = store
        self._looked = False

    def read(self, function: Callable[[Connection], T]) -> T:
        """Read what is there, but see nothing at first."""
        if self._looked:
            return self._store.read(function)
        self._looked = True
        nothing = store_open("sqlite://")
        try:
            return nothing.read(function)
        finally:
            nothing.close()

    def write(self, function: Callable[[Connection], T]) -> T:
        """Write for real."""
        return self._store.write(function)

    def close(self) -> None:
        """Leave it open."""


@in_memory
def test_a_site_without_a_name_is_not_set_up(site: Site) -> None:
    for name in ("", "x" * 201, "a\nb"):
        with refused("invalid_field", field="name"):
            site_init(site.world, name=name)


def test_lost_first_secrets_are_replaced_and_open_a_locked_administrator(site: Site) -> None:
    def lock(connection: Connection) -> None:
        admin = user_by_name(connection, "admin")
        assert admin is not None
        user_update(connection, admin.id, version=None, disabled=True, admin=False)

    site.world.store.write(lock)
    secrets = admin_secrets_renew(site.world)
    assert secrets.password != site.secrets.password
    assert actor_by_token(site.world, secrets.token).admin
    with refused("unauthenticated"):
        login(site.world, name="admin", password=site.secrets.password, origin=ORIGIN)


def test_secrets_cannot_be_replaced_before_there_are_any(bare: Store) -> None:
    world = World(store=bare, now_ms=Clock(), chance=random.Random(1).getrandbits)
    with refused("not_found"):
        admin_secrets_renew(world)
