"""Clients that send a byte now and then keep nobody else from an answer."""

import asyncio
import resource
import time

import pytest

from irgen.serve.access import slow_clients
from irgen.serve.access.slow_clients import Body, BrokenLimitError

HEAD = b"GET /v1/info HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def trickle(port, head, seconds):
    """Send ``head``, then a byte a second; return the seconds until the service hangs up, or None
    if it does not within ``seconds``."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(head)
    started = time.monotonic()
    try:
        while time.monotonic() - started < seconds:
            writer.write(b"a")
            try:
                if not await asyncio.wait_for(reader.read(1000), 1):
                    return time.monotonic() - started
            except TimeoutError:
                continue
    except OSError:
        return time.monotonic() - started
    finally:
        writer.close()
    return None


def search(service, seconds):
    """Ask for hits one after the other for some seconds; return the longest wait."""
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        started = time.monotonic()
        answer = service.post("/v1/search", json={"queries": [{"id": "dogs/01.png"}], "k": 3})
        assert answer.status_code == 200
        longest = max(longest, time.monotonic() - started)
        time.sleep(0.1)
    return longest


@pytest.mark.slow
@pytest.mark.parametrize("count", [1000, 10_000])
def test_slow_clients_are_hung_up_on_and_others_are_answered(
    count, serve, make_project, tmp_path, monkeypatch
):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + 500:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    service = serve(make_project(tmp_path / "project"))
    assert service.get("/readyz").status_code == 200
    port = int(service.url.rpartition(":")[2])

    async def attack():
        crowd = [trickle(port, HEAD, 60) for _ in range(count)]
        *times, longest = await asyncio.gather(*crowd, asyncio.to_thread(search, service, 20))
        return times, longest

    times, longest = asyncio.run(attack())
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    print(f"{count} slow clients: gone after {max(times):.0f} s; longest search {longest:.2f} s")
    assert max(times) < slow_clients.HEAD_SECONDS + 40  # under load
    assert longest < 15  # the crowd's process has the cores, too
    assert service.get("/readyz").status_code == 200


def test_the_head_of_a_second_request_must_come_soon_too(running, monkeypatch):
    monkeypatch.setattr(slow_clients, "HEAD_SECONDS", 0.5)
    port = int(running.url.rpartition(":")[2])
    whole = HEAD + b"\r\n"

    async def reuse():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(whole)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(1)  # what was expected before has come
        writer.write(whole)
        assert b"200 OK" in await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return await trickle(port, whole + HEAD, 30)

    assert asyncio.run(reuse()) is not None


def test_a_body_that_does_not_come_is_given_up(running, monkeypatch):
    monkeypatch.setattr(slow_clients, "BODY_SECONDS", 0.5)
    port = int(running.url.rpartition(":")[2])
    head = HEAD.replace(b"GET /v1/info", b"POST /v1/search")
    head += b"Content-Type: application/json\r\nContent-Length: 900\r\n\r\n"

    async def send():
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head + b"{")
        answer = await asyncio.wait_for(reader.read(), 30)
        writer.close()
        return answer

    answer = asyncio.run(send())
    assert answer.startswith(b"HTTP/1.1 408") and b"longer than 0.5 s to arrive" in answer


def test_a_client_may_stay_silent_after_its_request(monkeypatch):
    monkeypatch.setattr(slow_clients, "BODY_SECONDS", 0.05)

    async def wait():
        messages = [{"type": "http.request", "body": b"abc"}, {"type": "http.disconnect"}]

        async def receive():
            if len(messages) == 1:
                await asyncio.sleep(0.2)
            return messages.pop(0)

        body = Body(receive, most_bytes=3)
        await body.receive()
        assert (await body.receive())["type"] == "http.disconnect" and body.problem is None

    asyncio.run(wait())


def test_a_body_may_have_so_many_bytes():
    async def receive():
        return {"type": "http.request", "body": b"abc", "more_body": True}

    async def read():
        body = Body(receive, most_bytes=8)
        await body.receive()
        await body.receive()
        with pytest.raises(BrokenLimitError):
            await body.receive()
        return body.problem

    assert asyncio.run(read())[0] == 413
