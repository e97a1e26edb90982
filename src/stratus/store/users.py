"""Who may come in? People, their standing, and the hashes that prove them."""

from typing import Any, Final

from sqlalchemy import Connection, bindparam, func, select, update

from stratus.model.ids import UserId
from stratus.model.page import Page
from stratus.model.problem import refuse
from stratus.model.tenancy import UserFacts
from stratus.store.guard import stale_refused
from stratus.store.pages import page_fetch
from stratus.store.rows import AnyRow
from stratus.store.schema import users
from stratus.store.upsert import upsert

_NAMES: Final = UserFacts.__struct_fields__
_FACTS: Final = select(*(users.c[name] for name in _NAMES))
_BY_ID: Final = _FACTS.where(users.c.id == bindparam("id"))
_BY_NAME: Final = _FACTS.where(users.c.name == bindparam("name"))
_PASSWORD: Final = select(users.c.password_hash).where(users.c.id == bindparam("id"))


def _facts(row: AnyRow) -> UserFacts:
    return UserFacts(**row._mapping)


def user_create(
    connection: Connection,
    *,
    user_id: UserId,
    name: str,
    password_hash: str = "",  # nothing hashes to this: no password opens it
    admin: bool = False,
    auditor: bool = False,
    now_ms: int,
) -> UserFacts:
    """Add a user, or refuse a name that is taken."""
    values: dict[str, Any] = {
        "id": user_id,
        "name": name,
        "admin": admin,
        "auditor": auditor,
        "disabled": False,
        "created_ms": now_ms,
        "version": 1,
    }
    insert = upsert(connection, users).on_conflict_do_nothing(index_elements=["name"])
    if connection.execute(insert, values | {"password_hash": password_hash}).rowcount != 1:
        raise refuse(
            "name_taken",
            f"There is a user {name} already.",
            remedy="Choose another name.",
            name=name,
        )
    return UserFacts(**values)


def user_by_id(connection: Connection, user_id: UserId) -> UserFacts | None:
    """Return the user with this id, or None."""
    row = connection.execute(_BY_ID, {"id": user_id}).one_or_none()
    return None if row is None else _facts(row)


def user_by_name(connection: Connection, name: str) -> UserFacts | None:
    """Return the user of this name, or None."""
    row = connection.execute(_BY_NAME, {"name": name}).one_or_none()
    return None if row is None else _facts(row)


def user_password_hash(connection: Connection, user_id: UserId) -> str:
    """Return the hash as it was given; "" where no password opens the account."""
    return str(connection.execute(_PASSWORD, {"id": user_id}).scalar_one_or_none() or "")


def user_list(
    connection: Connection, *, rows_max: int, cursor: str | None = None
) -> Page[UserFacts]:
    """Return all users in the order of their names."""
    return page_fetch(
        connection, _FACTS, [users.c.name], cursor=cursor, rows_max=rows_max, make=_facts
    )


def user_count(connection: Connection) -> int:
    """Count the users, disabled ones included."""
    return int(connection.execute(select(func.count()).select_from(users)).scalar_one())


def admins_lock(connection: Connection) -> list[UserId]:
    """Hold the administrators who can log in until the transaction ends; return them."""
    able = select(users.c.id).where(users.c.admin, ~users.c.disabled).order_by(users.c.id)
    return list(connection.execute(able.with_for_update()).scalars())


def user_update(
    connection: Connection,
    user_id: UserId,
    *,
    version: int | None,
    password_hash: str | None = None,
    admin: bool | None = None,
    auditor: bool | None = None,
    disabled: bool | None = None,
) -> UserFacts:
    """Change what is given; refuse when the user is no longer as the caller read them.

    `version` None changes whatever is there.
    """
    asked: dict[str, Any] = {
        "password_hash": password_hash,
        "admin": admin,
        "auditor": auditor,
        "disabled": disabled,
    }
    changes = {name: value for name, value in asked.items() if value is not None}
    statement = update(users).where(users.c.id == user_id)
    if version is not None:
        statement = statement.where(users.c.version == version)
    done = connection.execute(statement.values(version=users.c.version + 1, **changes))
    after = user_by_id(connection, user_id)
    if done.rowcount != 1 or after is None:
        raise stale_refused("user", user_id, exists=after is not None)
    return after
