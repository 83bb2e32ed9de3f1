"""The layer store in Docker's own layout, its graph drivers, and the archives layers travel in.

Usable and tested without the daemon. Must never know images or containers: it knows chains of layers.
"""
