"""Images: references, configurations, load, save and import.

Uses `layers` for the file systems. Must never know containers.
"""
