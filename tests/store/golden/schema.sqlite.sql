CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);

CREATE TABLE endorsements (
	sha256 VARCHAR(64) NOT NULL, 
	image_sha256 VARCHAR(64) NOT NULL, 
	document BLOB NOT NULL, 
	received_ms BIGINT NOT NULL, 
	CONSTRAINT pk_endorsements PRIMARY KEY (sha256)
);

CREATE INDEX ix_endorsements_image_sha256 ON endorsements (image_sha256);

CREATE TABLE events (
	seq INTEGER NOT NULL, 
	tx BIGINT DEFAULT '0' NOT NULL, 
	at_ms BIGINT NOT NULL, 
	kind VARCHAR(64) NOT NULL, 
	subject VARCHAR(24) NOT NULL, 
	project_id VARCHAR(24) DEFAULT '' NOT NULL, 
	actor VARCHAR(64) DEFAULT '' NOT NULL, 
	request_id VARCHAR(64) DEFAULT '' NOT NULL, 
	data TEXT DEFAULT '{}' NOT NULL, 
	CONSTRAINT pk_events PRIMARY KEY (seq)
);

CREATE INDEX ix_events_order ON events (tx, seq);

CREATE INDEX ix_events_project ON events (project_id, tx, seq);

CREATE INDEX ix_events_subject ON events (subject, seq);

CREATE TABLE host_pools (
	host_id VARCHAR(24) NOT NULL, 
	pool_id VARCHAR(24) NOT NULL, 
	CONSTRAINT pk_host_pools PRIMARY KEY (host_id, pool_id), 
	CONSTRAINT fk_host_pools_host_id FOREIGN KEY(host_id) REFERENCES hosts (id), 
	CONSTRAINT fk_host_pools_pool_id FOREIGN KEY(pool_id) REFERENCES pools (id)
);

CREATE TABLE hosts (
	id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	uri TEXT NOT NULL, 
	desired VARCHAR(16) NOT NULL, 
	cpu_ratio FLOAT NOT NULL, 
	memory_ratio FLOAT NOT NULL, 
	memory_reserved_mib BIGINT NOT NULL, 
	accelerator_wanted VARCHAR(8) DEFAULT 'auto' NOT NULL, 
	capacity TEXT DEFAULT '' NOT NULL, 
	seen_ms BIGINT DEFAULT '0' NOT NULL, 
	unreachable_ms BIGINT DEFAULT '0' NOT NULL, 
	failure TEXT DEFAULT '' NOT NULL, 
	inventory_epoch INTEGER DEFAULT '0' NOT NULL, 
	wake_ms BIGINT, 
	poked INTEGER DEFAULT '0' NOT NULL, 
	lease_owner VARCHAR(64) DEFAULT '' NOT NULL, 
	lease_token BIGINT DEFAULT '0' NOT NULL, 
	lease_until_ms BIGINT DEFAULT '0' NOT NULL, 
	placements BIGINT DEFAULT '0' NOT NULL, 
	created_ms BIGINT NOT NULL, 
	gone_ms BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_hosts PRIMARY KEY (id)
);

CREATE UNIQUE INDEX uq_hosts_name_live ON hosts (name) WHERE gone_ms = 0;

CREATE TABLE idempotency (
	user_id VARCHAR(24) NOT NULL, 
	"key" VARCHAR(128) NOT NULL, 
	request_sha256 VARCHAR(64) NOT NULL, 
	status INTEGER NOT NULL, 
	body BLOB NOT NULL, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_idempotency PRIMARY KEY (user_id, "key")
);

CREATE INDEX ix_idempotency_created_ms ON idempotency (created_ms);

CREATE TABLE images (
	id VARCHAR(24) NOT NULL, 
	project_id VARCHAR(24) NOT NULL, 
	user_id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	title VARCHAR(200) DEFAULT '' NOT NULL, 
	source TEXT NOT NULL, 
	format VARCHAR(16) NOT NULL, 
	visibility VARCHAR(16) NOT NULL, 
	wanted BOOLEAN NOT NULL, 
	said_bytes BIGINT DEFAULT '0' NOT NULL, 
	said_sha256 VARCHAR(64) DEFAULT '' NOT NULL, 
	pool_id VARCHAR(24), 
	size_bytes BIGINT DEFAULT '0' NOT NULL, 
	virtual_bytes BIGINT DEFAULT '0' NOT NULL, 
	sha256 VARCHAR(64) DEFAULT '' NOT NULL, 
	sha1 VARCHAR(40) DEFAULT '' NOT NULL, 
	identifier VARCHAR(27) DEFAULT '' NOT NULL, 
	presence VARCHAR(16) NOT NULL, 
	fetched_bytes BIGINT DEFAULT '0' NOT NULL, 
	failures INTEGER DEFAULT '0' NOT NULL, 
	failure TEXT DEFAULT '' NOT NULL, 
	retry_ms BIGINT DEFAULT '0' NOT NULL, 
	parked TEXT DEFAULT '' NOT NULL, 
	created_ms BIGINT NOT NULL, 
	gone_ms BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_images PRIMARY KEY (id), 
	CONSTRAINT fk_images_project_id FOREIGN KEY(project_id) REFERENCES projects (id), 
	CONSTRAINT fk_images_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_images_identifier ON images (identifier);

CREATE INDEX ix_images_project ON images (project_id, id);

CREATE INDEX ix_images_sha256 ON images (sha256);

CREATE TABLE instance_types (
	name VARCHAR(64) NOT NULL, 
	vcpus INTEGER NOT NULL, 
	memory_mib BIGINT NOT NULL, 
	swap_mib BIGINT DEFAULT '0' NOT NULL, 
	root_gib BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_instance_types PRIMARY KEY (name)
);

CREATE TABLE instances (
	id VARCHAR(24) NOT NULL, 
	project_id VARCHAR(24) NOT NULL, 
	user_id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	created_ms BIGINT NOT NULL, 
	created_epoch INTEGER DEFAULT '0' NOT NULL, 
	desired VARCHAR(16) NOT NULL, 
	desired_ms BIGINT NOT NULL, 
	run INTEGER NOT NULL, 
	resets INTEGER DEFAULT '0' NOT NULL, 
	release BOOLEAN DEFAULT (false) NOT NULL, 
	on_halt VARCHAR(16) NOT NULL, 
	ranking VARCHAR(16) NOT NULL, 
	image_id VARCHAR(24) NOT NULL, 
	type_name VARCHAR(64) NOT NULL, 
	vcpus INTEGER NOT NULL, 
	memory_mib BIGINT NOT NULL, 
	swap_mib BIGINT NOT NULL, 
	root_gib BIGINT NOT NULL, 
	volatile_gib BIGINT NOT NULL, 
	network VARCHAR(64) NOT NULL, 
	nics TEXT NOT NULL, 
	context TEXT NOT NULL, 
	host_id VARCHAR(24), 
	pool_id VARCHAR(24), 
	generation BIGINT DEFAULT '0' NOT NULL, 
	placed_ms BIGINT DEFAULT '0' NOT NULL, 
	avoid_host_id VARCHAR(24), 
	rounds INTEGER DEFAULT '0' NOT NULL, 
	observed VARCHAR(16) NOT NULL, 
	observed_generation BIGINT DEFAULT '0' NOT NULL, 
	observed_run INTEGER DEFAULT '0' NOT NULL, 
	observed_resets INTEGER DEFAULT '0' NOT NULL, 
	observed_ms BIGINT DEFAULT '0' NOT NULL, 
	halt_cause VARCHAR(16) DEFAULT '' NOT NULL, 
	accelerator VARCHAR(8) DEFAULT '' NOT NULL, 
	failures INTEGER DEFAULT '0' NOT NULL, 
	failure TEXT DEFAULT '' NOT NULL, 
	retry_ms BIGINT DEFAULT '0' NOT NULL, 
	parked TEXT DEFAULT '' NOT NULL, 
	waiting TEXT DEFAULT '' NOT NULL, 
	gone_ms BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_instances PRIMARY KEY (id), 
	CONSTRAINT fk_instances_image_id FOREIGN KEY(image_id) REFERENCES images (id), 
	CONSTRAINT fk_instances_project_id FOREIGN KEY(project_id) REFERENCES projects (id), 
	CONSTRAINT fk_instances_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE INDEX ix_instances_host ON instances (host_id) WHERE host_id IS NOT NULL;

CREATE INDEX ix_instances_image ON instances (image_id) WHERE gone_ms = 0;

CREATE INDEX ix_instances_live ON instances (id) WHERE gone_ms = 0;

CREATE INDEX ix_instances_project_live ON instances (project_id, id) WHERE gone_ms = 0;

CREATE INDEX ix_instances_waiting ON instances (id) WHERE gone_ms = 0 AND host_id IS NULL AND waiting <> '';

CREATE INDEX ix_leases_instance_id ON leases (instance_id);

CREATE INDEX ix_leases_project_live ON leases (project_id) WHERE released_ms = 0;

CREATE TABLE leases (
	id VARCHAR(24) NOT NULL, 
	network_id VARCHAR(24) NOT NULL, 
	project_id VARCHAR(24) NOT NULL, 
	instance_id VARCHAR(24) NOT NULL, 
	position INTEGER NOT NULL, 
	mac VARCHAR(17) NOT NULL, 
	ipv4 VARCHAR(15) DEFAULT '' NOT NULL, 
	ipv6 VARCHAR(39) DEFAULT '' NOT NULL, 
	leased_ms BIGINT NOT NULL, 
	released_ms BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_leases PRIMARY KEY (id), 
	CONSTRAINT fk_leases_network_id FOREIGN KEY(network_id) REFERENCES networks (id)
);

CREATE UNIQUE INDEX uq_leases_ipv4_live ON leases (network_id, ipv4) WHERE released_ms = 0 AND ipv4 <> '';

CREATE UNIQUE INDEX uq_leases_mac_live ON leases (mac) WHERE released_ms = 0;

CREATE INDEX ix_memberships_user_id ON memberships (user_id);

CREATE TABLE memberships (
	project_id VARCHAR(24) NOT NULL, 
	user_id VARCHAR(24) NOT NULL, 
	role VARCHAR(16) NOT NULL, 
	CONSTRAINT pk_memberships PRIMARY KEY (project_id, user_id), 
	CONSTRAINT fk_memberships_project_id FOREIGN KEY(project_id) REFERENCES projects (id), 
	CONSTRAINT fk_memberships_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE TABLE networks (
	id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	class VARCHAR(16) NOT NULL, 
	spec TEXT NOT NULL, 
	cursor BIGINT DEFAULT '0' NOT NULL, 
	created_ms BIGINT NOT NULL, 
	gone_ms BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_networks PRIMARY KEY (id), 
	CONSTRAINT uq_networks_name UNIQUE (name)
);

CREATE TABLE operations (
	id VARCHAR(24) NOT NULL, 
	kind VARCHAR(64) NOT NULL, 
	project_id VARCHAR(24) DEFAULT '' NOT NULL, 
	user_id VARCHAR(24) NOT NULL, 
	subjects TEXT NOT NULL, 
	goal TEXT NOT NULL, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_operations PRIMARY KEY (id)
);

CREATE TABLE pools (
	id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	driver VARCHAR(16) NOT NULL, 
	location TEXT NOT NULL, 
	desired VARCHAR(16) NOT NULL, 
	facts TEXT DEFAULT '' NOT NULL, 
	seen_ms BIGINT DEFAULT '0' NOT NULL, 
	unreachable_ms BIGINT DEFAULT '0' NOT NULL, 
	failure TEXT DEFAULT '' NOT NULL, 
	wake_ms BIGINT, 
	poked INTEGER DEFAULT '0' NOT NULL, 
	lease_owner VARCHAR(64) DEFAULT '' NOT NULL, 
	lease_token BIGINT DEFAULT '0' NOT NULL, 
	lease_until_ms BIGINT DEFAULT '0' NOT NULL, 
	created_ms BIGINT NOT NULL, 
	gone_ms BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_pools PRIMARY KEY (id), 
	CONSTRAINT uq_pools_name UNIQUE (name)
);

CREATE TABLE projects (
	id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	quota_instances INTEGER NOT NULL, 
	quota_vcpus INTEGER NOT NULL, 
	quota_memory_mib BIGINT NOT NULL, 
	quota_volumes INTEGER NOT NULL, 
	quota_volume_gib BIGINT NOT NULL, 
	quota_addresses INTEGER NOT NULL, 
	created_ms BIGINT NOT NULL, 
	gone_ms BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_projects PRIMARY KEY (id), 
	CONSTRAINT uq_projects_name UNIQUE (name)
);

CREATE TABLE site (
	"key" VARCHAR(64) NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_site PRIMARY KEY ("key")
);

CREATE INDEX ix_strays_instance_id ON strays (instance_id);

CREATE TABLE strays (
	host_id VARCHAR(24) NOT NULL, 
	name VARCHAR(200) NOT NULL, 
	instance_id VARCHAR(24) DEFAULT '' NOT NULL, 
	generation BIGINT DEFAULT '0' NOT NULL, 
	observed VARCHAR(16) NOT NULL, 
	first_ms BIGINT NOT NULL, 
	seen_ms BIGINT NOT NULL, 
	CONSTRAINT pk_strays PRIMARY KEY (host_id, name), 
	CONSTRAINT fk_strays_host_id FOREIGN KEY(host_id) REFERENCES hosts (id)
);

CREATE INDEX ix_tokens_user_id ON tokens (user_id);

CREATE TABLE tokens (
	id VARCHAR(24) NOT NULL, 
	user_id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	secret_hash BLOB NOT NULL, 
	scopes VARCHAR(64) NOT NULL, 
	created_ms BIGINT NOT NULL, 
	expires_ms BIGINT NOT NULL, 
	CONSTRAINT pk_tokens PRIMARY KEY (id), 
	CONSTRAINT fk_tokens_user_id FOREIGN KEY(user_id) REFERENCES users (id)
);

CREATE TABLE tombstones (
	host_id VARCHAR(24) NOT NULL, 
	instance_id VARCHAR(24) NOT NULL, 
	generation BIGINT NOT NULL, 
	created_ms BIGINT NOT NULL, 
	CONSTRAINT pk_tombstones PRIMARY KEY (host_id, instance_id, generation), 
	CONSTRAINT fk_tombstones_host_id FOREIGN KEY(host_id) REFERENCES hosts (id)
);

CREATE TABLE trusted_keys (
	fingerprint VARCHAR(80) NOT NULL, 
	pem TEXT NOT NULL, 
	email VARCHAR(200) DEFAULT '' NOT NULL, 
	added_ms BIGINT NOT NULL, 
	CONSTRAINT pk_trusted_keys PRIMARY KEY (fingerprint)
);

CREATE TABLE users (
	id VARCHAR(24) NOT NULL, 
	name VARCHAR(64) NOT NULL, 
	password_hash TEXT DEFAULT '' NOT NULL, 
	admin BOOLEAN DEFAULT (false) NOT NULL, 
	auditor BOOLEAN DEFAULT (false) NOT NULL, 
	disabled BOOLEAN DEFAULT (false) NOT NULL, 
	created_ms BIGINT NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_users PRIMARY KEY (id), 
	CONSTRAINT uq_users_name UNIQUE (name)
);

CREATE INDEX ix_volumes_image ON volumes (image_id) WHERE gone_ms = 0;

CREATE INDEX ix_volumes_instance ON volumes (instance_id) WHERE gone_ms = 0;

CREATE INDEX ix_volumes_project ON volumes (project_id) WHERE gone_ms = 0;

CREATE INDEX ix_volumes_undone ON volumes (pool_id) WHERE gone_ms = 0 AND (presence <> 'ready' OR NOT wanted);

CREATE TABLE volumes (
	id VARCHAR(24) NOT NULL, 
	project_id VARCHAR(24) NOT NULL, 
	instance_id VARCHAR(24), 
	kind VARCHAR(16) NOT NULL, 
	position INTEGER DEFAULT '0' NOT NULL, 
	size_bytes BIGINT NOT NULL, 
	source TEXT NOT NULL, 
	image_id VARCHAR(24), 
	wanted BOOLEAN NOT NULL, 
	pool_id VARCHAR(24), 
	presence VARCHAR(16) NOT NULL, 
	epoch BIGINT DEFAULT '0' NOT NULL, 
	failures INTEGER DEFAULT '0' NOT NULL, 
	failure TEXT DEFAULT '' NOT NULL, 
	retry_ms BIGINT DEFAULT '0' NOT NULL, 
	created_ms BIGINT NOT NULL, 
	gone_ms BIGINT DEFAULT '0' NOT NULL, 
	version INTEGER DEFAULT '1' NOT NULL, 
	CONSTRAINT pk_volumes PRIMARY KEY (id), 
	CONSTRAINT fk_volumes_project_id FOREIGN KEY(project_id) REFERENCES projects (id)
);

CREATE INDEX ix_work_due ON work (kind, wake_ms);

CREATE TABLE work (
	kind VARCHAR(16) NOT NULL, 
	subject VARCHAR(24) NOT NULL, 
	wake_ms BIGINT NOT NULL, 
	poked INTEGER DEFAULT '0' NOT NULL, 
	lease_token BIGINT DEFAULT '0' NOT NULL, 
	lease_until_ms BIGINT DEFAULT '0' NOT NULL, 
	CONSTRAINT pk_work PRIMARY KEY (kind, subject)
);
