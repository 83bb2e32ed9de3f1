"""The registry client: images from and to registries that speak the OCI distribution protocol (Docker's v2).

HTTP is blocking (urllib3, imported with the first request) and runs in threads; which layer is fetched when,
and who shares it, is decided on the event loop. Every byte that comes in is verified against its digest
before anything else sees it. Must never know containers, nor decide what a name means: callers do.
"""
