"""What schemathesis sends where the document says `binary`: pictures, and no pictures."""

import schemathesis
from hypothesis import strategies as st

from tests.pictures import encoded

PICTURES = [encoded(seed, form) for seed, form in enumerate(["PNG", "JPEG", "WEBP", "GIF"])]

schemathesis.openapi.format(
    "binary",
    st.sampled_from([*PICTURES, PICTURES[0][:200], b""]) | st.binary(max_size=200),
)
