"""Does a guest read from its medium what it was meant to be told?"""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stratus.wire.guest_context import ContextNic, GuestContext
from stratus.wire.media import MEDIA, seed_of
from stratus.wire.nocloud import nocloud_files

GOLDEN = Path(__file__).parent / "golden"

WHOLE = GuestContext(
    instance_id="ins-0000000000000001",
    host_name="web-1",
    ssh_keys=("ssh-ed25519 AAAAC3Nza ana@example.org", "ssh-rsa AAAAB3Nza ben"),
    pairs={"ROLE": "web", "MOTTO": 'zwei: "Zeilen"\nund ein Ende\u2028'},
    nics=(
        ContextNic(
            mac="52:54:00:AA:BB:01",
            ipv4="192.0.2.10/24",
            ipv4_gateway="192.0.2.1",
            ipv6="2001:db8::10/64",
            ipv6_gateway="2001:db8::1",
            dns=("192.0.2.1", "2001:db8::1"),
        ),
        ContextNic(
            mac="52:54:00:aa:bb:02",
            ipv4="198.51.100.7/25",
            ipv4_gateway="198.51.100.1",
            ipv6="2001:db8:1::7/64",
            ipv6_gateway="2001:db8:1::1",
            dhcp4=False,
            accept_ra=False,
        ),
    ),
)
LEAST = GuestContext(instance_id="ins-0000000000000002", host_name="db-1")
SCRIPT = GuestContext(
    instance_id="ins-0000000000000003",
    host_name="job-1",
    ssh_keys=("ssh-ed25519 AAAAC3Nza ana@example.org",),
    user_data="#!/bin/sh\necho hello > /run/hello\n",
)


@pytest.mark.parametrize(
    ("name", "context"), [("whole", WHOLE), ("least", LEAST), ("script", SCRIPT)]
)
def test_the_files_are_the_golden_ones(name: str, context: GuestContext) -> None:
    prefix = f"nocloud_{name}_"
    golden = {path.name.removeprefix(prefix): path for path in GOLDEN.glob(prefix + "*")}
    assert nocloud_files(context) == {file: path.read_text() for file, path in golden.items()}


def test_user_data_is_handed_on_exactly_and_the_keys_go_beside_it() -> None:
    files = nocloud_files(SCRIPT)
    assert files["user-data"] == SCRIPT.user_data
    assert yaml.safe_load(files["meta-data"])["public-keys"] == list(SCRIPT.ssh_keys)


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40)


WORDS = st.sampled_from(["y", "NO", "on", "null", "True", "~", "1", "a-b", "_x", "-", "#", ""])


@given(st.dictionaries(TEXT | WORDS, TEXT, max_size=4), st.lists(TEXT, max_size=3), TEXT)
def test_every_text_arrives_as_it_was(pairs: dict[str, str], keys: list[str], name: str) -> None:
    files = nocloud_files(
        GuestContext(instance_id="ins-1", host_name=name, ssh_keys=tuple(keys), pairs=pairs)
    )
    meta = yaml.safe_load(files["meta-data"])
    assert meta["context"] == pairs
    assert meta["public-keys"] == keys
    assert meta["local-hostname"] == name
    config = yaml.safe_load(files["user-data"])
    assert config == {"hostname": name, "ssh_authorized_keys": keys}


def test_a_card_is_matched_by_its_hardware_address_and_named_by_us() -> None:
    config = yaml.safe_load(nocloud_files(WHOLE)["network-config"])
    first, second = config["ethernets"]["eth0"], config["ethernets"]["eth1"]
    assert first["match"] == {"macaddress": "52:54:00:aa:bb:01"}
    assert (first["set-name"], second["set-name"]) == ("eth0", "eth1")
    assert (first["dhcp4"], first["addresses"]) == (True, ["2001:db8::10/64"])
    assert "gateway6" not in first  # its router announces itself
    assert second["addresses"] == ["198.51.100.7/25", "2001:db8:1::7/64"]
    assert (second["gateway4"], second["gateway6"]) == ("198.51.100.1", "2001:db8:1::1")


def test_the_seed_volume_is_labelled_for_its_reader() -> None:
    seed = seed_of(WHOLE)
    assert seed.label == "cidata"
    assert set(seed.files) == {"meta-data", "user-data", "network-config"}
    assert set(MEDIA) == {"nocloud"}
