"""Which fixtures are there for every test?"""

pytest_plugins = [
    "tests.fixtures_postgres",
]
