"""``python -m api.cli``: the command ``keelstone`` without its console script."""

from api.cli import main

main()
