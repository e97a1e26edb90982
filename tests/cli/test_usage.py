"""Does every command say what it does, and is a wrong command line told kindly?"""

import socket
import subprocess
import threading
from pathlib import Path

import pytest

from stratus.cli.app import COMMANDS, GROUPS, MACHINE, app_make, command_add, run
from stratus.cli.reference import commands, reference_text
from stratus.cli.start import ssh_answers
from stratus.cli.trouble import EXIT_OF_KIND, EXIT_WORDS, Exit, exit_of
from stratus.model.problem import CATALOGUE, Kind, Later, refuse
from tests.cli.conftest import APP, Stratus
from tests.cli.scripted import ScriptedServer

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
LEAVES = [(chain, holder) for chain, holder, _ in commands(APP) if holder.default_command]


def test_the_page_about_the_command_line_is_up_to_date() -> None:
    renew = "python -m stratus.cli.reference > docs/reference/cli.md"
    assert PAGE.read_text() == reference_text(APP), f"run: {renew}"


@pytest.mark.parametrize(("words", "code", "group", "promise"), COMMANDS)
def test_each_command_promises_the_same_in_both_places(
    words: str, code: str, group: str, promise: str
) -> None:
    holder = APP
    for word in words.split():
        holder = holder[word]
    document = holder.default_command.__doc__ if holder.default_command else ""
    assert document is not None
    assert document.split("\n")[0] == promise, code
    assert promise.endswith(".")
    assert group in (*GROUPS, "")


@pytest.mark.parametrize("chain", [chain for chain, _ in LEAVES], ids=" ".join)
def test_each_command_shows_an_example_and_fits_the_width(
    stratus: Stratus, chain: tuple[str, ...]
) -> None:
    said = stratus(*chain, "--help")
    assert said.code == 0
    assert f"    $ stratus {' '.join(chain)}" in said.out
    assert max(map(len, said.out.splitlines())) <= 100
    assert said.err == ""


@pytest.mark.parametrize("argv", [(), ("--help",), ("-h",), ("image",), ("image", "--help")])
def test_help_goes_to_stdout(stratus: Stratus, argv: tuple[str, ...]) -> None:
    said = stratus(*argv)
    assert said.code == 0
    assert said.out.startswith("usage: stratus ")
    assert said.err == ""


@pytest.mark.parametrize(
    ("argv", "detail", "remedy"),
    [
        (("pss",), "There is no command stratus pss.", "stratus ps"),
        (("image", "lss"), "There is no command stratus image lss.", "stratus image ls"),
        (("xyzzy",), "There is no command stratus xyzzy.", "stratus --help"),
        (("xyzzy", "--help"), "There is no command stratus xyzzy.", "stratus --help"),
        (("run",), "stratus run needs IMAGE.", "stratus run --help"),
        (("rename", "a"), "stratus rename needs NAME.", "stratus rename --help"),
        (("type", "add", "x"), "stratus type add needs a value for --vcpus.", "stratus type add"),
        (("ps", "--nope"), "Unknown option: --nope.", "stratus ps --help"),
        (("ps", "--limit", "x"), "--limit", "stratus ps --help"),
        (("ps", "--limit"), "stratus ps needs a value for --limit.", "stratus ps --help"),
        (("run", "x", "--on-halt", "explode"), '"explode"', "stratus run --help"),
        (("ps", "stray"), "stray", "stratus ps --help"),
        (("ps", "--no-json"), "--no-json", "stratus ps --help"),
        (("completion", "tcsh"), "tcsh", "stratus completion --help"),
    ],
)
def test_a_wrong_command_line_is_told_in_one_sentence(
    stratus: Stratus, argv: tuple[str, ...], detail: str, remedy: str
) -> None:
    said = stratus(*argv)
    first, second = said.err.splitlines()
    assert said.code == 2
    assert said.out == ""
    assert first.startswith("stratus: ")
    assert detail in first
    assert second.startswith(f"  try: {remedy}")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_completion_script(stratus: Stratus, shell: str) -> None:
    said = stratus("completion", shell)
    assert said.code == 0
    for word in ("image", "member-add", "dry-run"):
        assert word in said.out


def test_bash_completes_commands_and_options(stratus: Stratus, tmp_path: Path) -> None:
    script = tmp_path / "stratus.bash"
    script.write_text(stratus("completion", "bash").out)
    probe = (
        f"source {script}; spec=$(complete -p stratus); fn=${{spec##*-F }}; fn=${{fn%% *}}; "
        'COMP_WORDS=(stratus image im); COMP_CWORD=2; COMP_LINE="stratus image im"; '
        'COMP_POINT=16; $fn stratus im image; echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["import"]


def test_what_others_add_is_listed_without_being_imported(
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = app_make()
    command_add(app, "up", "no.such.module:up", "Start the cloud.", group=MACHINE)
    command_add(app, "image build", "no.such.module:build", "Make an image.")
    assert run(app, ["--help"]) == 0
    whole = capsys.readouterr().out
    assert "This machine:\n  up          Start the cloud.\n" in whole
    assert whole.index("This machine:") < whole.index("This command line:")
    assert run(app, ["image"]) == 0
    assert "build" in capsys.readouterr().out
    assert run(app, ["up"]) == Exit.BUG


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (refuse("store_busy", "The store is held.", remedy="stratus down"), Exit.UNAVAILABLE),
        (Later(seconds=5, reason="busy"), Exit.UNAVAILABLE),
        (ValueError("no"), Exit.BUG),
    ],
)
def test_what_a_command_of_others_raises_is_told_too(
    capsys: pytest.CaptureFixture[str], error: Exception, code: Exit
) -> None:
    def serve() -> None:
        """Serve."""
        raise error

    app = app_make()
    app.command(serve)
    assert run(app, ["serve"]) == code
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("stratus: ")
    assert said[1].startswith("  try: ")


def test_an_ssh_server_is_known_by_its_greeting(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedServer([]) as server:
        monkeypatch.setattr("stratus.cli.start.SSH_PORT", server.port)
        monkeypatch.setattr("stratus.cli.start.SSH_TRY_SECONDS", 0.1)
        assert not ssh_answers("127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr("stratus.cli.start.SSH_PORT", listener.getsockname()[1])
        greeter = threading.Thread(target=_greet, args=(listener,))
        greeter.start()
        assert ssh_answers("127.0.0.1")
        greeter.join()
    assert not ssh_answers("127.0.0.1")


def _greet(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"SSH-2.0-dropbear\r\n")


def test_every_kind_of_problem_has_an_exit_code_and_words() -> None:
    assert set(EXIT_OF_KIND) == set(Kind)
    assert set(EXIT_WORDS) == set(Exit)
    for code, entry in CATALOGUE.items():
        assert exit_of(code) is EXIT_OF_KIND[entry.kind]


def test_a_problem_of_a_newer_cloud_is_judged_by_its_status() -> None:
    assert exit_of("brand_new", 404) is Exit.NOT_FOUND
    assert exit_of("brand_new", 418) is Exit.INVALID
    assert exit_of("brand_new", 599) is Exit.UNAVAILABLE
