"""Does the whole cloud work with real guests, through faults, and leave nothing behind?"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from stratus.drivers.appliance.tiny import ApplianceBuilt

HERE = Path(__file__).parent
PRIVATE_MACHINE = HERE.parent / "site" / "private_machine.sh"
SCENARIO_SECONDS_MAX = 900

Seen = dict[str, Any]

pytestmark = [
    pytest.mark.guest,
    pytest.mark.libvirt,
    pytest.mark.timeout(SCENARIO_SECONDS_MAX + 60),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and libvirtd need root"),
    pytest.mark.skipif(shutil.which("libvirtd") is None, reason="libvirtd is not installed"),
]


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, tiny: ApplianceBuilt) -> Seen:
    """Everything that one whole life of a site showed."""
    folder = tmp_path_factory.mktemp("e2e")
    kinds = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    private = ["unshare", *kinds, "--propagation", "private", "--"]
    script = [sys.executable, str(HERE / "scenario.py"), str(folder), str(tiny.path)]
    done = subprocess.run(
        [*private, "sh", str(PRIVATE_MACHINE), *script],
        env=os.environ | {"STRATUS_SETUP_SECONDS": "0"},
        capture_output=True,
        text=True,
        timeout=SCENARIO_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: Seen = json.loads((folder / "seen.json").read_text())
    return found


def test_the_demo_ends_with_the_guests_own_words(seen: Seen) -> None:
    demo = seen["demo"]
    assert set(demo) == {"instance", "address", "accelerator", "seconds", "guest_says"}
    assert set(demo["seconds"]) == {"setup", "cloud_ready", "running", "ssh"}
    assert demo["guest_says"].startswith("hello from demo")
    assert demo["accelerator"] in ("kvm", "tcg")
    assert seen["demo_stdout_lines"] == 1


def test_a_second_demo_reuses_what_is_there(seen: Seen) -> None:
    assert seen["warm"]["guest_says"].startswith("hello from demo")
    assert seen["warm"]["seconds"]["cloud_ready"] < seen["demo"]["seconds"]["cloud_ready"]
    assert seen["warm"]["address"] != seen["demo"]["address"]


def test_dhcp_hands_out_exactly_the_allotted_addresses(seen: Seen) -> None:
    shown = " ".join(seen["addresses"])
    assert f" {seen['demo']['address']}/24 " in shown
    listed = {view["id"]: view for view in seen["ps"]["items"]}
    address6 = listed[seen["demo"]["instance"]]["address6"]
    assert address6 is None or f" {address6}/64 " in shown


def test_a_guest_cannot_use_an_address_that_is_not_its_own(seen: Seen) -> None:
    assert seen["spoof"] == {"stolen": "silent", "own": "heard"}


def test_files_survive_stop_and_start(seen: Seen) -> None:
    assert seen["stop"] == 0
    assert seen["stopped"] == "stopped"
    assert seen["kept"] == "kept"


def test_a_reboot_boots_the_guest_anew(seen: Seen) -> None:
    assert seen["rebooted"]


def test_the_console_shows_what_the_guest_printed(seen: Seen) -> None:
    assert "tiny: ready" in seen["console"]


def test_kill_9_of_the_control_plane_in_mid_start_loses_nothing(seen: Seen) -> None:
    after = seen["after_crash"]
    assert after["cut"] == after["guest"] == "running"
    assert len(after["domains"]) == len(set(after["domains"])) == 2


def test_a_second_control_plane_on_one_store_is_refused_with_the_reason(seen: Seen) -> None:
    second = seen["second_control_plane"]
    assert second["code"] != 0
    assert "held by process" in second["said"]
    assert "try:" in second["said"]


def test_a_lost_libvirtd_makes_instances_unknown_never_stopped(seen: Seen) -> None:
    lost = seen["libvirtd_lost"]
    assert lost["phase"] == "unknown"
    assert lost["reason"] == "host_unreachable"
    assert lost["since"]


def test_guests_outlive_their_libvirtd_and_are_adopted_again(seen: Seen) -> None:
    assert seen["libvirtd_back"] == "running"
    assert len(seen["domains_after_libvirtd"]) == 1
    assert seen["guest_lived_on"] == "kept"


def test_requests_that_cannot_be_are_refused_with_a_remedy(seen: Seen) -> None:
    assert seen["unknown_image"] == {"code": "not_found", "remedy": True}
    assert seen["over_quota"] == {"code": "quota_exceeded", "remedy": True}


def test_a_halt_from_inside_shows_as_stopped_and_is_not_overruled(seen: Seen) -> None:
    assert seen["halted"] == {"phase": "stopped", "reason": "guest_halted"}
    assert seen["still_halted"] == "stopped"


def test_a_released_instance_starts_again_with_its_disk(seen: Seen) -> None:
    assert seen["released"] == 0
    assert seen["started_again"] == "kept"


def test_deleting_leaves_neither_disks_nor_guests(seen: Seen) -> None:
    assert seen["volumes_left"] == []
    assert seen["domains_left"] == []


def test_the_store_is_backed_up_checked_and_restored(seen: Seen) -> None:
    assert seen["check"] == "the store is well"
    assert seen["backup_bytes"] > 0
    assert seen["restore_while_running"]["code"] != 0
    assert "held by process" in seen["restore_while_running"]["said"]
    assert seen["after_restore"] == 0


def test_cleaning_leaves_the_machine_as_it_was(seen: Seen) -> None:
    assert seen["before"]["home"]
    assert seen["after"] == seen["before"] | {"home": False}
