"""The role ``marketplace``: the service on its own, with uvicorn."""

from __future__ import annotations

from typing import cast

from kernel.discovery import COMPONENT_INSPECTOR, CONTRACT_CHECKER, entry_points
from kernel.process import settle
from kernel.settings import Settings
from marketplace.connect import max_package_bytes, registry_folder, trusted_witnesses
from marketplace.oidc.issuers import read_issuers
from marketplace.registry import Registry
from marketplace.rules.rule import ComponentInspector, ContractChecker
from plugin_sdk.terminal import err


def serve_registry(settings: Settings, host: str, port: int, *, open_namespaces: bool) -> None:
    """Serve the registry in the data folder until interrupted."""
    import uvicorn

    from marketplace.service import create_app, standalone_lifespan

    inspector = find_inspector()
    if inspector is None:
        _warn("No installed package can look inside components: their imports are not checked at publishing.")
    registry = Registry.open(
        registry_folder(settings),
        max_package_bytes=max_package_bytes(settings),
        inspect_component=inspector,
        check_contract=find_contract_checker() if settings.check_contracts else None,
        rules=settings.marketplace_rules,
        open_namespaces=open_namespaces,
        witnesses=trusted_witnesses(settings),
        threshold=settings.marketplace_severity,
        issuers=read_issuers(settings.marketplace_issuers),
        issuers_authority=settings.marketplace_issuers_authority,
        search_url=settings.marketplace_search_url,
    )
    app = create_app(registry, lifespan=standalone_lifespan(registry, report=_warn))
    err.print(f"Marketplace over {registry_folder(settings)}; Ctrl-C stops it.", markup=False)
    settle()
    uvicorn.run(app, host=host, port=port, log_level=settings.log_level)


def find_inspector() -> ComponentInspector | None:
    """The installed component inspector, or None if no package offers one."""
    for entry in entry_points(COMPONENT_INSPECTOR):
        return cast(ComponentInspector, entry.load())
    return None


def find_contract_checker() -> ContractChecker | None:
    """The installed checker of hooks, or None if no package offers one."""
    for entry in entry_points(CONTRACT_CHECKER):
        return cast(ContractChecker, entry.load())
    return None


def _warn(warning: str) -> None:
    err.print(warning, style="yellow", markup=False)
