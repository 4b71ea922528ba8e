"""The storefront: pages of the marketplace for people, made on the server.

``pages`` gathers what a page shows, ``rendering`` turns it into HTML, ``routes`` serves it, ``desk`` is for the
operator alone. Everything readable works without JavaScript; HTMX replaces parts where there is some.
"""

from __future__ import annotations

from marketplace.storefront.routes import add_pages

__all__ = ["add_pages"]
