"""BuildKit's protocol: sessions with clients, what is asked of them, and what is told to them of a solve.

Knows connections and messages. It must never know the engine, nor how an image is built: that is for
`longshore.engine.builder`, which composes both. Imported by nobody before a client speaks BuildKit.
"""
