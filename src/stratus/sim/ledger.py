"""What did people wish and guests do? The memory of the world itself, which no restore touches."""

from dataclasses import dataclass, field

from stratus.model.ids import HostId, ImageId, InstanceId, VolumeId
from stratus.model.instance import Desired, InstanceFacts, OnHalt
from stratus.sim.stores import SimStore

GuestKey = tuple[HostId, InstanceId, int]  # where, whose, of which placement


@dataclass(kw_only=True, slots=True)
class Wishes:
    """All that anybody has ever wished for one instance."""

    created: bool = True
    on_halt: OnHalt = OnHalt.KEEP
    expected: Desired | None = Desired.RUNNING  # None: nobody can know for sure
    halts_to_run: int = 0  # guests up to this run were wished off
    resets: int = 0
    deleted: bool = False
    halted_itself: bool = False
    given_up_on: set[str] = field(default_factory=set)  # hosts, by name


@dataclass(kw_only=True, slots=True)
class Ledger:
    """Everything that may justify what is done to guests, disks and images."""

    instances: dict[InstanceId, Wishes] = field(default_factory=dict)
    volumes: dict[VolumeId, InstanceId] = field(default_factory=dict)
    fenced: set[GuestKey] = field(default_factory=set)
    images_deleted: set[ImageId] = field(default_factory=set)
    lost: set[InstanceId] = field(default_factory=set)  # made after the backup that came back
    restores: int = 0
    adopted_on: set[HostId] = field(default_factory=set)
    _seq: int = 0
    _volume_row: int = 0

    # -- what people do ------------------------------------------------------------------------

    def made(self, facts: InstanceFacts) -> None:
        """An instance was asked for, and granted."""
        self.instances.setdefault(facts.id, Wishes(on_halt=facts.on_halt))

    def wishes(self, instance_id: InstanceId) -> Wishes | None:
        """Return what was wished for this instance; None where nobody ever asked for it."""
        return self.instances.get(instance_id)

    # -- what the store says -------------------------------------------------------------------

    def learn(self, store: SimStore) -> None:
        """Read on in the event log, for what the cloud decided by itself, and in the disks."""
        for row, volume_id, instance_id in store.rows(
            "SELECT rowid, id, instance_id FROM volumes WHERE rowid > ?", (self._volume_row,)
        ):
            self._volume_row = row
            if instance_id is not None:
                self.volumes[VolumeId(volume_id)] = InstanceId(instance_id)
        for seq, kind, subject, host in store.rows(
            "SELECT seq, kind, subject, json_extract(data, '$.host') FROM events"
            " WHERE seq > ? ORDER BY seq",
            (self._seq,),
        ):
            self._seq = seq
            if kind == "instance.created" and subject not in self.instances:
                # The answer was lost with the process; the wish was not.
                self.instances[subject] = Wishes(on_halt=self._policy(store, subject))
            wishes = self.instances.get(InstanceId(subject))
            if wishes is None:
                continue
            if kind == "instance.given_up_here":
                wishes.given_up_on.add(host)
            elif kind == "instance.adopted" and host:
                self.adopted_on.add(HostId(host))

    def _policy(self, store: SimStore, instance_id: str) -> OnHalt:
        ((text,),) = store.rows("SELECT on_halt FROM instances WHERE id = ?", (instance_id,))
        return OnHalt(text)

    def restored(self, store: SimStore) -> None:
        """The store is an older one: nobody knows any more what to expect of it."""
        self.restores += 1
        known = {row[0] for row in store.rows("SELECT id FROM instances")}
        for instance_id, wishes in self.instances.items():
            wishes.expected = None
            if instance_id not in known:
                self.lost.add(instance_id)
        ((self._seq,),) = store.rows("SELECT coalesce(max(seq), 0) FROM events")
        ((self._volume_row,),) = store.rows("SELECT coalesce(max(rowid), 0) FROM volumes")

    # -- what may be done ----------------------------------------------------------------------

    def may_go_down(self, key: GuestKey, run: int, *, host_name: str) -> bool:
        """Somebody wished that this guest, alive in this run, goes."""
        _, instance_id, _ = key
        wishes = self.instances.get(instance_id)
        if wishes is None:
            return False
        return (
            wishes.deleted
            or run <= wishes.halts_to_run
            or (wishes.halted_itself and wishes.on_halt is OnHalt.DELETE)
            or key in self.fenced
            or host_name in wishes.given_up_on
        )

    def may_lose_disks(self, instance_id: InstanceId) -> bool:
        """Somebody wished the instance gone with all it has."""
        wishes = self.instances.get(instance_id)
        if wishes is None:
            return False
        return wishes.deleted or (wishes.halted_itself and wishes.on_halt is OnHalt.DELETE)
