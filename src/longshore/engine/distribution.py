"""Look into registries without pulling."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from longshore.engine.engine import Engine
from longshore.errors import InvalidParameter
from longshore.images.reference import parse_any
from longshore.types.registry import AuthConfig, DistributionInspect, SearchResult

_FILTERS = {"is-automated", "is-official", "stars"}
_TRUE, _FALSE = {"1", "true"}, {"0", "false"}


async def distribution_inspect(engine: Engine, name: str, auth: AuthConfig) -> DistributionInspect:
    """GET /distribution/{name}/json. Raises InvalidParameter, NotFound, System."""
    reference = parse_any(name)
    if isinstance(reference, str):
        raise InvalidParameter(f"unknown image reference format: {name}")
    return await engine.registry.inspect(reference, auth)


async def images_search(
    engine: Engine, term: str, limit: int, filters: Mapping[str, Collection[str]], auth: AuthConfig
) -> list[SearchResult]:
    """GET /images/search. Raises InvalidParameter; System if the index cannot be asked."""
    for name in filters:
        if name not in _FILTERS:
            raise InvalidParameter(f"invalid filter '{name}'")
    stars = max((_number(each) for each in filters.get("stars", ())), default=0)
    official = _boolean(filters, "is-official")
    automated = _boolean(filters, "is-automated")
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


def _boolean(filters: Mapping[str, Collection[str]], name: str) -> bool | None:
    given = set(filters.get(name, ()))
    if not given:
        return None
    if given <= _TRUE:
        return True
    if given <= _FALSE:
        return False
    raise InvalidParameter(f"invalid filter '{name}=[{' '.join(sorted(given))}]'")
