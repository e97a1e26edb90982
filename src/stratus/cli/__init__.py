"""The command line: an HTTP client that says what happens, what went wrong, and what to do."""
