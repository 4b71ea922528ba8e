"""``python -m sandbox.guest_process``: started by the platform alone, which speaks to it over its standard streams."""

import sys

from sandbox.guest_process.worker import main

sys.exit(main())
