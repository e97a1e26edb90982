"""What can be done on the machine itself? The command line, clients' part and machine's part."""

import gc
import sys
from typing import Final

# A short command is over before there is much to collect; looking for it costs a tenth.
gc.set_threshold(50_000, 20, 20)

from stratus.cli.app import MACHINE, app, command_add, run  # noqa: E402  # after the line above, on purpose

HERE: Final = "stratus.site.commands:"

# Each line: the words, the function, what it promises.
COMMANDS: Final = (
    ("up", "up", "Start the cloud of this machine, setting it up if need be."),
    ("down", "down", "Stop the control plane; instances run on."),
    ("status", "status", "Say whether the cloud of this machine runs and is well."),
    ("serve", "serve", "Run the control plane in the foreground, all roles or some."),
    ("doctor", "doctor", "Check this machine and say what to mend."),
    ("demo", "demo", "From nothing to a command in a real guest over ssh."),
    ("image build", "image_build", "Make the built-in appliance from distribution packages."),
    ("image sign", "image_sign", "Endorse an image with a key of this machine."),
    ("db migrate", "db_migrate", "Bring the store's schema up to date."),
    ("db check", "db_check", "Check the store: its engine, its references, our own rules."),
    ("db backup", "db_backup", "Copy the store to a file, also while it is in use."),
    ("db restore", "db_restore", "Put a backup in the place of the store."),
    ("sim", "sim", "Run a whole cloud in virtual time under seeded faults."),
)


def main() -> int:
    """Carry out one command line and return its exit code."""
    from cyclopts import App

    folder = App(name="db", help="Back up, restore, check and migrate the store.", group=MACHINE)
    app.command(folder)
    for words, function, promise in COMMANDS:
        group = "" if " " in words else MACHINE
        command_add(app, words, HERE + function, promise, group=group)
    return run(app, sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
