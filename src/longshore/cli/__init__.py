"""The commands: `longshored`, the daemon, and `longshore` for what the docker CLI has no word for.

Must never hold engine logic: it parses flags, builds a `Config` and hands over.
"""
