"""Look into registries without pulling."""

from __future__ import annotations

from longshore.engine.engine import Engine
from longshore.errors import InvalidParameter
from longshore.images.reference import parse_any
from longshore.types.filters import Filters, boolean_filter, check_filters
from longshore.types.registry import AuthConfig, DistributionInspect, SearchResult

_FILTERS = {"is-automated", "is-official", "stars"}


async def distribution_inspect(engine: Engine, name: str, auth: AuthConfig) -> DistributionInspect:
    """GET /distribution/{name}/json. Raises InvalidParameter, NotFound, System."""
    reference = parse_any(name)
    if isinstance(reference, str):
        raise InvalidParameter(f"unknown image reference format: {name}")
    return await engine.registry.inspect(reference, auth)


async def images_search(
    engine: Engine, term: str, limit: int, filters: Filters, auth: AuthConfig
) -> list[SearchResult]:
    """GET /images/search. Raises InvalidParameter; System if the index cannot be asked."""
    check_filters(filters, _FILTERS)
    stars = max((_number(each) for each in filters.get("stars", ())), default=0)
    official = boolean_filter(filters, "is-official")
    automated = boolean_filter(filters, "is-automated")
    if automated:
        return []  # Automated builds are no more; dockerd answers so, too.
    found = await engine.registry.search(term, limit, auth)
    return [
        result for result in found if result.star_count >= stars and official in (None, result.is_official)
    ]


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidParameter(f"invalid filter 'stars=[{text}]'") from None
