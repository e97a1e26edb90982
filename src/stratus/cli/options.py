"""Which options do many commands share? Their words and meaning, said once."""

from typing import Annotated

from cyclopts import Parameter

Reference = Annotated[str, Parameter(help="Its id or name.")]
InstanceRef = Annotated[
    str, Parameter(help="The instance: id, unique beginning of an id, or name.")
]
InstanceRefs = Annotated[
    str, Parameter(help="The instances: ids, unique beginnings of ids, or names.")
]
ProjectOption = Annotated[
    str,
    Parameter(
        name=["--project", "-p"], metavar="PROJECT", help="Another project than your default."
    ),
]
AllProjects = Annotated[
    bool,
    Parameter(name=["--all-projects", "-A"], help="Of all projects (administrators, auditors)."),
]
Limit = Annotated[int, Parameter(help="List at most so many; 0 lists up to 10000.")]
MoreRefs = Annotated[str, Parameter(metavar="REF", help="More of them.")]
