"""Container output and input: the pump that reads it, the drivers that keep it, the readers, the attachers.

Must never know how the process was started: it is given file descriptors.
"""
