"""Do the commands do what they promise, against the real API on a real store?"""

import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import msgspec
import pytest
import structlog

from stratus.model.tenancy import Quota
from stratus.wire.v1 import InstanceView
from tests.api.cloud import Cloud, cloud_open
from tests.cli.conftest import Said, Stratus
from tests.cli.scripted import ScriptedServer, relay

GOLDEN = Path(__file__).parent / "golden"
WAIT_SECONDS = 20.0


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    """One site for this file; tests use names of their own in it."""
    with cloud_quiet(tmp_path_factory.mktemp("cloud")) as opened:
        yield opened


@contextmanager
def cloud_quiet(folder: Path) -> Iterator[Cloud]:
    """A site that logs into a file: in this process stdout belongs to the command line."""
    before = structlog.get_config()
    with (folder / "log").open("w") as log:
        structlog.configure(logger_factory=structlog.WriteLoggerFactory(file=log))
        try:
            with cloud_open(folder) as opened:
                yield opened
        finally:
            structlog.configure(**before)


@pytest.fixture
def admin(cloud: Cloud, stratus: Stratus, home: Path) -> Stratus:
    """The command line of the site's administrator, by the admin file."""
    admin_file_write(cloud, home)
    return stratus


def admin_file_write(cloud: Cloud, home: Path, *, endpoint: str = "") -> None:
    """Leave the admin file as a site's set-up does."""
    path = home / "site" / "admin.json"
    path.parent.mkdir(exist_ok=True)
    path.touch(0o600)
    facts = {
        "endpoint": endpoint or cloud.url,
        "token": cloud.secrets.token,
        "project": cloud.project_id,
    }
    path.write_text(json.dumps(facts))


@contextmanager
def host_worker(cloud: Cloud) -> Iterator[None]:
    """Let every new instance be seen running, until the end of the block."""
    over = threading.Event()
    seen: set[str] = set()

    def work() -> None:
        with cloud.client() as client:
            while not over.is_set():
                for item in client.get("/v1/instances?limit=1000").json()["items"]:
                    if item["id"] not in seen and item["phase"] == "pending":
                        seen.add(item["id"])
                        cloud.runs(item["id"])
                over.wait(0.05)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def plain(text: str) -> str:
    """Replace what differs from run to run."""
    text = re.sub(r"\b([a-z]{3})-[0-9a-hjkmnp-tv-z]{16}\b", r"\1-0000000000000000", text)
    text = re.sub(r"req-[0-9a-f]{16}", "req-0000000000000000", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "2026-11-22T19:00:00.000Z", text)
    text = re.sub(r"http://127\.0\.0\.1:\d+", "http://127.0.0.1:8080", text)
    text = re.sub(r"\b[0-9a-f]{40,64}\b", "0f", text)
    text = re.sub(r"\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b", "52:54:00:00:00:00", text)
    text = re.sub(r"\b10\.\d+\.\d+\.\d+\b", "10.0.0.2", text)
    return re.sub(r"\b\d+ s$", "1 s", text, flags=re.MULTILINE)


def golden(name: str, said: Said) -> None:
    """Compare with what was reviewed; STRATUS_GOLDEN=write renews it."""
    import os

    path = GOLDEN / f"{name}.txt"
    text = f"exit {said.code}\n--- stdout\n{plain(said.out)}--- stderr\n{plain(said.err)}"
    if os.environ.get("STRATUS_GOLDEN") == "write":
        GOLDEN.mkdir(exist_ok=True)
        path.write_text(text)
    assert text == path.read_text(), f"{path} differs; STRATUS_GOLDEN=write renews it"


def made(admin: Stratus, name: str, *more: str) -> str:
    """Ask for an instance; return its id."""
    said = admin("run", "tiny", "--name", name, "--no-wait", "-q", *more)
    assert said.code == 0, said.err
    return said.out.strip()


# --- instances -----------------------------------------------------------------------------


def test_nothing_runs_at_first(admin: Stratus, cloud: Cloud) -> None:
    said = admin("ps", "--project", str(cloud.project_id))
    assert (said.code, said.out) == (0, "")
    assert "stratus run IMAGE" in said.err
    assert json.loads(admin("ps", "--json").out) == {"items": [], "next": None}


def test_run_waits_until_it_runs(admin: Stratus, cloud: Cloud) -> None:
    with host_worker(cloud):
        said = admin("run", "tiny", "--name", "web", "-t", "t1.micro")
    golden("run", said)


def test_run_prints_the_api_s_own_json(admin: Stratus, cloud: Cloud) -> None:
    with host_worker(cloud):
        said = admin("run", "tiny", "--name", "json", "--count", "3", "--json")
    assert said.code == 0
    document = json.loads(said.out)
    assert len(document["items"]) == 3
    for item in document["items"]:
        with cloud.client() as client:
            assert client.get(f"/v1/instances/{item['id']}").json() == item
        assert item["phase"] == "running"
    assert document["operation"].startswith("opn-")


def test_run_without_waiting_returns_at_once(admin: Stratus) -> None:
    said = admin("run", "tiny", "--name", "soon", "--no-wait")
    assert said.code == 0
    assert "pending" in said.out


def test_a_wait_that_is_over_says_what_is_missing(admin: Stratus) -> None:
    began = time.monotonic()
    said = admin("run", "tiny", "--name", "late", "--timeout", "0.5")
    assert time.monotonic() - began < WAIT_SECONDS
    assert (said.code, said.out) == (11, "")
    assert "late is not running yet: pending" in said.err
    assert "The request goes on" in said.err


def test_a_parked_instance_ends_the_wait_with_its_problem(admin: Stratus, cloud: Cloud) -> None:
    problem = {
        "code": "guest_failed",
        "detail": "The guest did not start: no bootable device.",
        "remedy": "Check the image.",
    }

    def park() -> None:
        with cloud.client() as client:
            while not (found := client.get("/v1/instances?name=doomed").json()["items"]):
                time.sleep(0.02)
        cloud.instances_set([found[0]["id"]], parked=json.dumps(problem))

    thread = threading.Thread(target=park)
    thread.start()
    said = admin("run", "tiny", "--name", "doomed", "--timeout", str(WAIT_SECONDS))
    thread.join()
    assert said.code == 10
    assert "doomed is not running: The guest did not start: no bootable device." in said.err
    assert "  try: Check the image." in said.err
    assert "failed" in said.out


def test_an_answer_that_got_lost_makes_nothing_twice(
    admin: Stratus, cloud: Cloud, home: Path
) -> None:
    script = [relay(cloud.url, heard=False), *[relay(cloud.url, heard=True)] * 5]
    with ScriptedServer(script) as server:
        admin_file_write(cloud, home, endpoint=server.endpoint)
        said = admin("run", "tiny", "--name", "once", "--no-wait", "-q")
    assert said.code == 0, said.err
    with cloud.client() as client:
        found = client.get("/v1/instances?name=once").json()["items"]
    assert [item["id"] for item in found] == said.out.split()
    assert [asked.method for asked in server.asked] == ["POST", "POST"]


def test_show_tells_all_there_is(admin: Stratus, cloud: Cloud) -> None:
    with host_worker(cloud):
        admin("run", "tiny", "--name", "shown", "--swap", "64", "--volatile", "2")
    golden("show", admin("show", "shown"))
    view = msgspec.json.decode(admin("show", "shown", "--json").out, type=InstanceView)
    assert view.volatile_gib == 2
    assert admin("show", "shown", "-q").out == view.id + "\n"


def test_an_instance_is_found_by_id_beginning_and_name(admin: Stratus) -> None:
    id_ = made(admin, "found")
    for reference in (id_, id_[:-1], "found"):
        assert admin("show", reference, "-q").out.strip() == id_


def test_a_name_that_fits_several_lists_them(admin: Stratus) -> None:
    first, second = made(admin, "twin-a"), made(admin, "twin-b")
    shared = first[: next(n for n in range(len(first)) if first[n] != second[n])]
    said = admin("show", shared)
    assert said.code == 6
    assert first in said.err
    assert second in said.err


def test_what_is_not_there_is_said_so(admin: Stratus) -> None:
    golden("show-unknown", admin("show", "nobody"))
    assert admin("show", "ins-zzzzzzzzzzzzzzzz").code == 5
    assert admin("show", "Not_A Name").code == 5


def test_stop_start_and_delete_are_followed(admin: Stratus, cloud: Cloud) -> None:
    with host_worker(cloud):
        admin("run", "tiny", "--name", "cycle")
    id_ = admin("show", "cycle", "-q").out.strip()

    def obey(wish: str, **seen: object) -> threading.Thread:
        def work() -> None:
            with cloud.client() as client:
                while client.get(f"/v1/instances/{id_}").json()["desired"] != wish:
                    time.sleep(0.02)
            cloud.instances_set([id_], **seen)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    thread = obey("stopped", observed="halted", halt_cause="asked")
    said = admin("stop", "cycle", "--timeout", str(WAIT_SECONDS))
    thread.join()
    assert said.code == 0, said.err
    assert "stopped" in said.out
    thread = obey("running", observed="running", observed_run=2)
    said = admin("start", "cycle", "--json", "--timeout", str(WAIT_SECONDS))
    thread.join()
    assert said.code == 0, said.err
    assert json.loads(said.out)["phase"] == "running"
    thread = obey("absent", gone_ms=1, host_id=None)
    said = admin("rm", "cycle", "-q", "--timeout", str(WAIT_SECONDS))
    thread.join()
    assert (said.code, said.out) == (0, id_ + "\n")


def test_several_are_changed_in_one_go(admin: Stratus) -> None:
    ids = [made(admin, f"many-{n}") for n in range(3)]
    said = admin("rm", *ids, "--no-wait", "-q")
    assert said.out.split() == ids
    assert admin("rm", ids[0], "nobody", "--no-wait").code == 5


def test_rename_shows_the_new_name(admin: Stratus) -> None:
    made(admin, "before")
    assert "after" in admin("rename", "before", "after").out
    assert admin("show", "before").code == 5


def test_ps_filters(admin: Stratus, cloud: Cloud) -> None:
    with host_worker(cloud):
        admin("run", "tiny", "--name", "filtered")
    id_ = admin("show", "filtered", "-q").out.strip()
    running = admin("ps", "-q", "--phase", "running").out.split()
    assert id_ in running
    assert id_ not in admin("ps", "-q", "--phase", "stopped").out.split()
    assert len(admin("ps", "-q", "--limit", "1").out.split()) == 1
    assert id_ in admin("ls", "-qA").out.split()


def test_the_console_is_printed_as_it_came(admin: Stratus, cloud: Cloud) -> None:
    id_ = made(admin, "talker")
    cloud.consoles[id_] = b"booting\r\n\x1b[31mred\x1b[0m\r\nlogin: "
    assert admin("logs", "talker").out.encode() == cloud.consoles[id_]
    assert admin("logs", "talker", "--bytes", "7").out == "login: "


def test_a_dry_run_starts_nothing(admin: Stratus) -> None:
    said = admin("run", "tiny", "--name", "dry", "--dry-run", "--json")
    assert isinstance(json.loads(said.out)["fits"], bool)
    assert admin("show", "dry").code == 5


def test_what_the_guest_is_told_comes_from_files(admin: Stratus, home: Path) -> None:
    ssh = home / ".ssh"
    ssh.mkdir()
    (ssh / "id_ed25519.pub").write_text("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA== me\n")
    (home / "data").write_text("#!/bin/sh\necho hi\n")
    said = admin(
        "run", "tiny", "--name", "told", "--no-wait", "-q",
        "--user-data", str(home / "data"), "-c", "ROLE=web", "-c", "TEXT=a=b",
    )  # fmt: skip
    assert said.code == 0, said.err
    private = ssh / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    said = admin("run", "tiny", "--ssh-key", str(private), "--no-wait")
    assert said.code == 8
    assert "private key" in said.err
    assert admin("run", "tiny", "--user-data", "/no/such", "--no-wait").code == 8
    assert admin("run", "tiny", "-c", "nonsense", "--no-wait").code == 2
    assert admin("run", "tiny", "--spread", "--pack").code == 2


# --- refusals ------------------------------------------------------------------------------


def test_each_kind_of_refusal_has_its_exit_code(admin: Stratus) -> None:
    assert admin("run", "nothing", "--no-wait").code == 5
    assert admin("run", "tiny", "--type", "no.such", "--no-wait").code in (5, 8)
    assert admin("run", "tiny", "--name", "Bad Name", "--no-wait").code == 8
    assert admin("run", "tiny", "--count", "0", "--no-wait").code == 8
    assert admin("project", "create", "poor").code == 0
    assert admin("project", "create", "poor").code == 6
    assert admin("quota", "set", "poor", "--instances", "0").code == 0
    said = admin("run", "tiny", "--project", "poor", "--no-wait")
    assert said.code == 7
    assert "  try: " in said.err
    assert "  request: req-" in said.err


def test_an_error_is_told_with_remedy_and_request(admin: Stratus) -> None:
    golden("run-unknown-image", admin("run", "nothing"))


def test_nobody_gets_in_without_a_token(
    stratus: Stratus, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATUS_ENDPOINT", cloud.url)
    golden("no-token", stratus("ps"))


def test_a_bad_token_is_refused(
    stratus: Stratus, cloud: Cloud, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STRATUS_ENDPOINT", cloud.url)
    monkeypatch.setenv("STRATUS_TOKEN_FILE", str(token_file))
    assert stratus("ps").code == 3


# --- people --------------------------------------------------------------------------------


def secret(home: Path, text: str) -> str:
    path = home / f"secret-{sha256(text.encode()).hexdigest()[:8]}"
    path.touch(0o600)
    path.write_text(text + "\n")
    return str(path)


def test_login_use_and_logout(admin: Stratus, cloud: Cloud, home: Path) -> None:
    password = "correct horse battery"
    assert admin("user", "create", "anna", "--password-file", secret(home, password)).code == 0
    assert admin("project", "create", "lab", "--owner", "anna").code == 0
    said = admin(
        "login", cloud.url, "-u", "anna", "--password-file", secret(home, password),
    )  # fmt: skip
    assert said.code == 0, said.err
    assert "project lab" in said.err
    me = json.loads(admin("whoami", "--json").out)
    assert (me["name"], me["admin"]) == ("anna", False)
    config = home / ".config" / "stratus" / "config.json"
    assert config.stat().st_mode & 0o777 == 0o600
    assert password not in config.read_text()

    assert admin("user", "create", "bert", "--generate").code == 4
    assert admin("host", "ls").code in (0, 4)
    assert admin("project", "use", "nowhere").code == 5
    assert admin("project", "use", "lab").code == 0
    assert "lab *" in admin("project", "ls").out
    assert admin("run", "tiny", "--name", "mine", "--no-wait").code == 0
    assert "mine" in admin("ps").out

    token = json.loads(config.read_text())["profiles"]["default"]["token"]
    assert admin("logout").code == 0
    assert json.loads(config.read_text())["profiles"]["default"].get("token", "") == ""
    with cloud.client(token) as client:
        assert client.get("/v1/me").status_code == 401
    said = admin("ps")
    assert said.code == 3
    assert f"stratus login {cloud.url}" in said.err


def test_a_wrong_password_is_said_plainly(stratus: Stratus, cloud: Cloud, home: Path) -> None:
    said = stratus("login", cloud.url, "-u", "nobody", "--password-file", secret(home, "wrong"))
    golden("login-wrong", said)


def test_a_password_is_not_sent_in_the_clear(stratus: Stratus, home: Path) -> None:
    said = stratus(
        "login", "http://cloud.example.org", "-u", "a", "--password-file", secret(home, "x")
    )
    assert said.code == 8
    assert "not https" in said.err


def test_passwords_need_a_terminal_or_a_source(admin: Stratus) -> None:
    said = admin("user", "create", "carl")
    assert said.code == 2
    assert "--password-stdin" in said.err


def test_a_user_from_cradle_to_grave(admin: Stratus, home: Path) -> None:
    said = admin("user", "create", "dora", "--generate")
    assert said.code == 0
    assert re.search(r"^password +\S+", said.out, re.MULTILINE)
    assert "dora" in admin("user", "ls").out
    assert (
        admin("user", "passwd", "dora", "--password-file", secret(home, "another long one")).code
        == 0
    )
    assert admin("user", "disable", "dora").code == 0
    assert re.search(r"^disabled +yes$", admin("user", "show", "dora").out, re.MULTILINE)
    assert admin("user", "enable", "dora").code == 0


def test_members_come_and_go(admin: Stratus) -> None:
    admin("user", "create", "emil", "--no-password")
    admin("project", "create", "club")
    assert admin("project", "member-add", "club", "emil", "--role", "reader").code == 0
    assert re.search(r"emil +reader", admin("project", "members", "club").out)
    assert admin("project", "member-rm", "club", "emil").code == 0
    assert "emil" not in admin("project", "members", "club").out
    assert admin("project", "rm", "club").code == 0
    assert admin("project", "show", "club").code == 5


def test_a_token_works_until_it_is_revoked(
    admin: Stratus, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = home / "backup.token"
    said = admin("token", "create", "backup", "--scope", "read", "--file", str(path), "--json")
    assert said.code == 0, said.err
    assert path.stat().st_mode & 0o777 == 0o600
    id_ = json.loads(said.out)["id"]
    assert id_ in admin("token", "ls", "-q").out
    monkeypatch.setenv("STRATUS_TOKEN_FILE", str(path))
    assert admin("ps").code == 0
    assert admin("run", "tiny", "--no-wait").code == 4
    monkeypatch.delenv("STRATUS_TOKEN_FILE")
    assert admin("token", "rm", id_).code == 0
    monkeypatch.setenv("STRATUS_TOKEN_FILE", str(path))
    assert admin("ps").code == 3


def test_quotas_are_shown_and_set(admin: Stratus) -> None:
    admin("project", "create", "rich")
    assert admin("quota", "set", "rich", "--vcpus", "-1", "--instances", "5").code == 0
    golden("quota-show", admin("quota", "show", "rich"))
    assert admin("quota", "set", "rich").code == 2
    default = Quota()
    assert str(default.addresses) in admin("quota", "show", "rich").out


# --- what the site offers ------------------------------------------------------------------


def test_types(admin: Stratus) -> None:
    golden("type-ls", admin("type", "ls"))
    assert admin("type", "add", "test.one", "--vcpus", "1", "--memory", "128").code == 0
    assert admin("type", "add", "test.one", "--vcpus", "1", "--memory", "128").code == 6
    assert "128 MiB" in admin("type", "show", "test.one").out
    assert admin("type", "rm", "test.one").code == 0
    assert admin("type", "show", "test.one").code == 5


@pytest.fixture
def elsewhere(stratus: Stratus, home: Path, tmp_path: Path) -> Iterator[Stratus]:
    """The administrator of another site: hosts decide what the others may run."""
    (tmp_path / "elsewhere").mkdir()
    with cloud_quiet(tmp_path / "elsewhere") as opened:
        admin_file_write(opened, home)
        yield stratus


def test_hosts(elsewhere: Stratus) -> None:
    admin = elsewhere
    said = admin("host", "add", "qemu+tls://node7.example.org/system", "--no-wait", "-q")
    assert said.code == 0, said.err
    assert admin("host", "show", "node7", "-q").out == said.out
    golden("host-show", admin("host", "show", "node7"))
    assert "node7" in admin("host", "ls").out
    assert admin("host", "set", "node7", "--cpu-ratio", "4").code == 0
    assert json.loads(admin("host", "show", "node7", "--json").out)["cpu_ratio"] == 4
    assert "wish" in admin("host", "drain", "node7").out
    assert json.loads(admin("host", "enable", "node7", "--json").out)["desired"] == "enabled"
    assert admin("host", "fence", "node7").code == 2
    assert admin("host", "strays", "node7").code == 0
    assert admin("host", "rm", "node7").code == 0


def test_a_host_that_nobody_looks_at_is_waited_for_in_vain(elsewhere: Stratus) -> None:
    said = elsewhere("host", "add", "qemu+tls://lonely.example.org/system", "--timeout", "0.3")
    assert said.code == 11
    assert "No host worker has looked at lonely yet" in said.err


def test_pools_and_networks(elsewhere: Stratus, tmp_path: Path) -> None:
    admin = elsewhere
    assert "main" in admin("pool", "ls").out
    assert "/srv/pool" in admin("pool", "show", "main").out
    assert admin("pool", "add", "second", str(tmp_path)).code == 0
    assert "public" in admin("network", "ls").out
    golden("network-show", admin("network", "show", "public"))
    said = admin(
        "network", "add", "labnet", "--class", "local", "--ipv4", "192.168.77.0/24",
        "--ipv4-gateway", "192.168.77.1",
    )  # fmt: skip
    assert said.code == 0, said.err


def test_the_policy_is_read_and_written(admin: Stratus, home: Path) -> None:
    before = admin("policy", "show")
    assert before.code == 0
    path = home / "policy.json"
    path.write_text(before.out)
    assert admin("policy", "set", str(path)).code == 0
    assert admin("policy", "show").out == before.out
    path.write_text('{"rulez": []}')
    assert admin("policy", "set", str(path)).code == 8
    assert admin("key", "ls").code == 0
    (home / "no.pem").write_text("no key")
    assert admin("key", "add", str(home / "no.pem")).code == 8


def test_operations_are_listed_and_shown(admin: Stratus) -> None:
    made(admin, "asked")
    id_ = admin("operation", "ls", "-q").out.split()[-1]
    said = admin("operation", "show", id_)
    assert "under way" in said.out
    assert admin("operation", "show", id_, "--wait", "--timeout", "0.3").code == 11


def test_events_tell_what_happened(admin: Stratus) -> None:
    id_ = made(admin, "eventful")
    said = admin("events", id_)
    assert f"instance.created         {id_}" in said.out
    document = json.loads(admin("events", "--json", "--limit", "3").out)
    assert len(document["items"]) == 3
    assert document["next"] is not None


def test_versions_of_both_are_told(admin: Stratus) -> None:
    said = admin("version", "--json")
    assert json.loads(said.out)["cloud"]["product"] == "StratusLab"
    assert admin("--version").out.startswith("stratus ")


# --- images --------------------------------------------------------------------------------


def test_images_are_listed_and_shown(admin: Stratus) -> None:
    assert "tiny" in admin("image", "ls").out
    golden("image-show", admin("image", "show", "tiny"))
    assert admin("image", "show", "nothing").code == 5


@pytest.fixture
def image(home: Path) -> Path:
    """A file that looks like a disk image, of more than two pieces."""
    path = home / "my-disk.qcow2"
    path.write_bytes(b"QFI\xfb" + bytes(range(256)) * 70_000)
    return path


def test_a_file_is_uploaded_whole(admin: Stratus, cloud: Cloud, image: Path) -> None:
    said = admin("image", "import", str(image), "--no-wait", "--json")
    assert said.code == 0, said.err
    view = json.loads(said.out)
    assert view["name"] == "my-disk"
    assert view["format"] == "qcow2"
    assert bytes(cloud.uploads.bytes[view["id"]]) == image.read_bytes()


@pytest.mark.parametrize("sent", [0, 1000, 8 << 20, 17_920_004])
def test_an_upload_goes_on_where_it_broke(
    admin: Stratus, cloud: Cloud, image: Path, sent: int
) -> None:
    data = image.read_bytes()
    name = f"broken-off-{sent}"
    said = admin("image", "import", str(image), "--name", name, "--timeout", "0.000001")
    assert said.code == 11
    assert "goes on where it stopped" in said.err
    id_ = admin("image", "show", name, "-q").out.strip()
    with cloud.client() as client:
        for at in range(0, sent, 8 << 20):
            client.put(
                f"/v1/images/{id_}/content",
                content=data[at : min(sent, at + (8 << 20))],
                headers={"Upload-Offset": str(at)},
            )
    said = admin("image", "import", str(image), "--name", name, "--no-wait", "-q")
    assert said.code == 0, said.err
    assert said.out.strip() == id_
    assert bytes(cloud.uploads.bytes[id_]) == data
    with cloud.client() as client:
        kinds = [e["kind"] for e in client.get(f"/v1/events?subject={id_}").json()["items"]]
    assert "image.uploaded" in kinds


def test_another_file_under_a_taken_name_is_refused(admin: Stratus, image: Path) -> None:
    assert admin("image", "import", str(image), "--name", "taken", "--no-wait").code == 0
    image.write_bytes(b"QFI\xfbsomething else")
    assert admin("image", "import", str(image), "--name", "taken", "--no-wait").code == 6


def test_what_is_no_image_is_refused_before_it_is_sent(admin: Stratus, home: Path) -> None:
    assert admin("image", "import", str(home / "missing")).code == 8
    (home / "empty.qcow2").touch()
    assert admin("image", "import", str(home / "empty.qcow2")).code == 8
    (home / "packed.img.gz").write_bytes(b"\x1f\x8b\x08 packed")
    said = admin("image", "import", str(home / "packed.img.gz"))
    assert "gunzip" in said.err
    (home / "x.raw").write_bytes(b"x" * 512)
    said = admin("image", "import", str(home / "x.raw"), "--sha256", "0" * 64)
    assert said.code == 8
    assert "not what you expect" in said.err


def test_an_image_that_does_not_come_is_waited_for_in_vain(admin: Stratus) -> None:
    said = admin(
        "image", "import", "https://example.org/far-away.qcow2", "--timeout", "0.3",
    )  # fmt: skip
    assert said.code == 11
    assert "far-away is not ready yet" in said.err
    assert admin("image", "set", "far-away", "--title", "Far away").code == 0
    assert "Far away" in admin("image", "ls").out
    assert admin("image", "rm", "far-away").code == 0


def test_a_bad_endorsement_is_refused(admin: Stratus, home: Path) -> None:
    (home / "doc.json").write_text("{}")
    said = admin("image", "endorse", "tiny", "--document", str(home / "doc.json"))
    assert said.code == 8
    assert admin("image", "endorse", "tiny", "--document", "/no/such").code == 8
