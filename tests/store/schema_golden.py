"""How is the first migration written from the schema, and how do the engines show the result?

Until the first release there is one migration. After a change of the schema:
`UPDATE_GOLDEN=1 pytest tests/store/test_migrations.py` writes it and the golden files anew.
"""

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Final

from alembic.autogenerate import produce_migrations, render_python_code
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from stratus.store.migrate import MIGRATIONS
from stratus.store.schema import METADATA

GOLDEN: Final = Path(__file__).with_name("golden")
UPDATE: Final = bool(os.environ.get("UPDATE_GOLDEN"))
FIRST: Final = MIGRATIONS / "versions" / "0001_begin.py"
HEAD: Final = '''\
"""The tables of the first release."""

# ruff: noqa: E501  # a table's comment is one line

import sqlalchemy as sa
from alembic import op

revision = "0001_begin"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
'''


def first_migration_text() -> str:
    """Write the migration that makes exactly the present schema."""
    with create_engine("sqlite://").connect() as connection:
        context = MigrationContext.configure(connection)
        made = produce_migrations(context, METADATA)
        assert made.upgrade_ops is not None
        body = render_python_code(made.upgrade_ops, migration_context=context)
    lines = [line for line in body.splitlines() if not line.lstrip().startswith("# ###")]
    # The first line comes without the indentation of the others.
    text = textwrap.dedent("    " + "\n".join(lines).lstrip())
    return ruff_formatted(HEAD + textwrap.indent(text, "    ") + "\n")


# Beside the interpreter: the environment need not be on the path.
RUFF = str(Path(sys.executable).with_name("ruff"))


def ruff_formatted(text: str) -> str:
    """Format like the rest of the code."""
    return subprocess.run(
        [RUFF, "format", "--line-length", "100", "--stdin-filename", FIRST.name, "-"],
        input=text,
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def golden_check(path: Path, text: str) -> None:
    """Compare with the golden file, or write it where the environment says so."""
    if UPDATE:
        path.write_text(text)
    assert path.exists(), f"UPDATE_GOLDEN=1 writes {path}"
    assert text == path.read_text(), f"{path.name} differs; UPDATE_GOLDEN=1 writes it anew"
