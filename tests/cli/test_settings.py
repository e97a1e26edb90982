"""Which cloud, as whom? And do secrets stay where they belong?"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from stratus.cli.settings import (
    Profile,
    Settings,
    place_find,
    same_endpoint,
    settings_path,
    settings_read,
    settings_write,
)
from stratus.cli.trouble import Exit, Trouble

HERE = "http://127.0.0.1:8080"
THERE = "https://cloud.example.org"


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own."""
    return {"HOME": str(tmp_path), "STRATUS_HOME": str(tmp_path / "site")}


def remember(environ: Mapping[str, str], **profiles: Profile) -> None:
    current = next(iter(profiles))
    settings_write(settings_path(environ), Settings(current=current, profiles=profiles))


def admin_file(tmp_path: Path, mode: int = 0o600) -> Path:
    path = tmp_path / "site" / "admin.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"endpoint": HERE, "token": "st_root", "project": "main"}))
    path.chmod(mode)
    return path


def test_the_settings_are_for_their_owner_alone(environ: dict[str, str]) -> None:
    remember(environ, default=Profile(endpoint=HERE, token="st_1"))
    path = settings_path(environ)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in path.parent.iterdir()] == ["config.json"]


def test_settings_that_others_can_read_are_refused(environ: dict[str, str]) -> None:
    remember(environ, default=Profile(endpoint=HERE, token="st_1"))
    settings_path(environ).chmod(0o640)
    with pytest.raises(Trouble, match="others on this machine can read") as caught:
        place_find(environ)
    assert caught.value.exit is Exit.INVALID
    assert caught.value.remedy.startswith("chmod 600 ")


def test_damaged_settings_are_said_to_be_so(environ: dict[str, str]) -> None:
    path = settings_path(environ)
    path.parent.mkdir(parents=True)
    path.touch(0o600)
    path.write_text('{"current": 7}')
    with pytest.raises(Trouble, match="is damaged"):
        settings_read(path)


def test_without_a_login_the_way_to_one_is_told(environ: dict[str, str]) -> None:
    with pytest.raises(Trouble) as caught:
        place_find(environ)
    assert caught.value.exit is Exit.LOGIN
    assert "stratus login" in caught.value.remedy


def test_the_administrator_of_this_machine_needs_no_login(
    environ: dict[str, str], tmp_path: Path
) -> None:
    path = admin_file(tmp_path)
    place = place_find(environ)
    assert (place.endpoint, place.token, place.project) == (HERE, "st_root", "main")
    assert place.source == str(path)


def test_an_open_admin_file_is_refused(environ: dict[str, str], tmp_path: Path) -> None:
    admin_file(tmp_path, mode=0o644)
    with pytest.raises(Trouble, match="others on this machine can read"):
        place_find(environ)


def test_a_login_goes_before_the_admin_file(environ: dict[str, str], tmp_path: Path) -> None:
    admin_file(tmp_path)
    remember(environ, default=Profile(endpoint=THERE, token="st_1"))
    assert place_find(environ).token == "st_1"


def test_the_environment_goes_before_the_settings(environ: dict[str, str], tmp_path: Path) -> None:
    remember(environ, default=Profile(endpoint=THERE, token="st_1", project="one"))
    token_file = tmp_path / "token"
    token_file.touch(0o600)
    token_file.write_text("st_2\n")
    place = place_find({**environ, "STRATUS_TOKEN_FILE": str(token_file), "STRATUS_PROJECT": "two"})
    assert (place.endpoint, place.token, place.project) == (THERE, "st_2", "two")


def test_a_token_is_not_sent_to_another_endpoint(environ: dict[str, str], tmp_path: Path) -> None:
    admin_file(tmp_path)
    remember(environ, default=Profile(endpoint=THERE, token="st_1", project="one"))
    place = place_find({**environ, "STRATUS_ENDPOINT": "https://evil.example.org"})
    assert (place.token, place.project) == ("", "")


def test_naming_the_endpoint_of_a_login_finds_its_token(
    environ: dict[str, str], tmp_path: Path
) -> None:
    admin_file(tmp_path)
    remember(
        environ,
        a=Profile(endpoint=THERE, token="st_1"),
        b=Profile(endpoint="https://b.example.org", token="st_2"),
    )
    assert place_find({**environ, "STRATUS_ENDPOINT": "https://b.example.org/"}).token == "st_2"
    assert place_find({**environ, "STRATUS_ENDPOINT": HERE}).token == "st_root"


def test_a_profile_is_chosen_by_name(environ: dict[str, str]) -> None:
    remember(
        environ,
        a=Profile(endpoint=THERE, token="st_1"),
        b=Profile(endpoint=HERE, token="st_2"),
    )
    assert place_find({**environ, "STRATUS_PROFILE": "b"}).token == "st_2"
    with pytest.raises(Trouble, match="known: a, b"):
        place_find({**environ, "STRATUS_PROFILE": "c"})


@pytest.mark.parametrize(
    "endpoint",
    ["cloud.example.org", "ftp://x", "http://", "http://x:99999", "https://u:p@x", "http://x?y=1"],
)
def test_what_is_no_address_of_a_cloud_is_refused(environ: dict[str, str], endpoint: str) -> None:
    with pytest.raises(Trouble) as caught:
        place_find({**environ, "STRATUS_ENDPOINT": endpoint})
    assert caught.value.exit is Exit.INVALID


def test_a_missing_or_strange_token_file_is_refused(
    environ: dict[str, str], tmp_path: Path
) -> None:
    said = {**environ, "STRATUS_ENDPOINT": HERE, "STRATUS_TOKEN_FILE": str(tmp_path / "no")}
    with pytest.raises(Trouble, match="There is no file"):
        place_find(said)
    (tmp_path / "no").touch(0o600)
    (tmp_path / "no").write_text("st_1\r\nX-Evil: yes\n")
    with pytest.raises(Trouble, match="does not hold a token"):
        place_find(said)


def test_the_same_server_is_recognised() -> None:
    assert same_endpoint("https://X.example.org/", "https://x.example.org:443")
    assert not same_endpoint("https://x.example.org", "http://x.example.org")
    assert not same_endpoint("http://x/a", "http://x/b")
