"""A real llama.cpp server inside this process, with a tiny model in the package: no key, no network, no download.

    with local.Server() as server:
        s = gpt.Gpt(server_url=server.url)

It needs the extra: pip install 'gpt-sdk[local]'. Importing this module does not; making a Server does.
"""

from .server import Server

__all__ = ["Server"]
