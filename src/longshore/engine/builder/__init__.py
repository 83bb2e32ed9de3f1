"""POST /build: a Dockerfile's instructions become images, as dockerd's classic builder makes them.

`build` is the verb; `stage` runs one stage, `run` and `copy` the instructions that make layers, `commit`
finds and makes the image of each step, `output` puts what stages say beside each other in order.
"""
