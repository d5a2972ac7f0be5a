"""A search by an upload as it goes over the wire, for clients without an HTTP library.

On the cores that it shares with the service a library would take time that counts as the service's.
"""

from functools import cache


@cache
def request(port: int, path: str, content: bytes, *, closing: bool = False) -> bytes:
    """The bytes of the whole request; `closing` asks that the connection ends with the answer.

    Remembered, as the same few pictures are sent over and over.
    """
    part = b'--b\r\nContent-Disposition: form-data; name="file"; filename="query"\r\n\r\n'
    body = part + content + b"\r\n--b--\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Connection: {'close' if closing else 'keep-alive'}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
