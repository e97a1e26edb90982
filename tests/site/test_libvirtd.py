"""A real libvirtd, started and stopped on a private machine (mount and network namespaces)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
SCENARIO_SECONDS_MAX = 60

pytestmark = [
    pytest.mark.libvirt,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and libvirtd need root"),
    pytest.mark.skipif(shutil.which("libvirtd") is None, reason="libvirtd is not installed"),
    pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs libvirtd here"),
]


def scenario(name: str, folder: Path) -> dict[str, Any]:
    # The process namespace ends every daemon with the scenario, also when it fails half-way.
    kinds = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
    private = ["unshare", *kinds, "--propagation", "private", "--"]
    machine = ["sh", str(HERE / "private_machine.sh")]
    script = [sys.executable, str(HERE / "libvirtd_scenarios.py"), name, str(folder)]
    done = subprocess.run(
        [*private, *machine, *script],
        capture_output=True,
        text=True,
        timeout=SCENARIO_SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_it_starts_once_answers_and_stops_without_a_trace(tmp_path: Path) -> None:
    seen = scenario("life", tmp_path)
    assert seen["started_by_us"] == [True, True]
    assert seen["version"].count(".") == 2
    assert seen["same_processes"]
    assert seen["count"] == 2
    assert seen["detached"]
    assert seen["stopped"] == [True, False]
    assert seen["alive_after"] == [False, False]
    assert seen["files_left"] == ["libvirtd.lock"]


def test_a_kvm_that_does_not_work_is_hidden_from_libvirtd_alone(tmp_path: Path) -> None:
    seen = scenario("life", tmp_path)
    exists_outside, hidden = seen["kvm_outside"]
    assert hidden == exists_outside
    assert not seen["kvm_seen_inside"]
    assert seen["tun_seen_inside"]
    assert not seen["qemu_conf_changed"]
    assert not seen["mounts_seen_outside"]


def test_a_killed_libvirtd_is_started_anew(tmp_path: Path) -> None:
    seen = scenario("killed", tmp_path)
    assert seen["answers"]
    assert seen["started_by_us"]
    assert seen["another"]
    assert seen["virtlogd_kept"]


def test_our_libvirtd_is_recognised_when_the_note_about_it_is_lost(tmp_path: Path) -> None:
    seen = scenario("killed", tmp_path)
    assert seen["recognised"] == 2
    assert seen["stopped"]
    assert seen["alive_after"] == [False, False]


def test_what_we_did_not_start_we_do_not_stop(tmp_path: Path) -> None:
    seen = scenario("foreign", tmp_path)
    assert not seen["started_by_us"]
    assert not seen["stopped"]
    assert seen["still_alive"] == [True, True]
    assert seen["stranger_lives"]


def test_networks_and_filters_leave_the_machine_as_it_was(tmp_path: Path) -> None:
    seen = scenario("leftovers", tmp_path)
    assert ":LIBVIRT_FWI - [0:0]" in seen["during"]["rules"]["iptables"]
    assert any("libvirt-I-private-tap" in line for line in seen["during"]["rules"]["ebtables"])
    assert seen["during"]["switches"] == ["1", "1"]
    # While a network lives, stopping libvirtd takes nothing from it.
    assert ":LIBVIRT_FWI - [0:0]" in seen["in_use"]["rules"]["iptables"]
    assert seen["in_use"]["switches"] == ["1", "1"]
    assert seen["network_kept"]
    assert seen["after"] == seen["before"]
    assert ":LIBVIRT_MINE - [0:0]" in seen["after"]["rules"]["iptables"]
    assert seen["files"] == []
