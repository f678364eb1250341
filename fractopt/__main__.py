"""`python -m fractopt`: the command line of this very Python."""

from fractopt.cli.main import main

main(prog_name="fractopt")
