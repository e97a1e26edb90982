"""Which sizes of instances does the site offer?"""

from typing import Final

import msgspec
from sqlalchemy import Connection, bindparam, delete, select

from stratus.model.instance import InstanceType
from stratus.model.limits import PAGE_ROWS_MAX
from stratus.store.rows import AnyRow
from stratus.store.schema import instance_types
from stratus.store.upsert import upsert

_NAMES: Final = InstanceType.__struct_fields__
_TYPES: Final = select(*(instance_types.c[name] for name in _NAMES))
_BY_NAME: Final = _TYPES.where(instance_types.c.name == bindparam("name"))
# By size, as people look for them.
_LIST: Final = _TYPES.order_by(
    instance_types.c.vcpus, instance_types.c.memory_mib, instance_types.c.name
).limit(PAGE_ROWS_MAX)


def _type(row: AnyRow) -> InstanceType:
    return InstanceType(**row._mapping)


def type_ensure(connection: Connection, type_: InstanceType) -> None:
    """Leave this size under its name. Instances keep the size that they were made with."""
    insert = upsert(connection, instance_types)
    changed = {name: insert.excluded[name] for name in _NAMES if name != "name"}
    connection.execute(
        insert.on_conflict_do_update(
            index_elements=["name"],
            set_={**changed, "version": instance_types.c.version + 1},
        ),
        msgspec.structs.asdict(type_),
    )


def type_create(connection: Connection, type_: InstanceType) -> bool:
    """Add this size; False when its name is taken."""
    insert = upsert(connection, instance_types).on_conflict_do_nothing(index_elements=["name"])
    return connection.execute(insert, msgspec.structs.asdict(type_)).rowcount == 1


def type_by_name(connection: Connection, name: str) -> InstanceType | None:
    """Return the size of this name, or None."""
    row = connection.execute(_BY_NAME, {"name": name}).one_or_none()
    return None if row is None else _type(row)


def type_list(connection: Connection) -> tuple[InstanceType, ...]:
    """Return every size, the smallest first."""
    return tuple(_type(row) for row in connection.execute(_LIST))


def type_remove(connection: Connection, name: str) -> bool:
    """Offer this size no longer; tell whether it was offered."""
    where = instance_types.c.name == name
    return connection.execute(delete(instance_types).where(where)).rowcount == 1
