"""The container itself: its record, its state machine, its store on disk, its names.

Must never start, mount or connect anything: it remembers and it guards.
"""
