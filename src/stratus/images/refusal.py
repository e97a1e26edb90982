"""How is a document refused that does not prove what it should?"""

from typing import Any

from stratus.model.problem import Refused, refuse


def invalid(detail: str, *, remedy: str = "", **context: Any) -> Refused:  # noqa: ANN401  # becomes JSON
    """Make the refusal of an endorsement, ready to raise."""
    usual = "Ask the endorser for the document as it was made, or endorse the image yourself."
    return refuse("endorsement_invalid", detail, remedy=remedy or usual, **context)
