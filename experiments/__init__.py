"""Commands: each reads top to bottom like the method section of a paper."""
