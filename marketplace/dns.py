"""What a domain says of a namespace: a TXT record at ``_keelstone.<domain>``, looked up with dnspython."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from kernel.errors import ValidationFailed

if TYPE_CHECKING:
    from dns.resolver import Resolver

TxtLookup = Callable[[str], Collection[str] | None]
"""The texts of a name's TXT records; None if nobody could be asked just now."""
LOOKUP_SECONDS = 5.0
_DOMAIN = re.compile(r"^(?=.{4,240}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]*[a-z0-9]$")


def checked_domain(domain: str) -> str:
    """The domain in lower case, without a dot at its end. Raises ValidationFailed unless it is one of names in ASCII
    (``xn--`` for others): an address is no domain."""
    found = domain.strip().lower().removesuffix(".")
    if not _DOMAIN.match(found):
        raise ValidationFailed(
            f"{domain[:100]!r} is not a domain.",
            expected="a name such as acme.example, others than ASCII in their xn-- form",
            found=domain[:100],
        )
    return found


def record_name(domain: str) -> str:
    """Where the record is."""
    return f"_keelstone.{domain}"


def record_text(publisher: str) -> str:
    """What the record says."""
    return f"keelstone-namespace={publisher}"


def look_up(name: str, resolver: Resolver | None = None) -> Collection[str] | None:
    """See :data:`TxtLookup`; asks the resolvers of this machine unless another is given. Blocks for 5 s at most."""
    import dns.exception
    import dns.resolver

    try:
        asked = resolver or dns.resolver.Resolver()
        answer = asked.resolve(f"{name}.", "TXT", lifetime=LOOKUP_SECONDS, search=False)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()
    except (dns.exception.DNSException, OSError):
        return None
    return [b"".join(record.strings).decode("utf-8", "replace") for record in answer]
