"""Objects of POST /build."""

from __future__ import annotations

from longshore.types.codec import ApiStruct


class ImageBuildOutput(ApiStruct):
    """One of `outputs`: an exporter of BuildKit's."""

    Type: str = ""
    Attrs: dict[str, str] | None = None
