"""What do the native API's bodies and answers look like? One struct each, and model -> wire.

Bodies refuse unknown fields; answers may gain fields, so readers ignore those they do not know.
The limits written here are what OpenAPI shows; control decides again with the same numbers.
"""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Generic, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from stratus.model import limits
from stratus.model.event import Event
from stratus.model.host import HostDesired, HostFacts, StrayFacts
from stratus.model.ids import ProjectId
from stratus.model.image import ImageFacts, ImageFormat, Visibility
from stratus.model.instance import (
    Context,
    Desired,
    InstanceCreate,
    InstanceFacts,
    InstanceType,
    OnHalt,
    Phase,
    Ranking,
    phase_of,
    reason_of,
)
from stratus.model.network import NetworkClass, NetworkFacts
from stratus.model.operation import OperationFacts, OperationStatus
from stratus.model.pool import PoolDesired, PoolRecord
from stratus.model.problem import CATALOGUE, Problem
from stratus.model.tenancy import (
    Actor,
    ProjectFacts,
    Quota,
    Role,
    Scope,
    TokenFacts,
    Usage,
    UserFacts,
)
from stratus.model.trust import EndorsementFacts
from stratus.wire.times import time_text, time_text_or_none

T = TypeVar("T")

INT32_MAX: Final = 2**31 - 1
INT53_MAX: Final = 2**53 - 1  # what every JSON reader keeps exactly
URL_CHARS_MAX: Final = 4096
PASSWORD_CHARS_MAX: Final = 1024
PEM_CHARS_MAX: Final = 16 * 1024
HOST_RATIO_MAX: Final = 64.0
PAGE_CURSOR_CHARS_MAX: Final = 256

# Python's `$` also matches before a final line feed; JSON Schema's does not. This matches alike.
END: Final = r"$(?!\n)"


def _whole(pattern: str) -> str:
    return pattern.removesuffix("$") + END


Name = Annotated[
    str, Meta(pattern=_whole(limits.NAME_PATTERN.pattern), max_length=limits.NAME_CHARS_MAX)
]
# "" lets the server choose a name.
NameOrEmpty = Annotated[
    str,
    Meta(
        pattern=_whole("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$"), max_length=limits.NAME_CHARS_MAX
    ),
]
UserName = Annotated[str, Meta(pattern=_whole(limits.USER_NAME_PATTERN.pattern), max_length=64)]
TypeName = Annotated[str, Meta(pattern=_whole(r"^[a-z0-9][a-z0-9._-]{0,62}$"), max_length=63)]
# An id, a name, or for images an identifier.
Reference = Annotated[str, Meta(min_length=1, max_length=128)]
Title = Annotated[str, Meta(max_length=limits.TITLE_CHARS_MAX)]
Password = Annotated[str, Meta(max_length=PASSWORD_CHARS_MAX)]
Sha256 = Annotated[str, Meta(pattern=_whole("^([0-9a-fA-F]{64})?$"))]
Ceiling = Annotated[int, Meta(ge=-1, le=INT32_MAX, description="-1 means no ceiling")]
BigCeiling = Annotated[int, Meta(ge=-1, le=INT53_MAX, description="-1 means no ceiling")]
Ratio = Annotated[float, Meta(gt=0, le=HOST_RATIO_MAX)]
Accelerator = Annotated[str, Meta(pattern=_whole("^(auto|kvm|tcg)$"))]
Pools = Annotated[tuple[Reference, ...], Meta(max_length=64)]
MemoryMib = Annotated[int, Meta(ge=limits.MEMORY_MIB_MIN, le=limits.MEMORY_MIB_MAX)]
SwapMib = Annotated[int, Meta(ge=0, le=limits.SWAP_MIB_MAX)]
DiskGib = Annotated[int, Meta(ge=0, le=limits.DISK_GIB_MAX)]


class Body(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something a client sends."""


class View(msgspec.Struct, frozen=True, kw_only=True):
    """Something a client gets."""


class Page(msgspec.Struct, Generic[T], frozen=True, kw_only=True):
    """A part of a list; `next` is the cursor of the following part, null at the end."""

    items: list[T]
    next: str | None = None


# --- what clients send ---------------------------------------------------------------------


class TokenCreate(Body, frozen=True):
    """A wish for an API token of the caller's own."""

    name: Annotated[str, Meta(max_length=64)] = "login"
    scopes: tuple[Scope, ...] = (Scope.READ, Scope.WRITE)
    days: Annotated[int, Meta(ge=1, le=limits.TOKEN_LIFE_DAYS_MAX)] = 30


class UserCreate(Body, frozen=True):
    """A new user; without a password (given, or made with `generate`) none opens the account."""

    name: UserName
    password: Password = ""
    generate: bool = False
    admin: bool = False
    auditor: bool = False


class UserChange(Body, frozen=True):
    """What to change of a user; fields left out stay. One's own password needs the old one."""

    password: Password | UnsetType = UNSET
    password_old: Password | UnsetType = UNSET
    admin: bool | UnsetType = UNSET
    auditor: bool | UnsetType = UNSET
    disabled: bool | UnsetType = UNSET


class QuotaBody(Body, frozen=True):
    """Ceilings of a project; fields left out stay (or take the default of a new project)."""

    instances: Ceiling | UnsetType = UNSET
    vcpus: Ceiling | UnsetType = UNSET
    memory_mib: BigCeiling | UnsetType = UNSET
    volumes: Ceiling | UnsetType = UNSET
    volume_gib: BigCeiling | UnsetType = UNSET
    addresses: Ceiling | UnsetType = UNSET


class ProjectCreate(Body, frozen=True):
    """A new project, with an owner where one is named."""

    name: Name
    owner: Reference | None = None
    quota: QuotaBody = QuotaBody()


class ProjectChange(Body, frozen=True):
    """What to change of a project; fields left out stay."""

    name: Name | UnsetType = UNSET
    quota: QuotaBody | UnsetType = UNSET


class MemberPut(Body, frozen=True):
    """The role that a user shall have in a project."""

    role: Role


class TypeCreate(Body, frozen=True):
    """A new instance type; `root_gib` 0 leaves the root disk as large as its image."""

    name: TypeName
    vcpus: Annotated[int, Meta(ge=1, le=limits.VCPUS_MAX)]
    memory_mib: MemoryMib
    swap_mib: SwapMib = 0
    root_gib: DiskGib = 0


class InstanceCreateBody(Body, frozen=True):
    """A request for `count` equal instances, granted whole or not at all."""

    project: Reference
    image: Reference
    type: TypeName = "m1.small"
    name: NameOrEmpty = ""
    count: Annotated[int, Meta(ge=1, le=limits.COUNT_MAX)] = 1
    network: Reference = "public"
    volatile_gib: DiskGib = 0
    swap_mib: SwapMib | None = None
    ssh_keys: Annotated[
        tuple[Annotated[str, Meta(max_length=limits.SSH_KEY_CHARS_MAX)], ...],
        Meta(max_length=limits.SSH_KEYS_MAX),
    ] = ()
    user_data: Annotated[str, Meta(max_length=limits.USER_DATA_BYTES_MAX)] = ""
    context: Annotated[dict[str, str], Meta(max_length=limits.CONTEXT_PAIRS_MAX)] = {}
    on_halt: OnHalt = OnHalt.KEEP
    ranking: Ranking = Ranking.SPREAD


class InstanceChange(Body, frozen=True):
    """What to change of an instance."""

    name: Name


class InstanceStop(Body, frozen=True):
    """How to stop: `release` gives the host's room back while it is stopped."""

    release: bool = False


class ImageCreate(Body, frozen=True):
    """An image to import from an http(s) URL, or with `source` "" to be uploaded afterwards."""

    project: Reference
    name: Name
    title: Title = ""
    source: Annotated[str, Meta(max_length=URL_CHARS_MAX)] = ""
    format: ImageFormat = ImageFormat.QCOW2
    size_bytes: Annotated[int, Meta(ge=0, le=limits.IMAGE_BYTES_MAX)] = 0
    sha256: Sha256 = ""
    visibility: Visibility = Visibility.PRIVATE


class ImageChange(Body, frozen=True):
    """What to change of an image; fields left out stay."""

    name: Name | UnsetType = UNSET
    title: Title | UnsetType = UNSET
    visibility: Visibility | UnsetType = UNSET


class KeyAdd(Body, frozen=True):
    """An endorser's public key that this site shall know."""

    pem: Annotated[str, Meta(min_length=1, max_length=PEM_CHARS_MAX)]
    email: Annotated[str, Meta(max_length=200)] = ""


class HostCreate(Body, frozen=True):
    """A machine that shall run instances, by the libvirt URI that reaches it."""

    name: Name
    uri: Annotated[str, Meta(min_length=1, max_length=URL_CHARS_MAX)]
    cpu_ratio: Ratio = 1.0
    memory_ratio: Ratio = 1.0
    memory_reserved_mib: Annotated[int, Meta(ge=0, le=limits.MEMORY_MIB_MAX)] = 0
    accelerator: Accelerator = "auto"
    # None: every pool where the host is this machine, no pool where it is another one.
    pools: Pools | None = None


class HostChange(Body, frozen=True):
    """What to change of a host; fields left out stay."""

    cpu_ratio: Ratio | UnsetType = UNSET
    memory_ratio: Ratio | UnsetType = UNSET
    memory_reserved_mib: Annotated[int, Meta(ge=0, le=limits.MEMORY_MIB_MAX)] | UnsetType = UNSET
    accelerator: Accelerator | UnsetType = UNSET
    pools: Pools | UnsetType = UNSET


class HostFence(Body, frozen=True):
    """The operator's word that the host is switched off."""

    confirm: bool = False


class PoolCreate(Body, frozen=True):
    """A place for disks and images."""

    name: Name
    location: Annotated[str, Meta(min_length=1, max_length=URL_CHARS_MAX)]
    driver: Annotated[str, Meta(pattern=_whole("^[a-z][a-z0-9_]{0,15}$"))] = "files"


class NetworkCreate(Body, frozen=True):
    """A segment with its address ranges; "" means that the network lacks the family."""

    name: Name
    class_: NetworkClass = msgspec.field(name="class", default=NetworkClass.PUBLIC)
    driver: Annotated[str, Meta(pattern=_whole("^[a-z][a-z0-9_]{0,15}$"))] = "libvirt"
    ipv4_cidr: Annotated[str, Meta(max_length=18)] = ""
    ipv4_gateway: Annotated[str, Meta(max_length=15)] = ""
    ipv6_cidr: Annotated[str, Meta(max_length=43)] = ""
    ipv6_gateway: Annotated[str, Meta(max_length=39)] = ""
    domain: Annotated[str, Meta(max_length=253)] = ""
    mtu: Annotated[int, Meta(ge=576, le=65535)] = 1500


# --- what clients get ----------------------------------------------------------------------


class ProblemView(View, frozen=True):
    """A problem as part of an answer, for example why an instance waits."""

    code: str
    title: str
    detail: str
    remedy: str
    context: dict[str, Any] = {}


class NameView(View, frozen=True):
    """A thing by id and name."""

    id: str
    name: str


class ServiceView(View, frozen=True):
    """What this service is and where its parts are."""

    product: str
    version: str
    site: str
    api: str
    links: dict[str, str]


class LiveView(View, frozen=True):
    """This process answers."""

    alive: bool = True


class ReadyPart(View, frozen=True):
    """One part that must work for the service to work."""

    name: str
    ready: bool
    detail: str = ""


class ReadyView(View, frozen=True):
    """Whether the service can do its work."""

    ready: bool
    parts: list[ReadyPart]


class MembershipView(View, frozen=True):
    """A project that the caller belongs to."""

    id: str
    name: str
    role: Role


class MeView(View, frozen=True):
    """Who the caller is and what they may do."""

    id: str
    name: str
    admin: bool
    auditor: bool
    scopes: list[Scope]
    projects: list[MembershipView]
    token_id: str | None = None


class TokenView(View, frozen=True):
    """An API token; never its secret."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: str
    expires_at: str
    user_id: str


class TokenMade(View, frozen=True):
    """A new API token with its text, which is shown this once."""

    id: str
    name: str
    scopes: list[Scope]
    created_at: str
    expires_at: str
    user_id: str
    token: str


class UserView(View, frozen=True):
    """A user; never the password."""

    id: str
    name: str
    admin: bool
    auditor: bool
    disabled: bool
    created_at: str
    version: int


class UserMade(UserView, frozen=True):
    """A new user; the password where we made one, shown this once."""

    password: str = ""


class QuotaView(View, frozen=True):
    """The ceilings of a project; -1 means no ceiling."""

    instances: int
    vcpus: int
    memory_mib: int
    volumes: int
    volume_gib: int
    addresses: int


class ProjectView(View, frozen=True):
    """A project with its quota and present use."""

    id: str
    name: str
    quota: QuotaView
    usage: QuotaView
    created_at: str
    version: int


class MemberView(View, frozen=True):
    """A user's role in a project."""

    user: NameView
    role: Role


class TypeView(View, frozen=True):
    """An instance type."""

    name: str
    vcpus: int
    memory_mib: int
    swap_mib: int
    root_gib: int


class ImageName(View, frozen=True):
    """An image by id, name and StratusLab identifier."""

    id: str
    name: str
    identifier: str = ""


class NicView(View, frozen=True):
    """A network card with the addresses allotted to it."""

    network: str
    mac: str
    ipv4: str
    ipv6: str


class InstanceView(View, frozen=True):
    """An instance: the wish for it, what was seen of it, and the phase computed from both."""

    id: str
    name: str
    project: NameView
    user: NameView
    phase: Phase
    reason: str
    desired: Desired
    created_at: str
    image: ImageName
    type: str
    vcpus: int
    memory_mib: int
    swap_mib: int
    root_gib: int
    volatile_gib: int
    address: str | None
    address6: str | None
    nics: list[NicView]
    host: str | None
    accelerator: str
    on_halt: OnHalt
    ranking: Ranking
    desired_at: str
    placed_at: str | None
    observed_at: str | None
    host_unreachable_since: str | None
    disks_wanted: int
    disks_ready: int
    failures: int
    waiting: ProblemView | None
    failure: ProblemView | None
    parked: ProblemView | None
    version: int


class InstancesMade(View, frozen=True):
    """The instances of one request, and the operation that follows them."""

    operation: str
    items: list[InstanceView]


class InstanceChanged(InstanceView, frozen=True):
    """The instance after the change, and the operation that follows it."""

    operation: str


class RuleView(View, frozen=True):
    """How many hosts one rule of placement removed, in words."""

    hosts: int
    detail: str


class ExplanationView(View, frozen=True):
    """What a dry run says: would the request fit now, where, and what each rule removed."""

    fits: bool
    explanation: str
    count: int  # instances asked for
    placed: int  # of them would find a host now
    hosts: list[str]  # some of those hosts, by name
    removed: list[RuleView]
    problem: ProblemView | None = None


class VerdictView(View, frozen=True):
    """Whether the site's policy lets the image start, and why."""

    allowed: bool
    reason: str
    endorsers: list[str] = []
    problem: ProblemView | None = None


class ImageView(View, frozen=True):
    """An image with its digests and what is known of its import."""

    id: str
    project: NameView
    name: str
    title: str
    identifier: str
    source: str
    format: ImageFormat
    visibility: Visibility
    phase: str  # waiting | fetching | ready | failed | deleting | deleted
    size_bytes: int
    virtual_bytes: int
    fetched_bytes: int
    sha256: str
    sha1: str
    created_at: str
    failure: ProblemView | None
    parked: ProblemView | None
    trust: VerdictView | None
    version: int


class EndorsementView(View, frozen=True):
    """A signed statement about an image, with its DSSE envelope as received (base64)."""

    sha256: str
    image_sha256: str
    received_at: str
    document: str


class KeyView(View, frozen=True):
    """An endorser's public key that this site knows."""

    fingerprint: str
    pem: str
    email: str
    added_at: str


class HostView(View, frozen=True):
    """A host: the wish for it, its capacity and the facts of it."""

    id: str
    name: str
    uri: str
    desired: HostDesired
    phase: str  # waiting | ready | draining | unreachable | leaving
    cpu_ratio: float
    memory_ratio: float
    memory_reserved_mib: int
    cpus: int
    memory_mib: int
    arch: str
    accelerator: str
    accelerator_reason: str
    accelerator_wanted: str
    hypervisor: str
    instances: int
    vcpus_used: int
    memory_used_mib: int
    pools: list[str]
    seen_at: str | None
    unreachable_since: str | None
    failure: ProblemView | None
    worker: str
    created_at: str
    version: int


class HostFenced(HostView, frozen=True):
    """The host that was declared dead, and the instances that lost their place on it."""

    lost: list[str]


class StrayView(View, frozen=True):
    """A guest on a host that nobody wished for; it is left alone."""

    name: str
    instance_id: str
    generation: int
    observed: str
    first_seen_at: str
    seen_at: str


class PoolView(View, frozen=True):
    """A place for disks and images, with its room as last seen."""

    id: str
    name: str
    driver: str
    location: str
    desired: PoolDesired
    total_bytes: int
    free_bytes: int
    reflink: bool  # copies cost nothing
    seen_at: str | None
    unreachable_since: str | None
    failure: ProblemView | None
    created_at: str
    version: int


class NetworkView(View, frozen=True):
    """A network with its address ranges and their use."""

    id: str
    name: str
    class_: NetworkClass = msgspec.field(name="class")
    driver: str
    ipv4_cidr: str
    ipv4_gateway: str
    ipv6_cidr: str
    ipv6_gateway: str
    domain: str
    mtu: int
    used: int
    capacity: int
    created_at: str
    version: int


class OperationView(View, frozen=True):
    """What a user asked for, and whether it has come true."""

    id: str
    kind: str
    status: OperationStatus
    done: bool  # nothing more comes of it: done, failed or superseded
    failed: ProblemView | None
    subjects: list[str]
    subjects_done: int
    project_id: str
    created_at: str


class EventView(View, frozen=True):
    """One line of the event log; `cursor` is what Last-Event-ID and ?after= take."""

    cursor: str
    at: str
    kind: str
    subject: str
    project_id: str | None
    actor: str
    request_id: str
    data: dict[str, Any]


# --- model -> wire -------------------------------------------------------------------------


class Names(msgspec.Struct, frozen=True, kw_only=True):
    """The names that views show beside ids; an id without a name is shown as the id."""

    projects: Mapping[str, str] = {}
    users: Mapping[str, str] = {}
    images: Mapping[str, ImageName] = {}
    networks: Mapping[str, str] = {}
    pools: Mapping[str, str] = {}


def problem_view(problem: Problem | None) -> ProblemView | None:
    """Show a problem as part of an answer."""
    if problem is None:
        return None
    return ProblemView(
        code=problem.code,
        title=CATALOGUE[problem.code].title,
        detail=problem.detail,
        remedy=problem.remedy,
        context=problem.context,
    )


def instance_view(facts: InstanceFacts, names: Names) -> InstanceView:
    """Show an instance, with its phase and reason computed."""
    return InstanceView(**_instance_fields(facts, names))


def instance_changed(facts: InstanceFacts, names: Names, *, operation: str) -> InstanceChanged:
    """Show an instance after a change that the operation follows."""
    return InstanceChanged(operation=operation, **_instance_fields(facts, names))


def _instance_fields(facts: InstanceFacts, names: Names) -> dict[str, Any]:
    nics = facts.nics
    return {
        "id": facts.id,
        "name": facts.name,
        "project": NameView(
            id=facts.project_id, name=names.projects.get(facts.project_id, facts.project_id)
        ),
        "user": NameView(id=facts.user_id, name=names.users.get(facts.user_id, facts.user_id)),
        "phase": phase_of(facts),
        "reason": reason_of(facts),
        "desired": facts.desired,
        "created_at": time_text(facts.created_ms),
        "image": names.images.get(facts.image_id)
        or ImageName(id=facts.image_id, name=facts.image_id),
        "type": facts.type_name,
        "vcpus": facts.vcpus,
        "memory_mib": facts.memory_mib,
        "swap_mib": facts.swap_mib,
        "root_gib": facts.root_gib,
        "volatile_gib": facts.volatile_gib,
        "address": next((nic.ipv4 for nic in nics if nic.ipv4), None),
        "address6": next((nic.ipv6 for nic in nics if nic.ipv6), None),
        "nics": [
            NicView(
                network=names.networks.get(nic.network_id, nic.network_id),
                mac=nic.mac,
                ipv4=nic.ipv4,
                ipv6=nic.ipv6,
            )
            for nic in nics
        ],
        "host": facts.host_name or facts.host_id,
        "accelerator": facts.accelerator,
        "on_halt": facts.on_halt,
        "ranking": facts.ranking,
        "desired_at": time_text(facts.desired_ms),
        "placed_at": time_text_or_none(facts.placed_ms),
        "observed_at": time_text_or_none(facts.observed_ms),
        "host_unreachable_since": time_text_or_none(facts.host_unreachable_ms),
        "disks_wanted": facts.volumes_wanted,
        "disks_ready": facts.volumes_ready,
        "failures": facts.failures,
        "waiting": problem_view(facts.waiting),
        "failure": problem_view(facts.failure),
        "parked": problem_view(facts.parked),
        "version": facts.version,
    }


def instance_create(body: InstanceCreateBody, *, project_id: ProjectId) -> InstanceCreate:
    """Turn the body into the wish, once its project is known by id."""
    return InstanceCreate(
        project_id=project_id,
        image=body.image,
        type=body.type,
        name=body.name,
        count=body.count,
        network=body.network,
        volatile_gib=body.volatile_gib,
        swap_mib=body.swap_mib,
        context=Context(ssh_keys=body.ssh_keys, user_data=body.user_data, pairs=body.context),
        on_halt=body.on_halt,
        ranking=body.ranking,
    )


def type_view(type_: InstanceType) -> TypeView:
    """Show an instance type."""
    return TypeView(
        name=type_.name,
        vcpus=type_.vcpus,
        memory_mib=type_.memory_mib,
        swap_mib=type_.swap_mib,
        root_gib=type_.root_gib,
    )


def instance_type(body: TypeCreate) -> InstanceType:
    """Turn the body into the type it asks for."""
    return InstanceType(
        name=body.name,
        vcpus=body.vcpus,
        memory_mib=body.memory_mib,
        swap_mib=body.swap_mib,
        root_gib=body.root_gib,
    )


def user_view(facts: UserFacts) -> UserView:
    """Show a user."""
    return UserView(
        id=facts.id,
        name=facts.name,
        admin=facts.admin,
        auditor=facts.auditor,
        disabled=facts.disabled,
        created_at=time_text(facts.created_ms),
        version=facts.version,
    )


def user_made(facts: UserFacts, password: str) -> UserMade:
    """Show a new user, this once with the password that we made."""
    return UserMade(password=password, **msgspec.structs.asdict(user_view(facts)))


def me_view(actor: Actor, names: Names) -> MeView:
    """Show the caller to themselves."""
    return MeView(
        id=actor.user_id,
        name=actor.name,
        admin=actor.admin,
        auditor=actor.auditor,
        scopes=sorted(actor.scopes),
        projects=[
            MembershipView(id=id_, name=names.projects.get(id_, id_), role=role)
            for id_, role in sorted(actor.roles.items())
        ],
        token_id=actor.token_id,
    )


def token_view(facts: TokenFacts) -> TokenView:
    """Show a token without its secret."""
    return TokenView(
        id=facts.id,
        name=facts.name,
        scopes=list(facts.scopes),
        created_at=time_text(facts.created_ms),
        expires_at=time_text(facts.expires_ms),
        user_id=facts.user_id,
    )


def token_made(facts: TokenFacts, token: str) -> TokenMade:
    """Show a new token, this once with its text."""
    return TokenMade(
        id=facts.id,
        name=facts.name,
        scopes=list(facts.scopes),
        created_at=time_text(facts.created_ms),
        expires_at=time_text(facts.expires_ms),
        user_id=facts.user_id,
        token=token,
    )


def quota_view(quota: Quota | Usage) -> QuotaView:
    """Show ceilings, or what is used of them."""
    return QuotaView(
        instances=quota.instances,
        vcpus=quota.vcpus,
        memory_mib=quota.memory_mib,
        volumes=quota.volumes,
        volume_gib=quota.volume_gib,
        addresses=quota.addresses,
    )


def quota_changed(quota: Quota, body: QuotaBody) -> Quota:
    """Apply a body to a quota; fields left out stay."""
    said = {
        field: value
        for field in body.__struct_fields__
        if (value := getattr(body, field)) is not UNSET
    }
    return msgspec.structs.replace(quota, **said)


def project_view(facts: ProjectFacts) -> ProjectView:
    """Show a project with its quota and use."""
    return ProjectView(
        id=facts.id,
        name=facts.name,
        quota=quota_view(facts.quota),
        usage=quota_view(facts.usage),
        created_at=time_text(facts.created_ms),
        version=facts.version,
    )


def image_phase(facts: ImageFacts) -> str:
    """Sum up the wish for an image and the facts of it in one word."""
    if facts.gone_ms:
        return "deleted"
    if not facts.wanted:
        return "deleting"
    if facts.presence == "ready":
        return "ready"
    if facts.parked is not None:
        return "failed"
    return "fetching" if facts.fetched_bytes else "waiting"


def image_view(facts: ImageFacts, names: Names, *, trust: VerdictView | None = None) -> ImageView:
    """Show an image, with the policy's verdict where it was asked for."""
    return ImageView(
        id=facts.id,
        project=NameView(
            id=facts.project_id, name=names.projects.get(facts.project_id, facts.project_id)
        ),
        name=facts.name,
        title=facts.title,
        identifier=facts.identifier,
        source=facts.source,
        format=facts.format,
        visibility=facts.visibility,
        phase=image_phase(facts),
        size_bytes=facts.size_bytes,
        virtual_bytes=facts.virtual_bytes,
        fetched_bytes=facts.fetched_bytes,
        sha256=facts.sha256,
        sha1=facts.sha1,
        created_at=time_text(facts.created_ms),
        failure=problem_view(facts.failure),
        parked=problem_view(facts.parked),
        trust=trust,
        version=facts.version,
    )


def verdict_allowed(entry: EndorsementFacts, rule: str) -> VerdictView:
    """Show that the policy lets the image start, and because of whom."""
    who = entry.email or entry.key
    named = f" ({rule})" if rule else ""
    return VerdictView(allowed=True, reason=f"Endorsed by {who}{named}.", endorsers=[who])


def verdict_forbidden(problem: Problem) -> VerdictView:
    """Show that the policy does not let the image start, and why."""
    return VerdictView(allowed=False, reason=problem.detail, problem=problem_view(problem))


def endorsement_view(
    *, sha256: str, image_sha256: str, received_ms: int, document: bytes
) -> EndorsementView:
    """Show a signed document as it was received."""
    return EndorsementView(
        sha256=sha256,
        image_sha256=image_sha256,
        received_at=time_text(received_ms),
        document=b64encode(document).decode("ascii"),
    )


def key_view(*, fingerprint: str, pem: str, email: str, added_ms: int) -> KeyView:
    """Show an endorser's public key."""
    return KeyView(fingerprint=fingerprint, pem=pem, email=email, added_at=time_text(added_ms))


def host_phase(facts: HostFacts) -> str:
    """Sum up the wish for a host and the facts of it in one word."""
    if facts.desired is HostDesired.ABSENT:
        return "leaving"
    if facts.unreachable_ms:
        return "unreachable"
    if facts.capacity is None:
        return "waiting"
    return "draining" if facts.desired is HostDesired.DRAINING else "ready"


def host_fenced(facts: HostFacts, names: Names, *, lost: Sequence[str]) -> HostFenced:
    """Show a host that was declared dead."""
    shown = msgspec.structs.asdict(host_view(facts, names))
    return HostFenced(lost=list(lost), **shown)


def stray_view(facts: StrayFacts) -> StrayView:
    """Show a guest that nobody wished for."""
    return StrayView(
        name=facts.name,
        instance_id=facts.instance_id,
        generation=facts.generation,
        observed=facts.observed,
        first_seen_at=time_text(facts.first_ms),
        seen_at=time_text(facts.seen_ms),
    )


def pool_view(facts: PoolRecord) -> PoolView:
    """Show a pool with its room."""
    room = facts.room
    return PoolView(
        id=facts.id,
        name=facts.name,
        driver=facts.driver,
        location=facts.location,
        desired=facts.desired,
        total_bytes=room.total_bytes if room else 0,
        free_bytes=room.free_bytes if room else 0,
        reflink=room.reflink if room else False,
        seen_at=time_text_or_none(facts.seen_ms),
        unreachable_since=time_text_or_none(facts.unreachable_ms),
        failure=problem_view(facts.failure),
        created_at=time_text(facts.created_ms),
        version=facts.version,
    )


def host_view(facts: HostFacts, names: Names) -> HostView:
    """Show a host."""
    capacity = facts.capacity
    return HostView(
        id=facts.id,
        name=facts.name,
        uri=facts.uri,
        desired=facts.desired,
        phase=host_phase(facts),
        cpu_ratio=facts.cpu_ratio,
        memory_ratio=facts.memory_ratio,
        memory_reserved_mib=facts.memory_reserved_mib,
        cpus=capacity.cpus if capacity else 0,
        memory_mib=capacity.memory_mib if capacity else 0,
        arch=capacity.arch if capacity else "",
        accelerator=capacity.accelerator if capacity else "",
        accelerator_reason=capacity.accelerator_reason if capacity else "",
        accelerator_wanted=facts.accelerator_wanted,
        hypervisor=capacity.hypervisor if capacity else "",
        instances=facts.instances,
        vcpus_used=facts.vcpus_used,
        memory_used_mib=facts.memory_used_mib,
        pools=[names.pools.get(pool, pool) for pool in facts.pools],
        seen_at=time_text_or_none(facts.seen_ms),
        unreachable_since=time_text_or_none(facts.unreachable_ms),
        failure=problem_view(facts.failure),
        worker=facts.lease_owner,
        created_at=time_text(facts.created_ms),
        version=facts.version,
    )


def network_view(facts: NetworkFacts) -> NetworkView:
    """Show a network with the use of its addresses."""
    spec = facts.spec
    return NetworkView(
        id=spec.id,
        name=spec.name,
        class_=spec.class_,
        driver=spec.driver,
        ipv4_cidr=spec.ipv4_cidr,
        ipv4_gateway=spec.ipv4_gateway,
        ipv6_cidr=spec.ipv6_cidr,
        ipv6_gateway=spec.ipv6_gateway,
        domain=spec.domain,
        mtu=spec.mtu,
        used=facts.used,
        capacity=facts.capacity,
        created_at=time_text(facts.created_ms),
        version=facts.version,
    )


def explanation_view(
    *,
    fits: bool,
    count: int,
    placed: int,
    hosts: Sequence[str],
    rules: Sequence[tuple[int, str]],
    problem: Problem | None,
) -> ExplanationView:
    """Show what would become of a request."""
    said = f"{placed} of {count} would find a host now."
    return ExplanationView(
        fits=fits,
        explanation=problem.detail if problem is not None else said,
        count=count,
        placed=placed,
        hosts=list(hosts),
        removed=[RuleView(hosts=number, detail=words) for number, words in rules],
        problem=problem_view(problem),
    )


def operation_view(facts: OperationFacts) -> OperationView:
    """Show an operation with what has become of it."""
    return OperationView(
        id=facts.id,
        kind=facts.kind,
        status=facts.status,
        done=facts.status is not OperationStatus.RUNNING,
        failed=problem_view(facts.problem),
        subjects=list(facts.subjects),
        subjects_done=facts.subjects_done,
        project_id=facts.project_id,
        created_at=time_text(facts.created_ms),
    )


def event_view(event: Event) -> EventView:
    """Show one line of the event log."""
    return EventView(
        cursor=event.cursor,
        at=time_text(event.at_ms),
        kind=event.kind,
        subject=event.subject,
        project_id=event.project_id,
        actor=event.actor,
        request_id=event.request_id,
        data=event.data,
    )
