"""One function for each route: decode, call one verb of the engine, encode.

Verbs are imported where they are called: a daemon that never prunes does not carry the code that does.
"""
