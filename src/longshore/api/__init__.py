"""The Engine API over HTTP: listeners, versioned routes, decoding, streams, errors to status codes.

Must never decide anything about containers: every handler decodes, calls one verb of
`longshore.engine` and encodes.
"""
