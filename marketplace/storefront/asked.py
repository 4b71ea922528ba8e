"""What somebody looks for, as an address says it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from kernel.hookspecs import CONTRACT_GENERATIONS
from plugin_sdk.services import SearchFilters

FACETS = {"publisher": "Publisher", "capability": "May", "keyword": "Keyword", "license": "Licence"}
SORTS = {"best": "Best match", "newest": "Newest release", "downloads": "Most downloads", "name": "Name"}
PAGE, MOST = 20, 100


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody looks for, as the address says it."""

    q: str = ""
    publisher: str = ""
    capability: str = ""
    keyword: str = ""
    license: str = ""
    all: bool = False
    sort: str = "best"
    show: int = PAGE

    @property
    def filters(self) -> SearchFilters:
        """As search takes it."""
        narrowed = (self.publisher or None, self.license or None, self.capability or None, self.keyword or None)
        return SearchFilters(*narrowed, contracts=() if self.all else CONTRACT_GENERATIONS)

    @property
    def narrowed(self) -> dict[str, str]:
        """The facets that are chosen."""
        return {facet: getattr(self, facet) for facet in FACETS if getattr(self, facet)}

    def link(self, **changed: Any) -> str:
        """The query of the same search with something changed; what is as it begins is left out."""
        begins = Asked()
        values = {name: changed.get(name, getattr(self, name)) for name in self.__dataclass_fields__}
        if not changed.keys() & {"show"}:
            values["show"] = begins.show
        told = {n: int(v) if isinstance(v, bool) else v for n, v in values.items() if v != getattr(begins, n)}
        return "?" + urlencode(told)
