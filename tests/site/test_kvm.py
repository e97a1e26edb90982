"""Does the probe tell a KVM that works from one that only opens?"""

import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

from stratus.site import kvm
from stratus.site.kvm import KvmAnswer, KvmFacts, kvm_refusal, kvm_works, probe_judge, probe_run

PROMISING = KvmFacts(
    architecture="x86_64",
    cpu_flags=frozenset({"vmx", "sse2"}),
    device_exists=True,
    device_opens=True,
    qemu_exists=True,
)
needs_qemu = pytest.mark.skipif(not kvm.QEMU.exists(), reason="QEMU is not installed")
BOUND_SECONDS = 3.0
OVERHEAD_SECONDS = 4.0


def test_promising_facts_alone_decide_nothing() -> None:
    assert kvm_refusal(PROMISING) is None


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        (replace(PROMISING, architecture="aarch64"), "aarch64"),
        (replace(PROMISING, cpu_flags=frozenset({"sse2"})), "neither vmx nor svm"),
        (replace(PROMISING, device_exists=False), "no /dev/kvm"),
        (replace(PROMISING, device_opens=False), "group kvm"),
        (replace(PROMISING, qemu_exists=False), "not installed"),
    ],
)
def test_a_machine_that_cannot_have_kvm_is_refused_without_a_guest(
    facts: KvmFacts, words: str
) -> None:
    answer = kvm_refusal(facts)
    assert answer is not None
    assert not answer.works
    assert words in answer.reason


@pytest.mark.parametrize(
    ("code", "reached", "works", "words"),
    [
        (kvm.EXIT_CODE_GOOD, "PLCMT", True, "ran well"),
        (None, "", False, "does not begin"),
        (None, "P", False, "64-bit"),
        (None, "PL", False, "too slowly"),
        (None, "PLCM", False, "timer"),
        (134, "", False, "assertion failed"),
    ],
)
def test_the_end_of_the_probe_guest_is_told_in_words(
    code: int | None, reached: str, works: bool, words: str
) -> None:
    answer = probe_judge(code, said="qemu: assertion failed\n", reached=reached, seconds=1.0)
    assert answer.works is works
    assert words in answer.reason


@needs_qemu
def test_the_probe_guest_runs_where_qemu_translates() -> None:
    answer = probe_run(accelerator="tcg", cpu="max", seconds_max=30)
    assert answer.works, answer.reason


@needs_qemu
@pytest.mark.skipif(not os.access(kvm.DEVICE, os.R_OK | os.W_OK), reason="no /dev/kvm to force")
@pytest.mark.parametrize("cpu", ["host", "qemu64"])
def test_a_forced_probe_ends_within_its_bound_whatever_kvm_does(cpu: str) -> None:
    started = time.monotonic()
    answer = probe_run(cpu=cpu, seconds_max=BOUND_SECONDS)
    assert time.monotonic() - started < BOUND_SECONDS + OVERHEAD_SECONDS
    if not kvm.kvm_facts_read().cpu_flags & {"vmx", "svm"}:
        assert not answer.works


def test_the_answer_is_remembered_until_the_machine_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def probe() -> KvmAnswer:
        asked.append(1)
        return KvmAnswer(works=True, reason="Made up.")

    monkeypatch.setattr(kvm, "kvm_refusal", lambda _facts: None)
    monkeypatch.setattr(kvm, "probe_run", probe)
    assert [kvm_works(tmp_path).works for _ in range(3)] == [True, True, True]
    assert len(asked) == 1
    monkeypatch.setattr(kvm, "boot_id", lambda: "another boot")
    kvm_works(tmp_path)
    assert len(asked) == 2
    (tmp_path / "kvm.json").write_text("damaged")
    kvm_works(tmp_path)
    assert len(asked) == 3


@pytest.mark.skipif(
    shutil.which("as") is None or shutil.which("ld") is None, reason="binutils are not installed"
)
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the guest is for x86_64")
def test_the_probe_guest_is_what_its_source_says(tmp_path: Path) -> None:
    source = Path(kvm.__file__).with_name("kvm_probe.S")
    thing, guest = tmp_path / "probe.o", tmp_path / "probe.bin"
    subprocess.run(["as", "--64", "-o", str(thing), str(source)], check=True)
    link = ["ld", "-m", "elf_x86_64", "-Ttext", "0x100000", "--oformat", "binary"]
    subprocess.run([*link, "-o", str(guest), str(thing)], check=True)
    assert guest.read_bytes() == kvm.PROBE_GUEST
