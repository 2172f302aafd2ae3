"""A real llama.cpp server, started and stopped by your program, with a tiny model in the package: no key, no network.

    with local.Server() as server:
        s = gpt.Gpt(server_url=server.url)

Creating a `Server` needs the extra `local` (`pip install '.[local]'` in a clone of gpt-sdk); importing this module
does not.
"""

from .server import Server

__all__ = ["Server"]
