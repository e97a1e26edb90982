"""What can `stratus` do? The table of commands, and the one place where a command ends.

Commands are named by "module:function" and imported when used, so that each starts quickly. The
program that owns the machine adds its own with `command_add`.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

from cyclopts import App, CycloptsError, Parameter

from stratus.cli.output import note, report
from stratus.cli.trouble import Exit, Trouble, trouble_of
from stratus.model.problem import Later, Refused

PRODUCT_VERSION: Final = "0.1.0"

INSTANCES: Final = "Instances"
IMAGES: Final = "Images and sizes"
SITE: Final = "The site"
PEOPLE: Final = "People and projects"
MACHINE: Final = "This machine"  # for the program that owns it
SESSION: Final = "This command line"
GROUPS: Final = (INSTANCES, IMAGES, SITE, PEOPLE, MACHINE, SESSION)  # in this order in the help

# Folders hold commands; each line: name, group, promise.
FOLDERS: Final = (
    ("image", IMAGES, "Import, show, endorse and remove images."),
    ("type", IMAGES, "Show and define instance types."),
    ("host", SITE, "Add, show, drain and remove the machines that run instances."),
    ("pool", SITE, "Add and show the places for disks and images."),
    ("network", SITE, "Add and show the networks of the cloud."),
    ("policy", SITE, "Show and set which images may start here."),
    ("key", SITE, "Add, show and remove the keys of endorsers that this site knows."),
    ("operation", SITE, "Follow what was asked for."),
    ("project", PEOPLE, "Create projects, choose one, and say who belongs to it."),
    ("user", PEOPLE, "Create, show and disable users."),
    ("token", PEOPLE, "Create, show and revoke tokens for programs."),
    ("quota", PEOPLE, "Show and set how much a project may have."),
)

# Each line: the words, where the code is, group, promise.
COMMANDS: Final = (
    ("run", "start:run", INSTANCES, "Start instances from an image."),
    ("ps", "instances:ps", INSTANCES, "List instances."),
    ("show", "instances:show", INSTANCES, "Show one instance with all that is known of it."),
    ("ssh", "reach:ssh", INSTANCES, "Open a shell in an instance, or run a command there."),
    ("logs", "reach:logs", INSTANCES, "Print what an instance wrote on its serial console."),
    ("console", "reach:console", INSTANCES, "Follow an instance's serial console."),
    ("stop", "instances:stop", INSTANCES, "Stop instances: ask the guest, then power off."),
    ("start", "instances:start", INSTANCES, "Start stopped instances."),
    ("reboot", "instances:reboot", INSTANCES, "Reboot running instances."),
    ("retry", "instances:retry", INSTANCES, "Try again what had failed for good."),
    ("rename", "instances:rename", INSTANCES, "Give an instance another name."),
    ("rm", "instances:rm", INSTANCES, "Delete instances with their disks."),
    ("events", "events:events", INSTANCES, "Print what happened, and with -f what happens."),
    ("image import", "images:import_", "", "Import an image from a file or a URL."),
    ("image ls", "images:ls", "", "List images."),
    ("image show", "images:show", "", "Show one image, and whether it may start here."),
    ("image set", "images:set_", "", "Change what an image is called, and who may start it."),
    ("image retry", "images:retry", "", "Try an import again that had failed for good."),
    ("image rm", "images:rm", "", "Delete images that no instance stands on."),
    ("image endorse", "images:endorse", "", "Hand in a signed endorsement of an image."),
    ("type ls", "types:ls", "", "List instance types."),
    ("type show", "types:show", "", "Show one instance type."),
    ("type add", "types:add", "", "Define an instance type."),
    ("type rm", "types:rm", "", "Remove instance types; instances keep their size."),
    ("host add", "hosts:add", "", "Add a machine by its libvirt URI."),
    ("host ls", "hosts:ls", "", "List hosts."),
    ("host show", "hosts:show", "", "Show one host with all that is known of it."),
    ("host set", "hosts:set_", "", "Change how much of a host instances may have."),
    ("host drain", "hosts:drain", "", "Keep what runs on a host, and place nothing new there."),
    ("host enable", "hosts:enable", "", "Let a host take new instances again."),
    ("host fence", "hosts:fence", "", "Declare that a host is dead, so its instances may move."),
    ("host rm", "hosts:rm", "", "Remove a host that runs nothing any more."),
    ("host strays", "hosts:strays", "", "List guests on a host that nobody wished for."),
    ("pool ls", "pools:ls", "", "List pools."),
    ("pool show", "pools:show", "", "Show one pool with its room."),
    ("pool add", "pools:add", "", "Add a pool."),
    ("network ls", "networks:ls", "", "List networks."),
    ("network show", "networks:show", "", "Show one network with its addresses."),
    ("network add", "networks:add", "", "Add a network."),
    ("policy show", "trust:policy_show", "", "Print the site's trust policy."),
    ("policy set", "trust:policy_set", "", "Replace the site's trust policy."),
    ("key ls", "trust:key_ls", "", "List the endorsers' keys that this site knows."),
    ("key add", "trust:key_add", "", "Make an endorser's public key known."),
    ("key rm", "trust:key_rm", "", "Forget endorsers' keys."),
    ("operation ls", "operations:ls", "", "List what was asked for lately."),
    ("operation show", "operations:show", "", "Show whether a request has come true."),
    ("project ls", "projects:ls", "", "List projects."),
    ("project show", "projects:show", "", "Show one project with its quota and use."),
    ("project create", "projects:create", "", "Create a project."),
    ("project rm", "projects:rm", "", "Remove projects that hold nothing any more."),
    ("project use", "projects:use", "", "Make a project the default of this command line."),
    ("project members", "projects:members", "", "List who belongs to a project."),
    ("project member-add", "projects:member_add", "", "Let a user into a project, in a role."),
    ("project member-rm", "projects:member_rm", "", "Take users out of a project."),
    ("user ls", "users:ls", "", "List users."),
    ("user show", "users:show", "", "Show one user."),
    ("user create", "users:create", "", "Create a user."),
    ("user disable", "users:disable", "", "Lock users out; what they run goes on."),
    ("user enable", "users:enable", "", "Let disabled users in again."),
    ("user passwd", "users:passwd", "", "Set a user's password."),
    ("token ls", "tokens:ls", "", "List your tokens."),
    ("token create", "tokens:create", "", "Make a token; its text is printed this once."),
    ("token rm", "tokens:rm", "", "Revoke tokens."),
    ("quota show", "quotas:show", "", "Show a project's ceilings and how much of them is used."),
    ("quota set", "quotas:set_", "", "Set a project's ceilings."),
    ("login", "session:login", SESSION, "Log in to a cloud and remember it."),
    ("logout", "session:logout", SESSION, "Revoke the token of this login and forget it."),
    ("whoami", "session:whoami", SESSION, "Show who you are to the cloud, and what you may do."),
    ("version", "session:version", SESSION, "Show the versions of this command and of the cloud."),
    ("completion", "completion:completion", SESSION, "Print a script that completes commands."),
)
ALIASES: Final = {
    "ps": "ls",
    "image ls": "list",
    "project create": "add",
    "user create": "add",
    "token create": "add",
}


def app_make() -> App:
    """Make the command line with every command of this package."""
    made = App(
        name="stratus",
        version=PRODUCT_VERSION,
        help="A cloud on one machine, or on a room full of them.",
        default_parameter=Parameter(negative=()),
        # The last word on errors and endings is `run`'s.
        print_error=False,
        exit_on_error=False,
        result_action="return_value",
        suppress_keyboard_interrupt=False,
    )
    for name, group, promise in FOLDERS:
        made.command(App(name=name, help=promise, group=group))
    for words, code, group, promise in COMMANDS:
        command_add(
            made,
            words,
            f"stratus.cli.{code}",
            promise,
            group=group,
            alias=ALIASES.get(words, ""),
        )
    return made


def command_add(
    app: App, words: str, code: str, promise: str, *, group: str = "", alias: str = ""
) -> None:
    """Add a command that is imported when it is used: `"image build"`, `"module:function"`."""
    *folder, name = words.split()
    holder = app
    for word in folder:
        holder = holder[word]
    holder.command(
        code,
        name=name,
        alias=alias or None,
        help=promise,
        group=group or ("Commands" if folder else SESSION),
    )


def run(app: App, argv: Sequence[str]) -> int:
    """Carry out one command line; whatever happens, end with a message and an exit code."""
    tokens = list(argv)
    try:
        code = _carry_out(app, tokens)
        sys.stdout.flush()
        return code
    except CycloptsError as error:
        from stratus.cli.usage import usage_trouble

        report(usage_trouble(app, error))
        return Exit.USAGE
    except Trouble as trouble:
        report(trouble)
        return trouble.exit
    except Refused as refused:
        ours = trouble_of(refused.problem)
        report(ours)
        return ours.exit
    except Later as later:
        report(
            Trouble(
                Exit.UNAVAILABLE,
                f"This cannot be done at the moment: {later.reason}.",
                remedy=f"Try again in {later.seconds:.0f} s.",
            )
        )
        return Exit.UNAVAILABLE
    except KeyboardInterrupt:
        note("stratus: interrupted.")
        return Exit.INTERRUPTED
    except BrokenPipeError:
        # Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.PIPE
    except Exception as error:
        return _bug(error)


def _carry_out(app: App, tokens: list[str]) -> int:
    if "--profile" in tokens[:1] and len(tokens) > 1:
        os.environ["STRATUS_PROFILE"] = tokens[1]
        tokens = tokens[2:]
    if tokens[:1] == ["--version"]:
        print(f"stratus {app.version}")
        return Exit.OK
    before_end = tokens[: tokens.index("--")] if "--" in tokens else tokens
    asks_help = any(token in ("--help", "-h") for token in before_end)
    if asks_help or not tokens or (len(tokens) == 1 and _is_folder(app, tokens[0])):
        from stratus.cli.usage import help_print

        return help_print(app, [t for t in before_end if t not in ("--help", "-h")])
    result = app(tokens)
    return int(result) if isinstance(result, int) else Exit.OK


def _is_folder(app: App, word: str) -> bool:
    return word in app and not word.startswith("-") and app[word].default_command is None


def _bug(error: Exception) -> int:
    import traceback

    if os.environ.get("STRATUS_DEBUG"):
        traceback.print_exception(error)
    frame = traceback.extract_tb(error.__traceback__)[-1]
    report(
        Trouble(
            Exit.BUG,
            f"This is a fault of ours: {type(error).__name__}: {error} "
            f"({os.path.basename(frame.filename)}:{frame.lineno}).",  # noqa: PTH119  # no Path needed
            remedy="Report it with the output of the same command under STRATUS_DEBUG=1.",
        )
    )
    return Exit.BUG


app: Final = app_make()
