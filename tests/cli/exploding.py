"""A command with a fault, as no command should be."""


def explode() -> None:
    """Explode."""
    print(1 // 0)
