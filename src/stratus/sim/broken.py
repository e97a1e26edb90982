"""How does a simulation stop short? Two ways, neither of which the code under test can catch."""


class Broken(BaseException):
    """What must never happen has happened: the seed fails."""


class Crash(BaseException):
    """A process ended here, as with kill -9."""
