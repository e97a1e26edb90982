CREATE TABLE public.alembic_version (
    version_num character varying(32) NOT NULL
);
CREATE TABLE public.endorsements (
    sha256 character varying(64) NOT NULL,
    image_sha256 character varying(64) NOT NULL,
    document bytea NOT NULL,
    received_ms bigint NOT NULL
);
COMMENT ON TABLE public.endorsements IS 'insert-only, written by control.images';
COMMENT ON COLUMN public.endorsements.sha256 IS 'of the document as received';
CREATE TABLE public.events (
    seq bigint NOT NULL,
    tx bigint DEFAULT '0'::bigint NOT NULL,
    at_ms bigint NOT NULL,
    kind character varying(64) NOT NULL,
    subject character varying(24) NOT NULL,
    project_id character varying(24) DEFAULT ''::character varying NOT NULL,
    actor character varying(64) DEFAULT ''::character varying NOT NULL,
    request_id character varying(64) DEFAULT ''::character varying NOT NULL,
    data text DEFAULT '{}'::text NOT NULL
);
COMMENT ON TABLE public.events IS 'audit trail, history and event stream; insert-only, written by everybody who changes';
COMMENT ON COLUMN public.events.tx IS 'PostgreSQL transaction id, so that readers never skip a late commit';
CREATE SEQUENCE public.events_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
ALTER SEQUENCE public.events_seq_seq OWNED BY public.events.seq;
CREATE TABLE public.host_pools (
    host_id character varying(24) NOT NULL,
    pool_id character varying(24) NOT NULL
);
COMMENT ON TABLE public.host_pools IS 'which hosts can open the disks of which pools; written by control.hosts';
CREATE TABLE public.hosts (
    id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    uri text NOT NULL,
    desired character varying(16) NOT NULL,
    cpu_ratio double precision NOT NULL,
    memory_ratio double precision NOT NULL,
    memory_reserved_mib bigint NOT NULL,
    accelerator_wanted character varying(8) DEFAULT 'auto'::character varying NOT NULL,
    capacity text DEFAULT ''::text NOT NULL,
    seen_ms bigint DEFAULT '0'::bigint NOT NULL,
    unreachable_ms bigint DEFAULT '0'::bigint NOT NULL,
    failure text DEFAULT ''::text NOT NULL,
    inventory_epoch integer DEFAULT 0 NOT NULL,
    wake_ms bigint,
    poked integer DEFAULT 0 NOT NULL,
    lease_owner character varying(64) DEFAULT ''::character varying NOT NULL,
    lease_token bigint DEFAULT '0'::bigint NOT NULL,
    lease_until_ms bigint DEFAULT '0'::bigint NOT NULL,
    placements bigint DEFAULT '0'::bigint NOT NULL,
    created_ms bigint NOT NULL,
    gone_ms bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON COLUMN public.hosts.name IS 'control.hosts';
COMMENT ON COLUMN public.hosts.uri IS 'control.hosts';
COMMENT ON COLUMN public.hosts.desired IS 'control.hosts';
COMMENT ON COLUMN public.hosts.cpu_ratio IS 'control.hosts';
COMMENT ON COLUMN public.hosts.memory_ratio IS 'control.hosts';
COMMENT ON COLUMN public.hosts.memory_reserved_mib IS 'control.hosts';
COMMENT ON COLUMN public.hosts.capacity IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.seen_ms IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.unreachable_ms IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.failure IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.inventory_epoch IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.wake_ms IS 'whoever wants the host looked at';
COMMENT ON COLUMN public.hosts.poked IS 'with every wake';
COMMENT ON COLUMN public.hosts.lease_owner IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.lease_token IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.placements IS 'control.placer';
COMMENT ON COLUMN public.hosts.gone_ms IS 'hosts.worker';
COMMENT ON COLUMN public.hosts.version IS 'every writer';
CREATE TABLE public.idempotency (
    user_id character varying(24) NOT NULL,
    key character varying(128) NOT NULL,
    request_sha256 character varying(64) NOT NULL,
    status integer NOT NULL,
    body bytea NOT NULL,
    created_ms bigint NOT NULL
);
COMMENT ON TABLE public.idempotency IS 'answers already given, in the transaction that made them true; api through control';
CREATE TABLE public.images (
    id character varying(24) NOT NULL,
    project_id character varying(24) NOT NULL,
    user_id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    title character varying(200) DEFAULT ''::character varying NOT NULL,
    source text NOT NULL,
    format character varying(16) NOT NULL,
    visibility character varying(16) NOT NULL,
    wanted boolean NOT NULL,
    said_bytes bigint DEFAULT '0'::bigint NOT NULL,
    said_sha256 character varying(64) DEFAULT ''::character varying NOT NULL,
    pool_id character varying(24),
    size_bytes bigint DEFAULT '0'::bigint NOT NULL,
    virtual_bytes bigint DEFAULT '0'::bigint NOT NULL,
    sha256 character varying(64) DEFAULT ''::character varying NOT NULL,
    sha1 character varying(40) DEFAULT ''::character varying NOT NULL,
    identifier character varying(27) DEFAULT ''::character varying NOT NULL,
    presence character varying(16) NOT NULL,
    fetched_bytes bigint DEFAULT '0'::bigint NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    failure text DEFAULT ''::text NOT NULL,
    retry_ms bigint DEFAULT '0'::bigint NOT NULL,
    parked text DEFAULT ''::text NOT NULL,
    created_ms bigint NOT NULL,
    gone_ms bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON COLUMN public.images.name IS 'control.images';
COMMENT ON COLUMN public.images.title IS 'control.images';
COMMENT ON COLUMN public.images.source IS 'control.images';
COMMENT ON COLUMN public.images.format IS 'control.images';
COMMENT ON COLUMN public.images.visibility IS 'control.images';
COMMENT ON COLUMN public.images.wanted IS 'control.images';
COMMENT ON COLUMN public.images.said_bytes IS 'control.images';
COMMENT ON COLUMN public.images.said_sha256 IS 'control.images';
COMMENT ON COLUMN public.images.pool_id IS 'control.images';
COMMENT ON COLUMN public.images.size_bytes IS 'hosts.pools';
COMMENT ON COLUMN public.images.virtual_bytes IS 'hosts.pools';
COMMENT ON COLUMN public.images.sha256 IS 'hosts.pools';
COMMENT ON COLUMN public.images.sha1 IS 'hosts.pools';
COMMENT ON COLUMN public.images.identifier IS 'hosts.pools';
COMMENT ON COLUMN public.images.presence IS 'hosts.pools';
COMMENT ON COLUMN public.images.fetched_bytes IS 'hosts.pools';
COMMENT ON COLUMN public.images.failures IS 'hosts.pools';
COMMENT ON COLUMN public.images.failure IS 'hosts.pools';
COMMENT ON COLUMN public.images.retry_ms IS 'hosts.pools';
COMMENT ON COLUMN public.images.parked IS 'hosts.pools, control.images';
COMMENT ON COLUMN public.images.gone_ms IS 'hosts.pools';
COMMENT ON COLUMN public.images.version IS 'every writer';
CREATE TABLE public.instance_types (
    name character varying(64) NOT NULL,
    vcpus integer NOT NULL,
    memory_mib bigint NOT NULL,
    swap_mib bigint DEFAULT '0'::bigint NOT NULL,
    root_gib bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON TABLE public.instance_types IS 'written by control.types';
COMMENT ON COLUMN public.instance_types.version IS 'every writer';
CREATE TABLE public.instances (
    id character varying(24) NOT NULL,
    project_id character varying(24) NOT NULL,
    user_id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    created_ms bigint NOT NULL,
    created_epoch integer DEFAULT 0 NOT NULL,
    desired character varying(16) NOT NULL,
    desired_ms bigint NOT NULL,
    run integer NOT NULL,
    resets integer DEFAULT 0 NOT NULL,
    release boolean DEFAULT false NOT NULL,
    on_halt character varying(16) NOT NULL,
    ranking character varying(16) NOT NULL,
    image_id character varying(24) NOT NULL,
    type_name character varying(64) NOT NULL,
    vcpus integer NOT NULL,
    memory_mib bigint NOT NULL,
    swap_mib bigint NOT NULL,
    root_gib bigint NOT NULL,
    volatile_gib bigint NOT NULL,
    network character varying(64) NOT NULL,
    nics text NOT NULL,
    context text NOT NULL,
    host_id character varying(24),
    pool_id character varying(24),
    generation bigint DEFAULT '0'::bigint NOT NULL,
    placed_ms bigint DEFAULT '0'::bigint NOT NULL,
    avoid_host_id character varying(24),
    rounds integer DEFAULT 0 NOT NULL,
    observed character varying(16) NOT NULL,
    observed_generation bigint DEFAULT '0'::bigint NOT NULL,
    observed_run integer DEFAULT 0 NOT NULL,
    observed_resets integer DEFAULT 0 NOT NULL,
    observed_ms bigint DEFAULT '0'::bigint NOT NULL,
    halt_cause character varying(16) DEFAULT ''::character varying NOT NULL,
    accelerator character varying(8) DEFAULT ''::character varying NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    failure text DEFAULT ''::text NOT NULL,
    retry_ms bigint DEFAULT '0'::bigint NOT NULL,
    parked text DEFAULT ''::text NOT NULL,
    waiting text DEFAULT ''::text NOT NULL,
    gone_ms bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON COLUMN public.instances.name IS 'control.instances';
COMMENT ON COLUMN public.instances.desired IS 'control.instances';
COMMENT ON COLUMN public.instances.desired_ms IS 'control.instances';
COMMENT ON COLUMN public.instances.run IS 'control.instances';
COMMENT ON COLUMN public.instances.resets IS 'control.instances';
COMMENT ON COLUMN public.instances.release IS 'control.instances';
COMMENT ON COLUMN public.instances.nics IS 'as leased at creation';
COMMENT ON COLUMN public.instances.host_id IS 'control.reconcile';
COMMENT ON COLUMN public.instances.pool_id IS 'control.reconcile';
COMMENT ON COLUMN public.instances.generation IS 'control.reconcile';
COMMENT ON COLUMN public.instances.placed_ms IS 'control.reconcile';
COMMENT ON COLUMN public.instances.avoid_host_id IS 'control.reconcile';
COMMENT ON COLUMN public.instances.rounds IS 'control.reconcile: placements given up in this run';
COMMENT ON COLUMN public.instances.observed IS 'hosts.worker';
COMMENT ON COLUMN public.instances.observed_run IS 'hosts.worker';
COMMENT ON COLUMN public.instances.observed_resets IS 'hosts.worker';
COMMENT ON COLUMN public.instances.observed_ms IS 'hosts.worker';
COMMENT ON COLUMN public.instances.halt_cause IS 'hosts.worker';
COMMENT ON COLUMN public.instances.accelerator IS 'hosts.worker';
COMMENT ON COLUMN public.instances.failures IS 'hosts.worker';
COMMENT ON COLUMN public.instances.failure IS 'hosts.worker';
COMMENT ON COLUMN public.instances.retry_ms IS 'hosts.worker';
COMMENT ON COLUMN public.instances.parked IS 'control.reconcile';
COMMENT ON COLUMN public.instances.waiting IS 'control.reconcile';
COMMENT ON COLUMN public.instances.gone_ms IS 'control.reconcile';
COMMENT ON COLUMN public.instances.version IS 'every writer';
CREATE TABLE public.leases (
    id character varying(24) NOT NULL,
    network_id character varying(24) NOT NULL,
    project_id character varying(24) NOT NULL,
    instance_id character varying(24) NOT NULL,
    "position" integer NOT NULL,
    mac character varying(17) NOT NULL,
    ipv4 character varying(15) DEFAULT ''::character varying NOT NULL,
    ipv6 character varying(39) DEFAULT ''::character varying NOT NULL,
    leased_ms bigint NOT NULL,
    released_ms bigint DEFAULT '0'::bigint NOT NULL
);
COMMENT ON TABLE public.leases IS 'addresses and who had them when, never overwritten; written by control.addresses';
COMMENT ON COLUMN public.leases."position" IS 'which card of the instance';
CREATE TABLE public.memberships (
    project_id character varying(24) NOT NULL,
    user_id character varying(24) NOT NULL,
    role character varying(16) NOT NULL
);
COMMENT ON TABLE public.memberships IS 'written by control.tenancy';
CREATE TABLE public.networks (
    id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    class character varying(16) NOT NULL,
    spec text NOT NULL,
    cursor bigint DEFAULT '0'::bigint NOT NULL,
    created_ms bigint NOT NULL,
    gone_ms bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON TABLE public.networks IS 'written by control.networks';
COMMENT ON COLUMN public.networks.cursor IS 'control.addresses';
COMMENT ON COLUMN public.networks.version IS 'every writer';
CREATE TABLE public.operations (
    id character varying(24) NOT NULL,
    kind character varying(64) NOT NULL,
    project_id character varying(24) DEFAULT ''::character varying NOT NULL,
    user_id character varying(24) NOT NULL,
    subjects text NOT NULL,
    goal text NOT NULL,
    created_ms bigint NOT NULL
);
COMMENT ON TABLE public.operations IS 'what a user asked for; whether it is done is computed from the subjects';
COMMENT ON COLUMN public.operations.subjects IS 'JSON list of ids';
COMMENT ON COLUMN public.operations.goal IS 'JSON: what must hold of the subjects';
CREATE TABLE public.pools (
    id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    driver character varying(16) NOT NULL,
    location text NOT NULL,
    desired character varying(16) NOT NULL,
    facts text DEFAULT ''::text NOT NULL,
    seen_ms bigint DEFAULT '0'::bigint NOT NULL,
    unreachable_ms bigint DEFAULT '0'::bigint NOT NULL,
    failure text DEFAULT ''::text NOT NULL,
    wake_ms bigint,
    poked integer DEFAULT 0 NOT NULL,
    lease_owner character varying(64) DEFAULT ''::character varying NOT NULL,
    lease_token bigint DEFAULT '0'::bigint NOT NULL,
    lease_until_ms bigint DEFAULT '0'::bigint NOT NULL,
    created_ms bigint NOT NULL,
    gone_ms bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON COLUMN public.pools.driver IS 'control.pools';
COMMENT ON COLUMN public.pools.location IS 'control.pools';
COMMENT ON COLUMN public.pools.desired IS 'control.pools';
COMMENT ON COLUMN public.pools.facts IS 'hosts.pools';
COMMENT ON COLUMN public.pools.seen_ms IS 'hosts.pools';
COMMENT ON COLUMN public.pools.unreachable_ms IS 'hosts.pools';
COMMENT ON COLUMN public.pools.failure IS 'hosts.pools';
COMMENT ON COLUMN public.pools.wake_ms IS 'whoever wants the pool looked at';
COMMENT ON COLUMN public.pools.poked IS 'with every wake';
COMMENT ON COLUMN public.pools.lease_owner IS 'hosts.pools';
COMMENT ON COLUMN public.pools.lease_token IS 'hosts.pools';
COMMENT ON COLUMN public.pools.lease_until_ms IS 'hosts.pools';
COMMENT ON COLUMN public.pools.gone_ms IS 'control.pools';
COMMENT ON COLUMN public.pools.version IS 'every writer';
CREATE TABLE public.projects (
    id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    quota_instances integer NOT NULL,
    quota_vcpus integer NOT NULL,
    quota_memory_mib bigint NOT NULL,
    quota_volumes integer NOT NULL,
    quota_volume_gib bigint NOT NULL,
    quota_addresses integer NOT NULL,
    created_ms bigint NOT NULL,
    gone_ms bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON TABLE public.projects IS 'written by control.tenancy';
COMMENT ON COLUMN public.projects.version IS 'every writer';
CREATE TABLE public.site (
    key character varying(64) NOT NULL,
    value text NOT NULL
);
COMMENT ON TABLE public.site IS 'facts of the whole site: name, epoch (raised by a restore), trust policy';
COMMENT ON COLUMN public.site.value IS 'control.site, store.backup';
CREATE TABLE public.strays (
    host_id character varying(24) NOT NULL,
    name character varying(200) NOT NULL,
    instance_id character varying(24) DEFAULT ''::character varying NOT NULL,
    generation bigint DEFAULT '0'::bigint NOT NULL,
    observed character varying(16) NOT NULL,
    first_ms bigint NOT NULL,
    seen_ms bigint NOT NULL
);
COMMENT ON TABLE public.strays IS 'guests nobody wished for, left alone; written by hosts.worker';
COMMENT ON COLUMN public.strays.name IS 'as the hypervisor calls it';
CREATE TABLE public.tokens (
    id character varying(24) NOT NULL,
    user_id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    secret_hash bytea NOT NULL,
    scopes character varying(64) NOT NULL,
    created_ms bigint NOT NULL,
    expires_ms bigint NOT NULL
);
COMMENT ON TABLE public.tokens IS 'written by control.tenancy; a revoked token''s row is removed';
COMMENT ON COLUMN public.tokens.secret_hash IS 'SHA-256 of a random secret';
COMMENT ON COLUMN public.tokens.scopes IS 'space-separated';
CREATE TABLE public.tombstones (
    host_id character varying(24) NOT NULL,
    instance_id character varying(24) NOT NULL,
    generation bigint NOT NULL,
    created_ms bigint NOT NULL
);
COMMENT ON TABLE public.tombstones IS 'guests given up with their fenced host, to be removed when it comes back; written by control.hosts, removed by hosts.worker';
CREATE TABLE public.trusted_keys (
    fingerprint character varying(80) NOT NULL,
    pem text NOT NULL,
    email character varying(200) DEFAULT ''::character varying NOT NULL,
    added_ms bigint NOT NULL
);
COMMENT ON TABLE public.trusted_keys IS 'endorsers'' public keys that this site knows; written by control.images';
COMMENT ON COLUMN public.trusted_keys.fingerprint IS 'sha256:<hex of the SPKI>';
CREATE TABLE public.users (
    id character varying(24) NOT NULL,
    name character varying(64) NOT NULL,
    password_hash text DEFAULT ''::text NOT NULL,
    admin boolean DEFAULT false NOT NULL,
    auditor boolean DEFAULT false NOT NULL,
    disabled boolean DEFAULT false NOT NULL,
    created_ms bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON TABLE public.users IS 'written by control.tenancy';
COMMENT ON COLUMN public.users.version IS 'every writer';
CREATE TABLE public.volumes (
    id character varying(24) NOT NULL,
    project_id character varying(24) NOT NULL,
    instance_id character varying(24),
    kind character varying(16) NOT NULL,
    "position" integer DEFAULT 0 NOT NULL,
    size_bytes bigint NOT NULL,
    source text NOT NULL,
    image_id character varying(24),
    wanted boolean NOT NULL,
    pool_id character varying(24),
    presence character varying(16) NOT NULL,
    epoch bigint DEFAULT '0'::bigint NOT NULL,
    failures integer DEFAULT 0 NOT NULL,
    failure text DEFAULT ''::text NOT NULL,
    retry_ms bigint DEFAULT '0'::bigint NOT NULL,
    created_ms bigint NOT NULL,
    gone_ms bigint DEFAULT '0'::bigint NOT NULL,
    version integer DEFAULT 1 NOT NULL
);
COMMENT ON COLUMN public.volumes.image_id IS 'the parent, where there is one';
COMMENT ON COLUMN public.volumes.wanted IS 'control.instances';
COMMENT ON COLUMN public.volumes.pool_id IS 'control.reconcile';
COMMENT ON COLUMN public.volumes.presence IS 'hosts.pools';
COMMENT ON COLUMN public.volumes.epoch IS 'control.reconcile';
COMMENT ON COLUMN public.volumes.failures IS 'hosts.pools';
COMMENT ON COLUMN public.volumes.failure IS 'hosts.pools';
COMMENT ON COLUMN public.volumes.retry_ms IS 'hosts.pools';
COMMENT ON COLUMN public.volumes.gone_ms IS 'hosts.pools';
COMMENT ON COLUMN public.volumes.version IS 'every writer';
CREATE TABLE public.work (
    kind character varying(16) NOT NULL,
    subject character varying(24) NOT NULL,
    wake_ms bigint NOT NULL,
    poked integer DEFAULT 0 NOT NULL,
    lease_token bigint DEFAULT '0'::bigint NOT NULL,
    lease_until_ms bigint DEFAULT '0'::bigint NOT NULL
);
COMMENT ON TABLE public.work IS 'rows saying: look again at this. Claimed under a token until a time';
COMMENT ON COLUMN public.work.wake_ms IS 'whoever wants it looked at';
COMMENT ON COLUMN public.work.poked IS 'raised by every wake: one that arrives mid-look is not lost';
ALTER TABLE ONLY public.events ALTER COLUMN seq SET DEFAULT nextval('public.events_seq_seq'::regclass);
ALTER TABLE ONLY public.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);
ALTER TABLE ONLY public.endorsements
    ADD CONSTRAINT pk_endorsements PRIMARY KEY (sha256);
ALTER TABLE ONLY public.events
    ADD CONSTRAINT pk_events PRIMARY KEY (seq);
ALTER TABLE ONLY public.host_pools
    ADD CONSTRAINT pk_host_pools PRIMARY KEY (host_id, pool_id);
ALTER TABLE ONLY public.hosts
    ADD CONSTRAINT pk_hosts PRIMARY KEY (id);
ALTER TABLE ONLY public.idempotency
    ADD CONSTRAINT pk_idempotency PRIMARY KEY (user_id, key);
ALTER TABLE ONLY public.images
    ADD CONSTRAINT pk_images PRIMARY KEY (id);
ALTER TABLE ONLY public.instance_types
    ADD CONSTRAINT pk_instance_types PRIMARY KEY (name);
ALTER TABLE ONLY public.instances
    ADD CONSTRAINT pk_instances PRIMARY KEY (id);
ALTER TABLE ONLY public.leases
    ADD CONSTRAINT pk_leases PRIMARY KEY (id);
ALTER TABLE ONLY public.memberships
    ADD CONSTRAINT pk_memberships PRIMARY KEY (project_id, user_id);
ALTER TABLE ONLY public.networks
    ADD CONSTRAINT pk_networks PRIMARY KEY (id);
ALTER TABLE ONLY public.operations
    ADD CONSTRAINT pk_operations PRIMARY KEY (id);
ALTER TABLE ONLY public.pools
    ADD CONSTRAINT pk_pools PRIMARY KEY (id);
ALTER TABLE ONLY public.projects
    ADD CONSTRAINT pk_projects PRIMARY KEY (id);
ALTER TABLE ONLY public.site
    ADD CONSTRAINT pk_site PRIMARY KEY (key);
ALTER TABLE ONLY public.strays
    ADD CONSTRAINT pk_strays PRIMARY KEY (host_id, name);
ALTER TABLE ONLY public.tokens
    ADD CONSTRAINT pk_tokens PRIMARY KEY (id);
ALTER TABLE ONLY public.tombstones
    ADD CONSTRAINT pk_tombstones PRIMARY KEY (host_id, instance_id, generation);
ALTER TABLE ONLY public.trusted_keys
    ADD CONSTRAINT pk_trusted_keys PRIMARY KEY (fingerprint);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT pk_users PRIMARY KEY (id);
ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT pk_volumes PRIMARY KEY (id);
ALTER TABLE ONLY public.work
    ADD CONSTRAINT pk_work PRIMARY KEY (kind, subject);
ALTER TABLE ONLY public.networks
    ADD CONSTRAINT uq_networks_name UNIQUE (name);
ALTER TABLE ONLY public.pools
    ADD CONSTRAINT uq_pools_name UNIQUE (name);
ALTER TABLE ONLY public.projects
    ADD CONSTRAINT uq_projects_name UNIQUE (name);
ALTER TABLE ONLY public.users
    ADD CONSTRAINT uq_users_name UNIQUE (name);
CREATE INDEX ix_endorsements_image_sha256 ON public.endorsements USING btree (image_sha256);
CREATE INDEX ix_events_order ON public.events USING btree (tx, seq);
CREATE INDEX ix_events_project ON public.events USING btree (project_id, tx, seq);
CREATE INDEX ix_events_subject ON public.events USING btree (subject, seq);
CREATE INDEX ix_idempotency_created_ms ON public.idempotency USING btree (created_ms);
CREATE INDEX ix_images_identifier ON public.images USING btree (identifier);
CREATE INDEX ix_images_project ON public.images USING btree (project_id, id);
CREATE INDEX ix_images_sha256 ON public.images USING btree (sha256);
CREATE INDEX ix_instances_host ON public.instances USING btree (host_id) WHERE (host_id IS NOT NULL);
CREATE INDEX ix_instances_image ON public.instances USING btree (image_id) WHERE (gone_ms = 0);
CREATE INDEX ix_instances_live ON public.instances USING btree (id) WHERE (gone_ms = 0);
CREATE INDEX ix_instances_project_live ON public.instances USING btree (project_id, id) WHERE (gone_ms = 0);
CREATE INDEX ix_instances_waiting ON public.instances USING btree (id) WHERE ((gone_ms = 0) AND (host_id IS NULL) AND (waiting <> ''::text));
CREATE INDEX ix_leases_instance_id ON public.leases USING btree (instance_id);
CREATE INDEX ix_leases_project_live ON public.leases USING btree (project_id) WHERE (released_ms = 0);
CREATE INDEX ix_memberships_user_id ON public.memberships USING btree (user_id);
CREATE INDEX ix_strays_instance_id ON public.strays USING btree (instance_id);
CREATE INDEX ix_tokens_user_id ON public.tokens USING btree (user_id);
CREATE INDEX ix_volumes_image ON public.volumes USING btree (image_id) WHERE (gone_ms = 0);
CREATE INDEX ix_volumes_instance ON public.volumes USING btree (instance_id) WHERE (gone_ms = 0);
CREATE INDEX ix_volumes_project ON public.volumes USING btree (project_id) WHERE (gone_ms = 0);
CREATE INDEX ix_volumes_undone ON public.volumes USING btree (pool_id) WHERE ((gone_ms = 0) AND (((presence)::text <> 'ready'::text) OR (NOT wanted)));
CREATE INDEX ix_work_due ON public.work USING btree (kind, wake_ms);
CREATE UNIQUE INDEX uq_hosts_name_live ON public.hosts USING btree (name) WHERE (gone_ms = 0);
CREATE UNIQUE INDEX uq_leases_ipv4_live ON public.leases USING btree (network_id, ipv4) WHERE ((released_ms = 0) AND ((ipv4)::text <> ''::text));
CREATE UNIQUE INDEX uq_leases_mac_live ON public.leases USING btree (mac) WHERE (released_ms = 0);
ALTER TABLE ONLY public.host_pools
    ADD CONSTRAINT fk_host_pools_host_id FOREIGN KEY (host_id) REFERENCES public.hosts(id);
ALTER TABLE ONLY public.host_pools
    ADD CONSTRAINT fk_host_pools_pool_id FOREIGN KEY (pool_id) REFERENCES public.pools(id);
ALTER TABLE ONLY public.images
    ADD CONSTRAINT fk_images_project_id FOREIGN KEY (project_id) REFERENCES public.projects(id);
ALTER TABLE ONLY public.images
    ADD CONSTRAINT fk_images_user_id FOREIGN KEY (user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.instances
    ADD CONSTRAINT fk_instances_image_id FOREIGN KEY (image_id) REFERENCES public.images(id);
ALTER TABLE ONLY public.instances
    ADD CONSTRAINT fk_instances_project_id FOREIGN KEY (project_id) REFERENCES public.projects(id);
ALTER TABLE ONLY public.instances
    ADD CONSTRAINT fk_instances_user_id FOREIGN KEY (user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.leases
    ADD CONSTRAINT fk_leases_network_id FOREIGN KEY (network_id) REFERENCES public.networks(id);
ALTER TABLE ONLY public.memberships
    ADD CONSTRAINT fk_memberships_project_id FOREIGN KEY (project_id) REFERENCES public.projects(id);
ALTER TABLE ONLY public.memberships
    ADD CONSTRAINT fk_memberships_user_id FOREIGN KEY (user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.strays
    ADD CONSTRAINT fk_strays_host_id FOREIGN KEY (host_id) REFERENCES public.hosts(id);
ALTER TABLE ONLY public.tokens
    ADD CONSTRAINT fk_tokens_user_id FOREIGN KEY (user_id) REFERENCES public.users(id);
ALTER TABLE ONLY public.tombstones
    ADD CONSTRAINT fk_tombstones_host_id FOREIGN KEY (host_id) REFERENCES public.hosts(id);
ALTER TABLE ONLY public.volumes
    ADD CONSTRAINT fk_volumes_project_id FOREIGN KEY (project_id) REFERENCES public.projects(id);
