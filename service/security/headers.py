"""What browsers are told with every answer."""

from collections.abc import Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Swagger UI styles its elements from its script.
_API_PAGE = _PAGE.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
# Nothing else is a page: should a browser take it for one, it has no rights at all.
_NO_PAGE = "default-src 'none'; base-uri 'none'; frame-ancestors 'none'; sandbox"

POLICIES: Mapping[str, str] = {"/": _PAGE, "/docs": _API_PAGE}

HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Not in the way of pages that CORS lets in: it is for requests without.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
"""Of every answer, whatever it is."""

_ENCODED = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]


class Headers:
    """Adds the security headers to every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on anything that is no HTTP request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        policy = POLICIES.get(scope["path"], _NO_PAGE).encode()

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message.get("headers", []),
                    *_ENCODED,
                    (b"content-security-policy", policy),
                ]
            await send(message)

        await self.app(scope, receive, answer)
