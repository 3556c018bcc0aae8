"""What a hostile file would do if a reader ran code from it."""

CODE_RAN = "code-ran"
"""File in the working folder of a case; it is there where something of the file was run."""
CODE = f"touch {CODE_RAN}"
