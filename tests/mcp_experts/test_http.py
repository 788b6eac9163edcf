"""The HTTP transport: who comes in, what is refused with which status, slow connections, logs."""

import asyncio
import logging
import signal
import socket

import anyio
import httpx2
import pytest
from mcp import Client

from geoml.errors import UserError
from mcp_experts.__main__ import main
from mcp_experts.serve.http import Binding, Tokens, http_app, listen

PING = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ERA = {"mcp-protocol-version": "2025-06-18"}


@pytest.mark.parametrize("era", ["auto", "legacy"])
def test_a_client_in_either_era_loads_and_asks(open_server, era):
    async def run():
        async with Client(open_server.url, mode=era) as client:
            loaded = await client.call_tool("wireless_load_synthetic", {"k_factor_db": 12, "snr_db": 20})
            source = loaded.structured_content["channel_id"]
            return await client.call_tool("wireless_ask", {"source": source, "question": "snr"})

    found = anyio.run(run)
    assert found.structured_content["question"] == "snr"
    assert found.content[0].text.startswith("The signal-to-noise ratio is good, between 15 and 25 dB")


@pytest.mark.fault("Host or Origin that only begins as an allowed one", "421 and 403: both are compared exactly")
@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({}, PING, 200),
        ({"host": "evil.example:80"}, PING, 421),
        ({"host": "localhost"}, PING, 200),
        ({"host": "LOCALHOST:1"}, PING, 200),
        ({"host": "localhost.:80"}, PING, 200),
        ({"host": "[::1]:80"}, PING, 200),
        ({"host": ""}, PING, 421),
        ({"host": "localhost:"}, PING, 421),
        ({"host": "localhost:80.evil.example"}, PING, 421),
        ({"host": "localhost.evil.example"}, PING, 421),
        ({"host": "localhost:80@evil.example"}, PING, 421),
        ({"host": "127.0.0.1:99999"}, PING, 421),
        ({"origin": ""}, PING, 403),
        ({"origin": "null"}, PING, 403),
        ({"origin": "http://localhost:3000.evil.example"}, PING, 403),
        ({"origin": "http://localhost.evil.example"}, PING, 403),
        ({"origin": "http://localhost@evil.example"}, PING, 403),
        ({"origin": "https://localhost"}, PING, 403),
        ({"origin": "https://evil.example"}, PING, 403),
        ({"origin": "http://localhost:3000"}, PING, 200),
        ({"content-type": "text/plain"}, PING, 400),
        ({}, b"x" * (2 << 20), 413),
        ({}, b"{", 400),
        ({"accept": "text/html"}, PING, 406),
    ],
)
def test_status_codes(open_server, headers, body, status):
    assert open_server.post(body, **ERA, **headers).status_code == status


PAGE = "https://app.example"


def test_pages_of_allowed_origins_may_ask(page_server, tokens):
    """A browser asks beforehand, without the token; every answer says that the page may read it."""
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, mcp-method"}
    before = httpx2.options(page_server.url, headers={"origin": PAGE, **asked})
    assert before.status_code == 204
    assert before.headers["access-control-allow-origin"] == PAGE
    assert "POST" in before.headers["access-control-allow-methods"]
    assert before.headers["access-control-allow-headers"] == "authorization, mcp-method"
    for token, status in ((tokens[0], 200), ("wrong-token-0123456789", 401)):
        found = page_server.post(PING, token=token, origin=PAGE.upper(), **ERA)
        assert found.status_code == status
        assert found.headers["access-control-allow-origin"] == PAGE.upper()
        assert "Origin" in found.headers["vary"]
    for other in ("https://app.example.evil.example", "http://app.example", "https://app.example:8443", "https://evil"):
        for method in ("OPTIONS", "POST"):
            found = httpx2.request(method, page_server.url, headers={"origin": other, **asked})
            assert found.status_code == 403
            assert "access-control-allow-origin" not in found.headers


@pytest.mark.fault("streams that a client opens and leaves idle", "405: nothing is sent unasked, so none are opened")
def test_there_is_no_stream_to_open(open_server):
    for headers in ({}, {"last-event-id": "5"}, {"mcp-session-id": "x"}):
        accept = {"accept": "text/event-stream", **headers}
        assert httpx2.get(open_server.url, headers=accept).status_code == 405
        assert httpx2.delete(open_server.url, headers=headers).status_code == 405
    listen = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen", "params": {}}
    assert open_server.post(listen, **ERA).json()["error"]["code"] == -32601


@pytest.mark.parametrize(
    "flags",
    [("--allow-host", ""), ("--allow-host", "*"), ("--allow-host", "http://a.example"), ("--allow-host", "a:0")]
    + [("--allow-origin", text) for text in ("", "*", "app.example", "https://a.example/page", "https://u@a.example")],
)
def test_names_that_would_let_in_anything_are_refused(flags, capsys):
    handlers, level = list(logging.getLogger().handlers), logging.getLogger().level
    assert main(["serve", "--http", *flags]) == 2
    assert "expected " in capsys.readouterr().err
    assert (logging.getLogger().handlers, logging.getLogger().level) == (handlers, level)  # of the calling process


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_server_with_connections_open(start_server, sent):
    child = start_server()
    slow = [socket.create_connection(("127.0.0.1", child.port)) for _ in range(50)]
    for connection in slow:
        connection.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
    assert child.post(PING, **ERA).status_code == 200
    child.process.send_signal(sent)
    assert child.process.wait(timeout=20) == 128 + sent
    for connection in slow:
        connection.close()


def test_broken_frames_get_an_answer_each(open_server, broken_frames):
    with httpx2.Client(timeout=30) as client:
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream", **ERA}
        for frame in broken_frames:
            response = client.post(open_server.url, content=frame, headers=headers)
            assert response.status_code < 500, (frame[:200], response.text)
            assert "NaN" not in response.text
    assert open_server.post(PING, **ERA).status_code == 200
    assert open_server.process.poll() is None


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'\xef\xbb\xbf{"jsonrpc":"2.0","id":1,"method":"tools/list"}', 200, None),
        (b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]', 400, "batches are not taken over HTTP"),
        (b"null", 400, "not a JSON-RPC 2.0 request or notification"),
        (b'{"jsonrpc":"2.0","id":7,"method":5}', 400, "not a JSON-RPC 2.0 request or notification"),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":{"a":"\\ud83d"}}', 400, "the body is not valid JSON"),
    ],
)
def test_a_body_that_is_no_message_is_answered_in_one_line(open_server, body, status, message):
    found = open_server.post(body, **ERA)
    assert found.status_code == status
    if message:
        assert message in found.json()["error"]["message"]
        assert found.json()["id"] == (7 if b'"id":7' in body else None)


def test_tokens_let_in_and_own_channels(guarded_server, tokens):
    first, second = tokens
    assert guarded_server.post(PING).status_code == 401
    assert guarded_server.post(PING, token="wrong-token-0123456789").status_code == 401
    assert guarded_server.post(PING, token=first, **ERA).status_code == 200
    loaded = guarded_server.call("wireless_load_synthetic", {}, token=first)
    arguments = {"source": loaded["structuredContent"]["channel_id"]}
    assert not guarded_server.call("wireless_drop_channel", arguments, token=first)["isError"]
    loaded = guarded_server.call("wireless_load_synthetic", {}, token=first)
    arguments = {"source": loaded["structuredContent"]["channel_id"]}
    foreign = guarded_server.call("wireless_drop_channel", arguments, token=second)
    assert foreign["isError"]
    assert "or pass the path of its file" in foreign["content"][0]["text"]


def test_other_machines_come_in_only_with_names_and_tokens(tokens):
    tokens = Tokens(tokens)
    for binding, known in (
        (Binding("0.0.0.0"), None),
        (Binding("0.0.0.0"), tokens),
        (Binding("0.0.0.0", allowed_hosts=("host.example",)), None),
        (Binding("192.0.2.1", allowed_hosts=("host.example",)), None),
        (Binding("host.example"), tokens),
    ):
        with pytest.raises(UserError, match="--allow-host"):
            http_app({}, binding, known)
    assert http_app({}, Binding("0.0.0.0", allowed_hosts=("host.example",)), tokens)
    assert http_app({}, Binding("::1"), None)
    assert Binding("::1", 80).origin == "http://[::1]:80"
    with pytest.raises(UserError, match="fewer than"):
        Tokens(["short"])


@pytest.mark.parametrize(
    ("host", "wrong"), [("127.0.0.1", "in use"), ("localhost", "in use"), ("nowhere.invalid", "not known")]
)
def test_an_address_that_is_not_to_be_had_is_told_in_one_line(monkeypatch, capsys, tokens, host, wrong):
    monkeypatch.setenv("MCP_EXPERTS_TOKEN", tokens[0])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["serve", "--http", "--host", host, "--port", port, "--allow-host", host]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cannot listen on {host}, port {port} (")
    assert wrong in line
    assert "choose another --port or --host" in line


def test_a_name_of_several_addresses_is_listened_on_where_it_can(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    known = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in ("192.0.2.1", "127.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: known)
    (listening,) = listen(Binding("localhost", port))
    with listening:
        assert listening.getsockname() == ("127.0.0.1", port)


def test_small_answers_are_sent_at_once():
    """asyncio turns Nagle's algorithm off of what is accepted, where the listening socket names TCP."""
    (listening,) = listen(Binding("127.0.0.1", 0))

    async def accepted() -> int:
        found = asyncio.get_running_loop().create_future()

        async def serve(_, writer):
            found.set_result(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(serve, sock=listening):
            _, writer = await asyncio.open_connection(*listening.getsockname())
            writer.close()
            return await found

    assert asyncio.run(accepted())


def test_flags_of_http_are_not_passed_over_without_it(capsys):
    assert main(["serve", "--port", "9000", "--allow-host", "here.example"]) == 2
    assert "--port, --allow-host without --http; add --http" in capsys.readouterr().err


def test_slow_and_silent_connections_are_closed_and_hold_nobody_up(start_server):
    """Heads and bodies that do not come in time end the connection; meanwhile others are served."""
    child = start_server()
    slow = [socket.create_connection(("127.0.0.1", child.port)) for _ in range(300)]
    for number, connection in enumerate(slow):
        if number % 3 == 1:
            connection.sendall(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ")
        if number % 3 == 2:
            head = f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{child.port}\r\nContent-Type: application/json\r\n"
            connection.sendall(f"{head}Content-Length: 100\r\n\r\n{{".encode())
    assert child.post(PING, **ERA).status_code == 200
    for connection in slow:
        connection.settimeout(60)
        while connection.recv(4096):
            pass
        connection.close()
    assert "Traceback" not in child.close()


def test_logs_hold_no_data(start_server):
    child = start_server()
    secret = "secret-in-arguments"
    child.call("wireless_ask", {"source": f"ch_{secret}", "question": secret})
    child.call("wireless_ask", {"source": secret, "question": "snr", secret: 1})
    child.call("wireless_describe", {"source": secret})
    child.post(b'{"secret-in-arguments"')
    assert secret not in child.close()
