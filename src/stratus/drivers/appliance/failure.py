"""Why can the appliance not be built, and what can the administrator do about it?"""


class ApplianceFailed(Exception):
    """The appliance was not built; nothing was published, and the remedy says what to try."""

    def __init__(self, title: str, *, remedy: str) -> None:
        super().__init__(f"{title} {remedy}")
        self.title = title
        self.remedy = remedy
