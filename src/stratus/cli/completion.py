"""How does a shell complete our commands? By a script that cyclopts makes from the commands."""

from typing import Annotated, Literal

from cyclopts import Parameter

from stratus.cli.output import say


def completion(
    shell: Annotated[Literal["bash", "zsh", "fish"], Parameter(help="Your shell.")], /
) -> None:
    """Print a script that completes commands.

    $ stratus completion bash > /etc/bash_completion.d/stratus
    $ stratus completion zsh > ~/.zsh/completions/_stratus
    $ stratus completion fish > ~/.config/fish/completions/stratus.fish
    """
    from stratus.cli.app import app

    say(app.generate_completion(prog_name="stratus", shell=shell).rstrip("\n"))
