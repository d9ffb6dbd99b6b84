"""`python -m goldimg.cli`, where the program itself is not installed."""

from goldimg.cli import main

main()
