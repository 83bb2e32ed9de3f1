"""Dockerfiles: the language, the context, what is copied, and what a step is known by in the cache.

Must never know of the engine, of containers or of images: the engine runs the steps that are read here.
"""
