"""Do only the right people come in, and only for as long as they should?"""

import pytest
from argon2 import PasswordHasher

from stratus.control import passwords
from stratus.control.actors import ACTORS_MAX, FRESH_MS, ActorCache
from stratus.control.login import TOKENS_MAX, actor_by_token, login
from stratus.control.passwords import (
    NOBODYS_HASH,
    password_fits,
    password_generate,
    password_hash,
    password_is_outdated,
)
from stratus.control.tenancy import (
    members_drop,
    members_put,
    tokens_revoke,
    users_add,
    users_change,
)
from stratus.model.ids import UserId
from stratus.model.tenancy import Actor, Role, Scope
from stratus.model.units import DAY_MS
from stratus.store.schema import tokens, users
from stratus.store.users import user_password_hash, user_update
from tests.control.sites import ORIGIN, Site, in_memory, refused

PASSWORD = "correct horse battery"


def token_of(site: Site, name: str = "ana", **asked: object) -> str:
    _, text = login(site.world, name=name, password=PASSWORD, origin=ORIGIN, **asked)  # type: ignore[arg-type]  # handed through
    return text


def user_make(site: Site, name: str = "ana") -> UserId:
    facts, _ = users_add(site.world, site.admin, name=name, password=PASSWORD, origin=ORIGIN)
    return facts.id


def test_a_password_buys_a_token_that_tells_who_asks(site: Site) -> None:
    user_id = user_make(site)
    members_put(site.world, site.admin, "default", "ana", Role.MEMBER, origin=ORIGIN)
    facts, text = login(
        site.world,
        name="ana",
        password=PASSWORD,
        token_name="laptop",
        scopes=[Scope.WRITE, Scope.READ],
        days=7,
        origin=ORIGIN,
    )
    assert facts.expires_ms == site.clock.ms + 7 * DAY_MS
    assert facts.scopes == (Scope.READ, Scope.WRITE)
    actor = actor_by_token(site.world, text)
    assert actor == Actor(
        user_id=user_id,
        name="ana",
        scopes=frozenset((Scope.READ, Scope.WRITE)),
        roles={site.project_id: Role.MEMBER},
        token_id=facts.id,
    )


def test_a_token_reads_as_documented_and_its_secret_is_not_stored(site: Site) -> None:
    user_make(site)
    text = token_of(site)
    assert text.startswith("st_")
    body, _, secret = text.removeprefix("st_").partition("_")
    assert len(body) == 16
    assert len(secret) == 43
    stored = repr(site.rows(tokens))
    assert secret not in stored
    assert PASSWORD not in repr(site.rows(users))


def test_every_wrong_name_or_password_is_refused_in_the_same_words(site: Site) -> None:
    user_make(site)
    users_add(site.world, site.admin, name="bob", origin=ORIGIN)  # without a password
    problems = []
    for name, password in (
        ("ana", "wrong"),
        ("nobody", PASSWORD),
        ("bob", ""),
        ("ana", "x" * 2000),
    ):
        with refused("unauthenticated") as refusal:
            login(site.world, name=name, password=password, origin=ORIGIN)
        problems.append(refusal.problem)
    assert all(problem == problems[0] for problem in problems)


@in_memory
def test_an_unknown_name_costs_a_hash_like_a_known_one(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[str] = []
    verify = passwords._HASHER.verify

    class Counting:
        def verify(self, stored: str, password: str) -> bool:
            hashed.append(stored)
            return verify(stored, password)

    monkeypatch.setattr(passwords, "_HASHER", Counting())
    with refused("unauthenticated"):
        login(site.world, name="nobody", password=PASSWORD, origin=ORIGIN)
    assert hashed == [NOBODYS_HASH]


def test_the_hash_of_nobody_costs_what_a_real_one_costs() -> None:
    assert not password_is_outdated(NOBODYS_HASH)


@in_memory
@pytest.mark.parametrize(
    "text",
    [
        "",
        "st_",
        "x" * 63,
        "st_0000000000000000_" + "A" * 43,
        "st_ilouilouilouilou_" + "A" * 43,
        "st_0000000000000000-" + "A" * 43,
        "st_00000000000000é0_" + "A" * 43,
        "\ud800" * 63,
    ],
    ids=repr,
)
def test_what_is_no_token_of_ours_is_refused(site: Site, text: str) -> None:
    with refused("unauthenticated", "not known"):
        actor_by_token(site.world, text)


def test_a_token_with_another_secret_is_refused_as_unknown(site: Site) -> None:
    text = site.secrets.token
    other = text[:-1] + ("A" if text[-1] != "A" else "B")
    actor_by_token(site.world, text)  # now it is remembered
    with refused("unauthenticated", "not known"):
        actor_by_token(site.world, other)


def test_a_token_expires_also_while_it_is_remembered(site: Site) -> None:
    user_make(site)
    text = token_of(site, days=1)
    site.clock.ms += DAY_MS - 1
    actor_by_token(site.world, text)
    site.clock.ms += 1
    with refused("token_expired"):
        actor_by_token(site.world, text)


def test_a_disabled_user_is_out_at_once_and_cannot_log_in(site: Site) -> None:
    user_make(site)
    text = token_of(site)
    actor_by_token(site.world, text)
    users_change(site.world, site.admin, "ana", disabled=True, origin=ORIGIN)
    with refused("unauthenticated", "disabled"):
        actor_by_token(site.world, text)
    with refused("unauthenticated", "disabled"):
        token_of(site)
    with refused("unauthenticated", "wrong"):  # only who knows the password learns of it
        login(site.world, name="ana", password="wrong", origin=ORIGIN)


def test_a_revoked_token_is_worthless_at_once(site: Site) -> None:
    user_make(site)
    text = token_of(site)
    actor = actor_by_token(site.world, text)
    assert actor.token_id is not None
    tokens_revoke(site.world, actor, actor.token_id, origin=ORIGIN)
    with refused("unauthenticated", "not known"):
        actor_by_token(site.world, text)


def test_a_change_of_membership_is_seen_at_once(site: Site) -> None:
    user_make(site)
    text = token_of(site)
    assert actor_by_token(site.world, text).roles == {}
    members_put(site.world, site.admin, "default", "ana", Role.READER, origin=ORIGIN)
    assert actor_by_token(site.world, text).roles == {site.project_id: Role.READER}
    members_drop(site.world, site.admin, "default", "ana", origin=ORIGIN)
    assert actor_by_token(site.world, text).roles == {}


def test_a_change_by_another_replica_is_seen_after_a_few_seconds(site: Site) -> None:
    user_id = user_make(site)
    text = token_of(site)
    actor_by_token(site.world, text)
    site.world.store.write(
        lambda connection: user_update(connection, user_id, version=None, disabled=True)
    )
    site.clock.ms += FRESH_MS - 1
    assert actor_by_token(site.world, text).name == "ana"
    site.clock.ms += 1
    with refused("unauthenticated", "disabled"):
        actor_by_token(site.world, text)


def test_a_token_without_scopes_or_with_an_endless_life_is_not_made(site: Site) -> None:
    user_make(site)
    with refused("invalid_field", field="scopes"):
        token_of(site, scopes=[])
    for days in (0, 367):
        with refused("invalid_field", str(days), field="days"):
            token_of(site, days=days)
    for name in ("", "x" * 65, "a\nb"):
        with refused("invalid_field", field="name"):
            token_of(site, token_name=name)


def test_nobody_has_more_tokens_than_the_limit_and_expired_ones_are_forgotten(site: Site) -> None:
    user_id = user_make(site)
    for number in range(TOKENS_MAX):
        site.insert(
            tokens,
            id=f"tok-{number:016d}",
            user_id=user_id,
            created_ms=site.clock.ms,
            expires_ms=site.clock.ms + DAY_MS,
        )
    with refused("conflict", "200 tokens"):
        token_of(site)
    site.clock.ms += 9 * DAY_MS
    token_of(site)
    assert sum(row.user_id == user_id for row in site.rows(tokens)) == 1


def test_a_hash_with_old_parameters_is_renewed_at_login(site: Site) -> None:
    user_id = user_make(site)
    old = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
    site.world.store.write(
        lambda connection: user_update(connection, user_id, version=None, password_hash=old)
    )
    token_of(site)
    new = site.world.store.read(lambda connection: user_password_hash(connection, user_id))
    assert new != old
    assert not password_is_outdated(new)
    token_of(site)


def test_each_login_is_an_event_without_secrets(site: Site) -> None:
    user_make(site)
    text = token_of(site)
    event = site.events("token.created")[-1]
    assert event.actor == "ana"
    assert event.request_id == ORIGIN.request_id
    assert text.rpartition("_")[2] not in repr(event)


@in_memory
def test_passwords_are_salted_and_made_ones_differ(site: Site) -> None:
    one, two = (password_hash(site.world, PASSWORD) for _ in range(2))
    assert one != two
    assert one.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert password_fits(one, PASSWORD)
    assert not password_fits(one, PASSWORD + " ")
    assert not password_fits("nonsense", PASSWORD)
    assert password_generate(site.world) != password_generate(site.world)


@in_memory
def test_too_many_hashes_at_once_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "HASH_WAIT_SECONDS_MAX", 0.01)
    for _ in range(passwords.HASHES_AT_ONCE_MAX):
        passwords._SLOTS.acquire()
    try:
        with refused("overloaded"):
            login(site.world, name="admin", password="x", origin=ORIGIN)
    finally:
        for _ in range(passwords.HASHES_AT_ONCE_MAX):
            passwords._SLOTS.release()


def test_the_memory_of_actors_is_bounded_and_drops_the_oldest() -> None:
    cache = ActorCache()
    actor = Actor(user_id=UserId("usr-1"), name="ana")
    for number in range(ACTORS_MAX + 1):
        cache.keep(number.to_bytes(4, "big"), actor, age=0, now_ms=0, expires_ms=10**9)
    assert cache.find((0).to_bytes(4, "big"), now_ms=1) is None
    assert cache.find((1).to_bytes(4, "big"), now_ms=1) is actor


def test_what_was_read_before_a_change_of_rights_is_not_remembered_after_it() -> None:
    cache = ActorCache()
    age = cache.age
    cache.forget()  # somebody was disabled while we were reading
    cache.keep(b"x", Actor(user_id=UserId("usr-1"), name="ana"), age=age, now_ms=0, expires_ms=9)
    assert cache.find(b"x", now_ms=1) is None
