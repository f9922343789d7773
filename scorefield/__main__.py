"""``python -m scorefield``."""

from scorefield.cli import main

main()
