"""The PyPI packages `fastmcp` 4 and `mcp` 2: one server over Streamable HTTP, written with the decorators that both have.

usage: decorated.py fastmcp|mcp http PORT
"""

import asyncio
import base64
import sys

KIND, PORT = sys.argv[1], int(sys.argv[3])
if KIND == "fastmcp":
    from fastmcp import Context, FastMCP as Server
    from fastmcp.utilities.types import Image
else:
    from mcp.server.mcpserver import Context, Image, MCPServer as Server

server = Server(f"peer-{KIND}", version="1")
state = {}
held = {}
finished = {}


def session(ctx):
    """What tells sessions apart: their id, of which the two packages speak in different ways."""
    if KIND == "fastmcp":
        return ctx.session_id
    return (ctx.headers or {}).get("mcp-session-id", "none")


@server.tool()
def echo(text: str) -> str:
    return text


@server.tool()
def fail() -> str:
    raise RuntimeError("the work went wrong, as it should")


@server.tool()
async def hold(key: str, ctx: Context) -> str:
    name = (session(ctx), key)
    await held.setdefault(name, asyncio.Event()).wait()
    finished[name] = finished.get(name, 0) + 1
    return "released"


@server.tool()
async def release(key: str, ctx: Context) -> str:
    name = (session(ctx), key)
    if name in held:
        held.pop(name).set()
        await asyncio.sleep(0.01)
    return str(finished.get(name, 0))


@server.tool()
async def progress(ctx: Context) -> str:
    for step in (1, 2, 3):
        await ctx.report_progress(step, 3)
    return "done"


@server.tool()
async def log(level: str, text: str, ctx: Context) -> str:
    await (ctx.log(text, level=level) if KIND == "fastmcp" else ctx.log(level, text))
    return "logged"


@server.tool()
async def remember(key: str, value: str, ctx: Context) -> str:
    state[(session(ctx), key)] = value
    return "kept"


@server.tool()
async def recall(key: str, ctx: Context) -> str:
    return state.get((session(ctx), key), "nothing")


@server.tool()
def structured() -> dict[str, float]:
    return {"sum": 3}


@server.tool()
def media() -> Image:
    return Image(data=base64.b64decode("iVBORw0KGgo="), format="png")


@server.resource("fixture://text")
def text_resource() -> str:
    return "a text"


@server.prompt()
def greet(name: str) -> str:
    return f"greet {name}"


if __name__ == "__main__":
    if KIND == "fastmcp":
        server.run(transport="http", host="127.0.0.1", port=PORT, path="/mcp", show_banner=False)
    else:
        server.run(transport="streamable-http", host="127.0.0.1", port=PORT)
