"""How does an engine's refusal reach the user? As a typed failure that carries a Problem."""

from stratus.model.problem import Problem


class DriverFailed(Exception):
    """The engine refused this one thing; its own words are in the Problem's detail."""

    def __init__(self, problem: Problem, *, transient: bool = False) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem
        self.transient = transient  # worth trying again unchanged, soon


class EngineUnreachable(Exception):
    """The engine does not answer at all: nothing is known, and nothing may be concluded."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}")
        self.problem = problem
