"""Which tables exist? Every column names its one writer; times are milliseconds since 1970 UTC.

Wishes and facts are stored; phases are computed. Structured values are JSON text, since both
engines carry text alike and nothing is queried inside them.
"""

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA: Final = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# SQLite gives 64-bit row ids to INTEGER keys only.
SERIAL: Final = BigInteger().with_variant(Integer, "sqlite")


def _version() -> Column[int]:
    return Column("version", Integer, nullable=False, server_default="1", comment="every writer")


site = Table(
    "site",
    METADATA,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False, comment="control.site, store.backup"),
    comment="facts of the whole site: name, epoch (raised by a restore), trust policy",
)

users = Table(
    "users",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("password_hash", Text, nullable=False, server_default=""),
    Column("admin", Boolean, nullable=False, server_default=text("false")),
    Column("auditor", Boolean, nullable=False, server_default=text("false")),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    Column("created_ms", BigInteger, nullable=False),
    _version(),
    comment="written by control.tenancy",
)

projects = Table(
    "projects",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("quota_instances", Integer, nullable=False),
    Column("quota_vcpus", Integer, nullable=False),
    Column("quota_memory_mib", BigInteger, nullable=False),
    Column("quota_volumes", Integer, nullable=False),
    Column("quota_volume_gib", BigInteger, nullable=False),
    Column("quota_addresses", Integer, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger, nullable=False, server_default="0"),
    _version(),
    comment="written by control.tenancy",
)

memberships = Table(
    "memberships",
    METADATA,
    Column("project_id", String(24), ForeignKey("projects.id"), primary_key=True),
    Column("user_id", String(24), ForeignKey("users.id"), primary_key=True),
    Column("role", String(16), nullable=False),
    Index(None, "user_id"),
    comment="written by control.tenancy",
)

tokens = Table(
    "tokens",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("user_id", String(24), ForeignKey("users.id"), nullable=False),
    Column("name", String(64), nullable=False),
    Column("secret_hash", LargeBinary, nullable=False, comment="SHA-256 of a random secret"),
    Column("scopes", String(64), nullable=False, comment="space-separated"),
    Column("created_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Index(None, "user_id"),
    comment="written by control.tenancy; a revoked token's row is removed",
)

instance_types = Table(
    "instance_types",
    METADATA,
    Column("name", String(64), primary_key=True),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("swap_mib", BigInteger, nullable=False, server_default="0"),
    Column("root_gib", BigInteger, nullable=False, server_default="0"),
    _version(),
    comment="written by control.types",
)

images = Table(
    "images",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("project_id", String(24), ForeignKey("projects.id"), nullable=False),
    Column("user_id", String(24), ForeignKey("users.id"), nullable=False),
    Column("name", String(64), nullable=False, comment="control.images"),
    Column("title", String(200), nullable=False, server_default="", comment="control.images"),
    Column("source", Text, nullable=False, comment="control.images"),
    Column("format", String(16), nullable=False, comment="control.images"),
    Column("visibility", String(16), nullable=False, comment="control.images"),
    Column("wanted", Boolean, nullable=False, comment="control.images"),
    Column("said_bytes", BigInteger, nullable=False, server_default="0", comment="control.images"),
    Column("said_sha256", String(64), nullable=False, server_default="", comment="control.images"),
    Column("pool_id", String(24), nullable=True, comment="control.images"),
    Column("size_bytes", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("virtual_bytes", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("sha256", String(64), nullable=False, server_default="", comment="hosts.pools"),
    Column("sha1", String(40), nullable=False, server_default="", comment="hosts.pools"),
    Column("identifier", String(27), nullable=False, server_default="", comment="hosts.pools"),
    Column("presence", String(16), nullable=False, comment="hosts.pools"),
    Column("fetched_bytes", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("failures", Integer, nullable=False, server_default="0", comment="hosts.pools"),
    Column("failure", Text, nullable=False, server_default="", comment="hosts.pools"),
    Column("retry_ms", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column(
        "parked", Text, nullable=False, server_default="", comment="hosts.pools, control.images"
    ),
    Column("created_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    _version(),
    Index(None, "identifier"),
    Index(None, "sha256"),
    Index("ix_images_project", "project_id", "id"),
)

endorsements = Table(
    "endorsements",
    METADATA,
    Column("sha256", String(64), primary_key=True, comment="of the document as received"),
    Column("image_sha256", String(64), nullable=False),
    Column("document", LargeBinary, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Index(None, "image_sha256"),
    comment="insert-only, written by control.images",
)

trusted_keys = Table(
    "trusted_keys",
    METADATA,
    Column("fingerprint", String(80), primary_key=True, comment="sha256:<hex of the SPKI>"),
    Column("pem", Text, nullable=False),
    Column("email", String(200), nullable=False, server_default=""),
    Column("added_ms", BigInteger, nullable=False),
    comment="endorsers' public keys that this site knows; written by control.images",
)

hosts = Table(
    "hosts",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("name", String(64), nullable=False, comment="control.hosts"),
    Column("uri", Text, nullable=False, comment="control.hosts"),
    Column("desired", String(16), nullable=False, comment="control.hosts"),
    Column("cpu_ratio", Float, nullable=False, comment="control.hosts"),
    Column("memory_ratio", Float, nullable=False, comment="control.hosts"),
    Column("memory_reserved_mib", BigInteger, nullable=False, comment="control.hosts"),
    Column("accelerator_wanted", String(8), nullable=False, server_default="auto"),
    Column("capacity", Text, nullable=False, server_default="", comment="hosts.worker"),
    Column("seen_ms", BigInteger, nullable=False, server_default="0", comment="hosts.worker"),
    Column(
        "unreachable_ms", BigInteger, nullable=False, server_default="0", comment="hosts.worker"
    ),
    Column("failure", Text, nullable=False, server_default="", comment="hosts.worker"),
    Column("inventory_epoch", Integer, nullable=False, server_default="0", comment="hosts.worker"),
    Column("wake_ms", BigInteger, nullable=True, comment="whoever wants the host looked at"),
    Column("poked", Integer, nullable=False, server_default="0", comment="with every wake"),
    Column("lease_owner", String(64), nullable=False, server_default="", comment="hosts.worker"),
    Column("lease_token", BigInteger, nullable=False, server_default="0", comment="hosts.worker"),
    Column("lease_until_ms", BigInteger, nullable=False, server_default="0"),
    Column("placements", BigInteger, nullable=False, server_default="0", comment="control.placer"),
    Column("created_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger, nullable=False, server_default="0", comment="hosts.worker"),
    _version(),
    Index(
        "uq_hosts_name_live",
        "name",
        unique=True,
        sqlite_where=text("gone_ms = 0"),
        postgresql_where=text("gone_ms = 0"),
    ),
)

strays = Table(
    "strays",
    METADATA,
    Column("host_id", String(24), ForeignKey("hosts.id"), primary_key=True),
    Column("name", String(200), primary_key=True, comment="as the hypervisor calls it"),
    Column("instance_id", String(24), nullable=False, server_default=""),
    Column("generation", BigInteger, nullable=False, server_default="0"),
    Column("observed", String(16), nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    Column("seen_ms", BigInteger, nullable=False),
    Index(None, "instance_id"),
    comment="guests nobody wished for, left alone; written by hosts.worker",
)

tombstones = Table(
    "tombstones",
    METADATA,
    Column("host_id", String(24), ForeignKey("hosts.id"), primary_key=True),
    Column("instance_id", String(24), primary_key=True),
    Column("generation", BigInteger, primary_key=True),
    Column("created_ms", BigInteger, nullable=False),
    comment="guests given up with their fenced host, to be removed when it comes back; "
    "written by control.hosts, removed by hosts.worker",
)

pools = Table(
    "pools",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("driver", String(16), nullable=False, comment="control.pools"),
    Column("location", Text, nullable=False, comment="control.pools"),
    Column("desired", String(16), nullable=False, comment="control.pools"),
    Column("facts", Text, nullable=False, server_default="", comment="hosts.pools"),
    Column("seen_ms", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("unreachable_ms", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("failure", Text, nullable=False, server_default="", comment="hosts.pools"),
    Column("wake_ms", BigInteger, nullable=True, comment="whoever wants the pool looked at"),
    Column("poked", Integer, nullable=False, server_default="0", comment="with every wake"),
    Column("lease_owner", String(64), nullable=False, server_default="", comment="hosts.pools"),
    Column("lease_token", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("lease_until_ms", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("created_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger, nullable=False, server_default="0", comment="control.pools"),
    _version(),
)

host_pools = Table(
    "host_pools",
    METADATA,
    Column("host_id", String(24), ForeignKey("hosts.id"), primary_key=True),
    Column("pool_id", String(24), ForeignKey("pools.id"), primary_key=True),
    comment="which hosts can open the disks of which pools; written by control.hosts",
)

networks = Table(
    "networks",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("name", String(64), nullable=False, unique=True),
    Column("class", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("cursor", BigInteger, nullable=False, server_default="0", comment="control.addresses"),
    Column("created_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger, nullable=False, server_default="0"),
    _version(),
    comment="written by control.networks",
)

leases = Table(
    "leases",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("network_id", String(24), ForeignKey("networks.id"), nullable=False),
    Column("project_id", String(24), nullable=False),
    Column("instance_id", String(24), nullable=False),
    Column("position", Integer, nullable=False, comment="which card of the instance"),
    Column("mac", String(17), nullable=False),
    Column("ipv4", String(15), nullable=False, server_default=""),
    Column("ipv6", String(39), nullable=False, server_default=""),
    Column("leased_ms", BigInteger, nullable=False),
    Column("released_ms", BigInteger, nullable=False, server_default="0"),
    Index(
        "uq_leases_ipv4_live",
        "network_id",
        "ipv4",
        unique=True,
        sqlite_where=text("released_ms = 0 AND ipv4 <> ''"),
        postgresql_where=text("released_ms = 0 AND ipv4 <> ''"),
    ),
    Index(
        "uq_leases_mac_live",
        "mac",
        unique=True,
        sqlite_where=text("released_ms = 0"),
        postgresql_where=text("released_ms = 0"),
    ),
    Index(
        "ix_leases_project_live",
        "project_id",
        sqlite_where=text("released_ms = 0"),
        postgresql_where=text("released_ms = 0"),
    ),
    Index(None, "instance_id"),
    comment="addresses and who had them when, never overwritten; written by control.addresses",
)

instances = Table(
    "instances",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("project_id", String(24), ForeignKey("projects.id"), nullable=False),
    Column("user_id", String(24), ForeignKey("users.id"), nullable=False),
    Column("name", String(64), nullable=False, comment="control.instances"),
    Column("created_ms", BigInteger, nullable=False),
    Column("created_epoch", Integer, nullable=False, server_default="0"),
    Column("desired", String(16), nullable=False, comment="control.instances"),
    Column("desired_ms", BigInteger, nullable=False, comment="control.instances"),
    Column("run", Integer, nullable=False, comment="control.instances"),
    Column("resets", Integer, nullable=False, server_default="0", comment="control.instances"),
    Column(
        "release",
        Boolean,
        nullable=False,
        server_default=text("false"),
        comment="control.instances",
    ),
    Column("on_halt", String(16), nullable=False),
    Column("ranking", String(16), nullable=False),
    Column("image_id", String(24), ForeignKey("images.id"), nullable=False),
    Column("type_name", String(64), nullable=False),
    Column("vcpus", Integer, nullable=False),
    Column("memory_mib", BigInteger, nullable=False),
    Column("swap_mib", BigInteger, nullable=False),
    Column("root_gib", BigInteger, nullable=False),
    Column("volatile_gib", BigInteger, nullable=False),
    Column("network", String(64), nullable=False),
    Column("nics", Text, nullable=False, comment="as leased at creation"),
    Column("context", Text, nullable=False),
    Column("host_id", String(24), nullable=True, comment="control.reconcile"),
    Column("pool_id", String(24), nullable=True, comment="control.reconcile"),
    Column(
        "generation", BigInteger, nullable=False, server_default="0", comment="control.reconcile"
    ),
    Column(
        "placed_ms", BigInteger, nullable=False, server_default="0", comment="control.reconcile"
    ),
    Column("avoid_host_id", String(24), nullable=True, comment="control.reconcile"),
    Column(
        "rounds",
        Integer,
        nullable=False,
        server_default="0",
        comment="control.reconcile: placements given up in this run",
    ),
    Column("observed", String(16), nullable=False, comment="hosts.worker"),
    Column("observed_generation", BigInteger, nullable=False, server_default="0"),
    Column("observed_run", Integer, nullable=False, server_default="0", comment="hosts.worker"),
    Column("observed_resets", Integer, nullable=False, server_default="0", comment="hosts.worker"),
    Column("observed_ms", BigInteger, nullable=False, server_default="0", comment="hosts.worker"),
    Column("halt_cause", String(16), nullable=False, server_default="", comment="hosts.worker"),
    Column("accelerator", String(8), nullable=False, server_default="", comment="hosts.worker"),
    Column("failures", Integer, nullable=False, server_default="0", comment="hosts.worker"),
    Column("failure", Text, nullable=False, server_default="", comment="hosts.worker"),
    Column("retry_ms", BigInteger, nullable=False, server_default="0", comment="hosts.worker"),
    Column("parked", Text, nullable=False, server_default="", comment="control.reconcile"),
    Column("waiting", Text, nullable=False, server_default="", comment="control.reconcile"),
    Column("gone_ms", BigInteger, nullable=False, server_default="0", comment="control.reconcile"),
    _version(),
    Index(
        "ix_instances_project_live",
        "project_id",
        "id",
        sqlite_where=text("gone_ms = 0"),
        postgresql_where=text("gone_ms = 0"),
    ),
    Index(
        "ix_instances_live",
        "id",
        sqlite_where=text("gone_ms = 0"),
        postgresql_where=text("gone_ms = 0"),
    ),
    Index(
        "ix_instances_host",
        "host_id",
        sqlite_where=text("host_id IS NOT NULL"),
        postgresql_where=text("host_id IS NOT NULL"),
    ),
    Index(
        "ix_instances_waiting",
        "id",
        sqlite_where=text("gone_ms = 0 AND host_id IS NULL AND waiting <> ''"),
        postgresql_where=text("gone_ms = 0 AND host_id IS NULL AND waiting <> ''"),
    ),
    Index(
        "ix_instances_image",
        "image_id",
        sqlite_where=text("gone_ms = 0"),
        postgresql_where=text("gone_ms = 0"),
    ),
)

volumes = Table(
    "volumes",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("project_id", String(24), ForeignKey("projects.id"), nullable=False),
    Column("instance_id", String(24), nullable=True),
    Column("kind", String(16), nullable=False),
    Column("position", Integer, nullable=False, server_default="0"),
    Column("size_bytes", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("image_id", String(24), nullable=True, comment="the parent, where there is one"),
    Column("wanted", Boolean, nullable=False, comment="control.instances"),
    Column("pool_id", String(24), nullable=True, comment="control.reconcile"),
    Column("presence", String(16), nullable=False, comment="hosts.pools"),
    Column("epoch", BigInteger, nullable=False, server_default="0", comment="control.reconcile"),
    Column("failures", Integer, nullable=False, server_default="0", comment="hosts.pools"),
    Column("failure", Text, nullable=False, server_default="", comment="hosts.pools"),
    Column("retry_ms", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    Column("created_ms", BigInteger, nullable=False),
    Column("gone_ms", BigInteger, nullable=False, server_default="0", comment="hosts.pools"),
    _version(),
    Index(
        "ix_volumes_instance",
        "instance_id",
        sqlite_where=text("gone_ms = 0"),
        postgresql_where=text("gone_ms = 0"),
    ),
    Index(
        "ix_volumes_undone",
        "pool_id",
        sqlite_where=text("gone_ms = 0 AND (presence <> 'ready' OR NOT wanted)"),
        postgresql_where=text("gone_ms = 0 AND (presence <> 'ready' OR NOT wanted)"),
    ),
    Index(
        "ix_volumes_image",
        "image_id",
        sqlite_where=text("gone_ms = 0"),
        postgresql_where=text("gone_ms = 0"),
    ),
    Index(
        "ix_volumes_project",
        "project_id",
        sqlite_where=text("gone_ms = 0"),
        postgresql_where=text("gone_ms = 0"),
    ),
)

work = Table(
    "work",
    METADATA,
    Column("kind", String(16), primary_key=True),
    Column("subject", String(24), primary_key=True),
    Column("wake_ms", BigInteger, nullable=False, comment="whoever wants it looked at"),
    Column(
        "poked",
        Integer,
        nullable=False,
        server_default="0",
        comment="raised by every wake: one that arrives mid-look is not lost",
    ),
    Column("lease_token", BigInteger, nullable=False, server_default="0"),
    Column("lease_until_ms", BigInteger, nullable=False, server_default="0"),
    Index("ix_work_due", "kind", "wake_ms"),
    comment="rows saying: look again at this. Claimed under a token until a time",
)

events = Table(
    "events",
    METADATA,
    Column("seq", SERIAL, primary_key=True, autoincrement=True),
    Column(
        "tx",
        BigInteger,
        nullable=False,
        server_default="0",
        comment="PostgreSQL transaction id, so that readers never skip a late commit",
    ),
    Column("at_ms", BigInteger, nullable=False),
    Column("kind", String(64), nullable=False),
    Column("subject", String(24), nullable=False),
    Column("project_id", String(24), nullable=False, server_default=""),
    Column("actor", String(64), nullable=False, server_default=""),
    Column("request_id", String(64), nullable=False, server_default=""),
    Column("data", Text, nullable=False, server_default="{}"),
    Index("ix_events_order", "tx", "seq"),
    Index("ix_events_subject", "subject", "seq"),
    Index("ix_events_project", "project_id", "tx", "seq"),
    comment="audit trail, history and event stream; insert-only, written by everybody who changes",
)

operations = Table(
    "operations",
    METADATA,
    Column("id", String(24), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("project_id", String(24), nullable=False, server_default=""),
    Column("user_id", String(24), nullable=False),
    Column("subjects", Text, nullable=False, comment="JSON list of ids"),
    Column("goal", Text, nullable=False, comment="JSON: what must hold of the subjects"),
    Column("created_ms", BigInteger, nullable=False),
    comment="what a user asked for; whether it is done is computed from the subjects",
)

idempotency = Table(
    "idempotency",
    METADATA,
    Column("user_id", String(24), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Index(None, "created_ms"),
    comment="answers already given, in the transaction that made them true; api through control",
)
