"""StratusLab: turn one machine, or a room full of them, into a cloud."""

__version__ = "0.1.0"
