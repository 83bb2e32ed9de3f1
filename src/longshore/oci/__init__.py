"""From a container to its OCI runtime specification.

Pure construction: reads host facts handed to it, and must never mount, start or write anything.
"""
