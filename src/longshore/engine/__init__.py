"""What the daemon can do, a verb to a module; `start` is the heart.

Composes the parts (containers, images, layers, volumes, network, oci, runtime, logs). Must never
speak HTTP, and must never be imported by a part.
"""
