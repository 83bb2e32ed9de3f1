"""Who runs the process: the TaskRuntime protocol, and one adapter a folder.

Must never know images, networks or the API: it is given a bundle's contents and file descriptors.
"""
