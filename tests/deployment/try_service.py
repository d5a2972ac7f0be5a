"""Start the service as its image says, and use it. Run by build_image.sh inside the container.

The argument is what `buildah inspect` says of the image, so that it is the image's own entry point
and health check that run.
"""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
from PIL import Image, ImageDraw

READY_WITHIN_S = 300


def picture(colour: str, box: tuple[int, int, int, int]) -> bytes:
    image = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(image).ellipse(box, fill=colour)
    png = io.BytesIO()
    image.save(png, "PNG")
    return png.getvalue()


def assert_confined() -> None:
    assert os.getuid() != 0, "runs as root"
    assert os.statvfs("/").f_flag & os.ST_RDONLY, "the root can be written to"


def wait_until_healthy(service: subprocess.Popen[bytes], check: list[str]) -> float:
    started = time.monotonic()
    while subprocess.run(check, check=False, stderr=subprocess.DEVNULL).returncode:
        assert service.poll() is None, f"the service ended with {service.returncode}"
        assert time.monotonic() - started < READY_WITHIN_S, "the service never got ready"
        time.sleep(0.2)
    return time.monotonic() - started


def assert_locked(command: list[str]) -> str:
    """Without a key it does not start; the secret of one that then lets it."""
    refused = subprocess.run(command, check=False, capture_output=True, text=True)
    assert refused.returncode == 2, refused
    assert "pool5 keys add" in refused.stderr, refused.stderr
    add = [command[0], "keys", "add", "trial", "--scope", "write"]
    return subprocess.run(add, check=True, capture_output=True, text=True).stdout.strip()


def upload_and_search(client: httpx.Client) -> None:
    pictures = {
        "red.png": picture("red", (20, 20, 200, 120)),
        "blue.png": picture("blue", (90, 90, 240, 240)),
    }
    files = [("files", (name, content)) for name, content in pictures.items()]
    added = client.post("/v1/collections/default/items", files=files).raise_for_status().json()
    assert [item["status"] for item in added["items"]] == ["added", "added"], added
    for item in added["items"]:
        found = client.post(
            "/v1/collections/default/search", files={"file": pictures[item["name"]]}
        ).raise_for_status()
        nearest = found.json()["neighbours"][0]
        assert nearest["id"] == item["id"], found.text
        assert nearest["score"] > 0.999, found.text
        print(f"{item['name']}: found with {nearest['score']:.4f}, {found.json()['took_ms']} ms")


def main() -> None:
    image = json.loads(sys.argv[1])["Docker"]["config"]
    assert_confined()
    secret = assert_locked(image["Entrypoint"] + image["Cmd"])
    service = subprocess.Popen(image["Entrypoint"] + image["Cmd"])
    print(f"healthy after {wait_until_healthy(service, image['Healthcheck']['Test'][1:]):.1f} s")
    with httpx.Client(
        base_url=f"http://127.0.0.1:{os.environ['POOL5_PORT']}",
        timeout=60,
        headers={"Authorization": f"Bearer {secret}"},
    ) as client:
        upload_and_search(client)
        assert "<html" in client.get("/").raise_for_status().text
        assert "# TYPE" in client.get("/metrics").raise_for_status().text
    service.send_signal(signal.SIGTERM)
    assert service.wait(30) in (0, -signal.SIGTERM), service.returncode
    print("stopped by SIGTERM; everything was written under /data:")
    print(sorted(str(path) for path in Path("/data").rglob("*") if path.is_file()))


if __name__ == "__main__":
    main()
