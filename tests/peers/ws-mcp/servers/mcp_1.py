"""The PyPI package `mcp`, version 1: one server over WebSocket, Streamable HTTP or stdio, with the fixtures that checks use.

usage: mcp_1.py ws|http|stdio [PORT]
"""

import base64
import sys

import anyio
from mcp import types
from mcp.server.lowlevel import Server

server = Server("peer-mcp-1", version="1")
state = {}
held = {}
finished = {}
least = {}
LEVELS = ["debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"]


def text(words):
    return [types.TextContent(type="text", text=words)]


def tool(name, *members, output=None):
    schema = {"type": "object", "properties": {m: {"type": "string"} for m in members}, "required": list(members)}
    return types.Tool(name=name, description=f"the fixture {name}", inputSchema=schema, outputSchema=output)


SUM = {"type": "object", "properties": {"sum": {"type": "number"}}, "required": ["sum"]}


@server.list_tools()
async def list_tools():
    return [
        tool("echo", "text"), tool("fail"), tool("hold", "key"), tool("release", "key"), tool("progress"),
        tool("log", "level", "text"), tool("remember", "key", "value"), tool("recall", "key"),
        tool("structured", output=SUM), tool("media"), tool("touch", "uri"),
    ]


@server.call_tool()
async def call_tool(name, arguments):
    context = server.request_context
    session = id(context.session)
    if name == "echo":
        return text(arguments["text"])
    if name == "fail":
        raise RuntimeError("the work went wrong, as it should")
    if name == "hold":
        key = (session, arguments["key"])
        event = held.setdefault(key, anyio.Event())
        await event.wait()
        finished[key] = finished.get(key, 0) + 1
        return text("released")
    if name == "release":
        key = (session, arguments["key"])
        if key in held:
            held.pop(key).set()
            await anyio.sleep(0.01)
        return text(str(finished.get(key, 0)))
    if name == "progress":
        token = context.meta.progressToken if context.meta else None
        if token is not None:
            for step in (1, 2, 3):
                await context.session.send_progress_notification(token, step, 3)
        return text("done")
    if name == "log":
        if LEVELS.index(arguments["level"]) >= least.get(session, 0):
            await context.session.send_log_message(level=arguments["level"], data=arguments["text"], logger="fixture")
        return text("logged")
    if name == "remember":
        state[(session, arguments["key"])] = arguments["value"]
        return text("kept")
    if name == "recall":
        return text(state.get((session, arguments["key"]), "nothing"))
    if name == "structured":
        return {"sum": 3}
    if name == "media":
        picture = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
        return [types.ImageContent(type="image", data=picture, mimeType="image/png")]
    if name == "touch":
        await context.session.send_resource_updated(arguments["uri"])
        return text("touched")
    raise ValueError(f"there is no tool {name}")


@server.list_resources()
async def list_resources():
    return [types.Resource(uri="fixture://text", name="text", mimeType="text/plain")]


@server.read_resource()
async def read_resource(uri):
    if str(uri).rstrip("/") == "fixture://text":
        return "a text"
    raise ValueError("there is no such resource")


@server.list_prompts()
async def list_prompts():
    return [types.Prompt(name="greet", arguments=[types.PromptArgument(name="name", required=True)])]


@server.get_prompt()
async def get_prompt(name, arguments):
    if name != "greet":
        raise ValueError("there is no such prompt")
    message = types.PromptMessage(role="user", content=types.TextContent(type="text", text=f"greet {arguments['name']}"))
    return types.GetPromptResult(messages=[message])


@server.set_logging_level()
async def set_level(level):
    least[id(server.request_context.session)] = LEVELS.index(level)


@server.completion()
async def complete(ref, argument, context):
    return types.Completion(values=["anna"], total=1, hasMore=False)


async def over_stdio():
    from mcp.server.stdio import stdio_server

    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


def over_ws(port):
    import uvicorn
    from mcp.server.websocket import websocket_server
    from starlette.applications import Starlette
    from starlette.routing import WebSocketRoute

    async def serve(websocket):
        async with websocket_server(websocket.scope, websocket.receive, websocket.send) as (read, write):
            await server.run(read, write, server.create_initialization_options())

    uvicorn.run(Starlette(routes=[WebSocketRoute("/mcp", serve)]), host="127.0.0.1", port=port, log_level="warning")


def over_http(port):
    import contextlib

    import uvicorn
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
    from starlette.applications import Starlette
    from starlette.routing import Mount

    manager = StreamableHTTPSessionManager(server)

    @contextlib.asynccontextmanager
    async def life(_):
        async with manager.run():
            yield

    application = Starlette(routes=[Mount("/mcp", manager.handle_request)], lifespan=life)
    uvicorn.run(application, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    how = sys.argv[1]
    if how == "stdio":
        anyio.run(over_stdio)
    else:
        {"ws": over_ws, "http": over_http}[how](int(sys.argv[2]))
