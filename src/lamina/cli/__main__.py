"""``python -m lamina.cli``: the same as ``lamina``."""

from lamina.cli.main import main

main()
