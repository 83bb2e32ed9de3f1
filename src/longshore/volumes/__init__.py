"""Named volumes and the drivers that hold them.

Must never know containers: who uses a volume is told to it as a reference.
"""
