"""What do we say when a guarded change met nothing?"""

from stratus.model.problem import Refused, refuse


def stale_refused(noun: str, subject: str, *, exists: bool) -> Refused:
    """Say that somebody was faster, or that there is no such thing."""
    if not exists:
        return refuse(
            "not_found",
            f"There is no {noun} {subject}.",
            remedy=f"List what there is, and check the id of the {noun}.",
        )
    return refuse(
        "stale",
        f"The {noun} {subject} was changed since you read it.",
        remedy="Read it again, and repeat the change if it is still wanted.",
    )
