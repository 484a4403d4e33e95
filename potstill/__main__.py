"""`python -m potstill`: the command where no command of that name is on the path."""

from potstill.cli import main

main()
