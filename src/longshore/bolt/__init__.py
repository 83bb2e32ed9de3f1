"""bbolt databases, in which dockerd keeps what it knows of volumes and networks: read whole, written whole.

Nothing here knows what the keys mean. A file is never changed in place: a new one takes its name.
"""

from longshore.bolt.format import BrokenDatabase, Bucket

__all__ = ["BrokenDatabase", "Bucket"]
