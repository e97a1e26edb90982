"""The tables of the first release."""

# ruff: noqa: E501  # a table's comment is one line

import sqlalchemy as sa
from alembic import op

revision = "0001_begin"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "endorsements",
        sa.Column(
            "sha256", sa.String(length=64), nullable=False, comment="of the document as received"
        ),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("document", sa.LargeBinary(), nullable=False),
        sa.Column("received_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_endorsements")),
        comment="insert-only, written by control.images",
    )
    op.create_index(
        op.f("ix_endorsements_image_sha256"), "endorsements", ["image_sha256"], unique=False
    )
    op.create_table(
        "events",
        sa.Column(
            "seq",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=True,
            nullable=False,
        ),
        sa.Column(
            "tx",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="PostgreSQL transaction id, so that readers never skip a late commit",
        ),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("subject", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), server_default="", nullable=False),
        sa.Column("actor", sa.String(length=64), server_default="", nullable=False),
        sa.Column("request_id", sa.String(length=64), server_default="", nullable=False),
        sa.Column("data", sa.Text(), server_default="{}", nullable=False),
        sa.PrimaryKeyConstraint("seq", name=op.f("pk_events")),
        comment="audit trail, history and event stream; insert-only, written by everybody who changes",
    )
    op.create_index("ix_events_order", "events", ["tx", "seq"], unique=False)
    op.create_index("ix_events_project", "events", ["project_id", "tx", "seq"], unique=False)
    op.create_index("ix_events_subject", "events", ["subject", "seq"], unique=False)
    op.create_table(
        "hosts",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="control.hosts"),
        sa.Column("uri", sa.Text(), nullable=False, comment="control.hosts"),
        sa.Column("desired", sa.String(length=16), nullable=False, comment="control.hosts"),
        sa.Column("cpu_ratio", sa.Float(), nullable=False, comment="control.hosts"),
        sa.Column("memory_ratio", sa.Float(), nullable=False, comment="control.hosts"),
        sa.Column("memory_reserved_mib", sa.BigInteger(), nullable=False, comment="control.hosts"),
        sa.Column("accelerator_wanted", sa.String(length=8), server_default="auto", nullable=False),
        sa.Column("capacity", sa.Text(), server_default="", nullable=False, comment="hosts.worker"),
        sa.Column(
            "seen_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.worker"
        ),
        sa.Column(
            "unreachable_ms",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column("failure", sa.Text(), server_default="", nullable=False, comment="hosts.worker"),
        sa.Column(
            "inventory_epoch",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column(
            "wake_ms", sa.BigInteger(), nullable=True, comment="whoever wants the host looked at"
        ),
        sa.Column(
            "poked", sa.Integer(), server_default="0", nullable=False, comment="with every wake"
        ),
        sa.Column(
            "lease_owner",
            sa.String(length=64),
            server_default="",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column(
            "lease_token",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column("lease_until_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "placements",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="control.placer",
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "gone_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.worker"
        ),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    op.create_index(
        "uq_hosts_name_live",
        "hosts",
        ["name"],
        unique=True,
        sqlite_where=sa.text("gone_ms = 0"),
        postgresql_where=sa.text("gone_ms = 0"),
    )
    op.create_table(
        "idempotency",
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("key", sa.String(length=128), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("user_id", "key", name=op.f("pk_idempotency")),
        comment="answers already given, in the transaction that made them true; api through control",
    )
    op.create_index(op.f("ix_idempotency_created_ms"), "idempotency", ["created_ms"], unique=False)
    op.create_table(
        "instance_types",
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("swap_mib", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("root_gib", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_instance_types")),
        comment="written by control.types",
    )
    op.create_table(
        "networks",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("class", sa.String(length=16), nullable=False),
        sa.Column("spec", sa.Text(), nullable=False),
        sa.Column(
            "cursor",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="control.addresses",
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("gone_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_networks")),
        sa.UniqueConstraint("name", name=op.f("uq_networks_name")),
        comment="written by control.networks",
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("project_id", sa.String(length=24), server_default="", nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("subjects", sa.Text(), nullable=False, comment="JSON list of ids"),
        sa.Column(
            "goal", sa.Text(), nullable=False, comment="JSON: what must hold of the subjects"
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
        comment="what a user asked for; whether it is done is computed from the subjects",
    )
    op.create_table(
        "pools",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("driver", sa.String(length=16), nullable=False, comment="control.pools"),
        sa.Column("location", sa.Text(), nullable=False, comment="control.pools"),
        sa.Column("desired", sa.String(length=16), nullable=False, comment="control.pools"),
        sa.Column("facts", sa.Text(), server_default="", nullable=False, comment="hosts.pools"),
        sa.Column(
            "seen_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column(
            "unreachable_ms",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.pools",
        ),
        sa.Column("failure", sa.Text(), server_default="", nullable=False, comment="hosts.pools"),
        sa.Column(
            "wake_ms", sa.BigInteger(), nullable=True, comment="whoever wants the pool looked at"
        ),
        sa.Column(
            "poked", sa.Integer(), server_default="0", nullable=False, comment="with every wake"
        ),
        sa.Column(
            "lease_owner",
            sa.String(length=64),
            server_default="",
            nullable=False,
            comment="hosts.pools",
        ),
        sa.Column(
            "lease_token",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.pools",
        ),
        sa.Column(
            "lease_until_ms",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.pools",
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "gone_ms", sa.BigInteger(), server_default="0", nullable=False, comment="control.pools"
        ),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_pools")),
        sa.UniqueConstraint("name", name=op.f("uq_pools_name")),
    )
    op.create_table(
        "projects",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("quota_instances", sa.Integer(), nullable=False),
        sa.Column("quota_vcpus", sa.Integer(), nullable=False),
        sa.Column("quota_memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("quota_volumes", sa.Integer(), nullable=False),
        sa.Column("quota_volume_gib", sa.BigInteger(), nullable=False),
        sa.Column("quota_addresses", sa.Integer(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("gone_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_projects")),
        sa.UniqueConstraint("name", name=op.f("uq_projects_name")),
        comment="written by control.tenancy",
    )
    op.create_table(
        "site",
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("value", sa.Text(), nullable=False, comment="control.site, store.backup"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_site")),
        comment="facts of the whole site: name, epoch (raised by a restore), trust policy",
    )
    op.create_table(
        "trusted_keys",
        sa.Column(
            "fingerprint", sa.String(length=80), nullable=False, comment="sha256:<hex of the SPKI>"
        ),
        sa.Column("pem", sa.Text(), nullable=False),
        sa.Column("email", sa.String(length=200), server_default="", nullable=False),
        sa.Column("added_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", name=op.f("pk_trusted_keys")),
        comment="endorsers' public keys that this site knows; written by control.images",
    )
    op.create_table(
        "users",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("password_hash", sa.Text(), server_default="", nullable=False),
        sa.Column("admin", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("auditor", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("disabled", sa.Boolean(), server_default=sa.text("(false)"), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_users")),
        sa.UniqueConstraint("name", name=op.f("uq_users_name")),
        comment="written by control.tenancy",
    )
    op.create_table(
        "work",
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("subject", sa.String(length=24), nullable=False),
        sa.Column("wake_ms", sa.BigInteger(), nullable=False, comment="whoever wants it looked at"),
        sa.Column(
            "poked",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="raised by every wake: one that arrives mid-look is not lost",
        ),
        sa.Column("lease_token", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("lease_until_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.PrimaryKeyConstraint("kind", "subject", name=op.f("pk_work")),
        comment="rows saying: look again at this. Claimed under a token until a time",
    )
    op.create_index("ix_work_due", "work", ["kind", "wake_ms"], unique=False)
    op.create_table(
        "host_pools",
        sa.Column("host_id", sa.String(length=24), nullable=False),
        sa.Column("pool_id", sa.String(length=24), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_host_pools_host_id")),
        sa.ForeignKeyConstraint(["pool_id"], ["pools.id"], name=op.f("fk_host_pools_pool_id")),
        sa.PrimaryKeyConstraint("host_id", "pool_id", name=op.f("pk_host_pools")),
        comment="which hosts can open the disks of which pools; written by control.hosts",
    )
    op.create_table(
        "images",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="control.images"),
        sa.Column(
            "title",
            sa.String(length=200),
            server_default="",
            nullable=False,
            comment="control.images",
        ),
        sa.Column("source", sa.Text(), nullable=False, comment="control.images"),
        sa.Column("format", sa.String(length=16), nullable=False, comment="control.images"),
        sa.Column("visibility", sa.String(length=16), nullable=False, comment="control.images"),
        sa.Column("wanted", sa.Boolean(), nullable=False, comment="control.images"),
        sa.Column(
            "said_bytes",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="control.images",
        ),
        sa.Column(
            "said_sha256",
            sa.String(length=64),
            server_default="",
            nullable=False,
            comment="control.images",
        ),
        sa.Column("pool_id", sa.String(length=24), nullable=True, comment="control.images"),
        sa.Column(
            "size_bytes", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column(
            "virtual_bytes",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.pools",
        ),
        sa.Column(
            "sha256", sa.String(length=64), server_default="", nullable=False, comment="hosts.pools"
        ),
        sa.Column(
            "sha1", sa.String(length=40), server_default="", nullable=False, comment="hosts.pools"
        ),
        sa.Column(
            "identifier",
            sa.String(length=27),
            server_default="",
            nullable=False,
            comment="hosts.pools",
        ),
        sa.Column("presence", sa.String(length=16), nullable=False, comment="hosts.pools"),
        sa.Column(
            "fetched_bytes",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.pools",
        ),
        sa.Column(
            "failures", sa.Integer(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column("failure", sa.Text(), server_default="", nullable=False, comment="hosts.pools"),
        sa.Column(
            "retry_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column(
            "parked",
            sa.Text(),
            server_default="",
            nullable=False,
            comment="hosts.pools, control.images",
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "gone_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.ForeignKeyConstraint(["project_id"], ["projects.id"], name=op.f("fk_images_project_id")),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_images_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_images")),
    )
    op.create_index(op.f("ix_images_identifier"), "images", ["identifier"], unique=False)
    op.create_index("ix_images_project", "images", ["project_id", "id"], unique=False)
    op.create_index(op.f("ix_images_sha256"), "images", ["sha256"], unique=False)
    op.create_table(
        "leases",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("network_id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("instance_id", sa.String(length=24), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False, comment="which card of the instance"),
        sa.Column("mac", sa.String(length=17), nullable=False),
        sa.Column("ipv4", sa.String(length=15), server_default="", nullable=False),
        sa.Column("ipv6", sa.String(length=39), server_default="", nullable=False),
        sa.Column("leased_ms", sa.BigInteger(), nullable=False),
        sa.Column("released_ms", sa.BigInteger(), server_default="0", nullable=False),
        sa.ForeignKeyConstraint(["network_id"], ["networks.id"], name=op.f("fk_leases_network_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_leases")),
        comment="addresses and who had them when, never overwritten; written by control.addresses",
    )
    op.create_index(op.f("ix_leases_instance_id"), "leases", ["instance_id"], unique=False)
    op.create_index(
        "ix_leases_project_live",
        "leases",
        ["project_id"],
        unique=False,
        sqlite_where=sa.text("released_ms = 0"),
        postgresql_where=sa.text("released_ms = 0"),
    )
    op.create_index(
        "uq_leases_ipv4_live",
        "leases",
        ["network_id", "ipv4"],
        unique=True,
        sqlite_where=sa.text("released_ms = 0 AND ipv4 <> ''"),
        postgresql_where=sa.text("released_ms = 0 AND ipv4 <> ''"),
    )
    op.create_index(
        "uq_leases_mac_live",
        "leases",
        ["mac"],
        unique=True,
        sqlite_where=sa.text("released_ms = 0"),
        postgresql_where=sa.text("released_ms = 0"),
    )
    op.create_table(
        "memberships",
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("role", sa.String(length=16), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_memberships_project_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_memberships_user_id")),
        sa.PrimaryKeyConstraint("project_id", "user_id", name=op.f("pk_memberships")),
        comment="written by control.tenancy",
    )
    op.create_index(op.f("ix_memberships_user_id"), "memberships", ["user_id"], unique=False)
    op.create_table(
        "strays",
        sa.Column("host_id", sa.String(length=24), nullable=False),
        sa.Column(
            "name", sa.String(length=200), nullable=False, comment="as the hypervisor calls it"
        ),
        sa.Column("instance_id", sa.String(length=24), server_default="", nullable=False),
        sa.Column("generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column("observed", sa.String(length=16), nullable=False),
        sa.Column("first_ms", sa.BigInteger(), nullable=False),
        sa.Column("seen_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_strays_host_id")),
        sa.PrimaryKeyConstraint("host_id", "name", name=op.f("pk_strays")),
        comment="guests nobody wished for, left alone; written by hosts.worker",
    )
    op.create_index(op.f("ix_strays_instance_id"), "strays", ["instance_id"], unique=False)
    op.create_table(
        "tokens",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column(
            "secret_hash", sa.LargeBinary(), nullable=False, comment="SHA-256 of a random secret"
        ),
        sa.Column("scopes", sa.String(length=64), nullable=False, comment="space-separated"),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_tokens_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_tokens")),
        comment="written by control.tenancy; a revoked token's row is removed",
    )
    op.create_index(op.f("ix_tokens_user_id"), "tokens", ["user_id"], unique=False)
    op.create_table(
        "tombstones",
        sa.Column("host_id", sa.String(length=24), nullable=False),
        sa.Column("instance_id", sa.String(length=24), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["host_id"], ["hosts.id"], name=op.f("fk_tombstones_host_id")),
        sa.PrimaryKeyConstraint("host_id", "instance_id", "generation", name=op.f("pk_tombstones")),
        comment="guests given up with their fenced host, to be removed when it comes back; written by control.hosts, removed by hosts.worker",
    )
    op.create_table(
        "volumes",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("instance_id", sa.String(length=24), nullable=True),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("position", sa.Integer(), server_default="0", nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column(
            "image_id",
            sa.String(length=24),
            nullable=True,
            comment="the parent, where there is one",
        ),
        sa.Column("wanted", sa.Boolean(), nullable=False, comment="control.instances"),
        sa.Column("pool_id", sa.String(length=24), nullable=True, comment="control.reconcile"),
        sa.Column("presence", sa.String(length=16), nullable=False, comment="hosts.pools"),
        sa.Column(
            "epoch",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="control.reconcile",
        ),
        sa.Column(
            "failures", sa.Integer(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column("failure", sa.Text(), server_default="", nullable=False, comment="hosts.pools"),
        sa.Column(
            "retry_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column(
            "gone_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.pools"
        ),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_volumes_project_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_volumes")),
    )
    op.create_index(
        "ix_volumes_image",
        "volumes",
        ["image_id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0"),
        postgresql_where=sa.text("gone_ms = 0"),
    )
    op.create_index(
        "ix_volumes_instance",
        "volumes",
        ["instance_id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0"),
        postgresql_where=sa.text("gone_ms = 0"),
    )
    op.create_index(
        "ix_volumes_project",
        "volumes",
        ["project_id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0"),
        postgresql_where=sa.text("gone_ms = 0"),
    )
    op.create_index(
        "ix_volumes_undone",
        "volumes",
        ["pool_id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0 AND (presence <> 'ready' OR NOT wanted)"),
        postgresql_where=sa.text("gone_ms = 0 AND (presence <> 'ready' OR NOT wanted)"),
    )
    op.create_table(
        "instances",
        sa.Column("id", sa.String(length=24), nullable=False),
        sa.Column("project_id", sa.String(length=24), nullable=False),
        sa.Column("user_id", sa.String(length=24), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False, comment="control.instances"),
        sa.Column("created_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_epoch", sa.Integer(), server_default="0", nullable=False),
        sa.Column("desired", sa.String(length=16), nullable=False, comment="control.instances"),
        sa.Column("desired_ms", sa.BigInteger(), nullable=False, comment="control.instances"),
        sa.Column("run", sa.Integer(), nullable=False, comment="control.instances"),
        sa.Column(
            "resets", sa.Integer(), server_default="0", nullable=False, comment="control.instances"
        ),
        sa.Column(
            "release",
            sa.Boolean(),
            server_default=sa.text("(false)"),
            nullable=False,
            comment="control.instances",
        ),
        sa.Column("on_halt", sa.String(length=16), nullable=False),
        sa.Column("ranking", sa.String(length=16), nullable=False),
        sa.Column("image_id", sa.String(length=24), nullable=False),
        sa.Column("type_name", sa.String(length=64), nullable=False),
        sa.Column("vcpus", sa.Integer(), nullable=False),
        sa.Column("memory_mib", sa.BigInteger(), nullable=False),
        sa.Column("swap_mib", sa.BigInteger(), nullable=False),
        sa.Column("root_gib", sa.BigInteger(), nullable=False),
        sa.Column("volatile_gib", sa.BigInteger(), nullable=False),
        sa.Column("network", sa.String(length=64), nullable=False),
        sa.Column("nics", sa.Text(), nullable=False, comment="as leased at creation"),
        sa.Column("context", sa.Text(), nullable=False),
        sa.Column("host_id", sa.String(length=24), nullable=True, comment="control.reconcile"),
        sa.Column("pool_id", sa.String(length=24), nullable=True, comment="control.reconcile"),
        sa.Column(
            "generation",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="control.reconcile",
        ),
        sa.Column(
            "placed_ms",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="control.reconcile",
        ),
        sa.Column(
            "avoid_host_id", sa.String(length=24), nullable=True, comment="control.reconcile"
        ),
        sa.Column(
            "rounds",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="control.reconcile: placements given up in this run",
        ),
        sa.Column("observed", sa.String(length=16), nullable=False, comment="hosts.worker"),
        sa.Column("observed_generation", sa.BigInteger(), server_default="0", nullable=False),
        sa.Column(
            "observed_run", sa.Integer(), server_default="0", nullable=False, comment="hosts.worker"
        ),
        sa.Column(
            "observed_resets",
            sa.Integer(),
            server_default="0",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column(
            "observed_ms",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column(
            "halt_cause",
            sa.String(length=16),
            server_default="",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column(
            "accelerator",
            sa.String(length=8),
            server_default="",
            nullable=False,
            comment="hosts.worker",
        ),
        sa.Column(
            "failures", sa.Integer(), server_default="0", nullable=False, comment="hosts.worker"
        ),
        sa.Column("failure", sa.Text(), server_default="", nullable=False, comment="hosts.worker"),
        sa.Column(
            "retry_ms", sa.BigInteger(), server_default="0", nullable=False, comment="hosts.worker"
        ),
        sa.Column(
            "parked", sa.Text(), server_default="", nullable=False, comment="control.reconcile"
        ),
        sa.Column(
            "waiting", sa.Text(), server_default="", nullable=False, comment="control.reconcile"
        ),
        sa.Column(
            "gone_ms",
            sa.BigInteger(),
            server_default="0",
            nullable=False,
            comment="control.reconcile",
        ),
        sa.Column(
            "version", sa.Integer(), server_default="1", nullable=False, comment="every writer"
        ),
        sa.ForeignKeyConstraint(["image_id"], ["images.id"], name=op.f("fk_instances_image_id")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["projects.id"], name=op.f("fk_instances_project_id")
        ),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_instances_user_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_instances")),
    )
    op.create_index(
        "ix_instances_host",
        "instances",
        ["host_id"],
        unique=False,
        sqlite_where=sa.text("host_id IS NOT NULL"),
        postgresql_where=sa.text("host_id IS NOT NULL"),
    )
    op.create_index(
        "ix_instances_image",
        "instances",
        ["image_id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0"),
        postgresql_where=sa.text("gone_ms = 0"),
    )
    op.create_index(
        "ix_instances_live",
        "instances",
        ["id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0"),
        postgresql_where=sa.text("gone_ms = 0"),
    )
    op.create_index(
        "ix_instances_project_live",
        "instances",
        ["project_id", "id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0"),
        postgresql_where=sa.text("gone_ms = 0"),
    )
    op.create_index(
        "ix_instances_waiting",
        "instances",
        ["id"],
        unique=False,
        sqlite_where=sa.text("gone_ms = 0 AND host_id IS NULL AND waiting <> ''"),
        postgresql_where=sa.text("gone_ms = 0 AND host_id IS NULL AND waiting <> ''"),
    )
