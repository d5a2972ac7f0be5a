#!/bin/sh
# Take the CUDA libraries and Triton (4 GB) out of a virtual environment that runs on the CPU only.
#
# The package registry's torch is linked against CUDA, so it does not load where the libraries are missing.
# Each of them is replaced by a stub of the same name, with the same symbols and versions, whose functions
# answer status 1 ("not initialised" in all of them), which torch raises as a RuntimeError. Two small ones
# that torch calls while it loads stay: the CUDA runtime, which then reports no device, and CUPTI.
# A CPU-only torch has nothing to remove.
#
# usage: without_cuda.sh VENV     needs gcc, nm and readelf
set -eu

venv=$1
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

stub() { # stub LIBRARY OUTPUT: the symbols of LIBRARY, answering 1
    nm -D --defined-only --format=posix "$1" | awk -v code="$scratch/stub.c" -v map="$scratch/stub.map" '
        $2 == "A" || $1 ~ /^_(init|fini)($|@)/ { next }
        { split($1, part, /@+/); if (!seen[part[1]]++) print "int " part[1] "(void) { return 1; }" > code }
        part[2] != "" { versions[part[2]] = versions[part[2]] " " part[1] ";" }
        END {
            printf "" > map
            for (version in versions) { named = 1; print version " {" versions[version] " };" > map }
            if (!named) print "{ global: *; };" > map
        }'
    gcc -shared -fPIC -ffreestanding -nostdlib -s -w -x c "$scratch/stub.c" -o "$2" \
        -Wl,-soname,"$(basename "$1")" -Wl,--version-script="$scratch/stub.map"
}

[ -d "$site/nvidia" ] || exit 0

readelf -d "$site"/torch/lib/*.so | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | sort -u |
    grep -v -E '^lib(cudart|cupti)\.' | while read -r name; do
        library=$(find "$site/nvidia" -name "$name")
        [ -z "$library" ] || stub "$library" "$site/torch/lib/$name"
    done

"$venv/bin/python" -c '
from importlib.metadata import distributions
for name in {package.name for package in distributions()}:
    if name.startswith(("nvidia-", "cuda-")) or name == "triton":
        print(name)
' | grep -v -x -E 'nvidia-cuda-(runtime|cupti)' | xargs python3 -m pip --python "$venv" uninstall --quiet --yes

"$venv/bin/python" -c '
import torch, torchvision
assert not torch.cuda.is_available()
with torch.inference_mode():
    print(torch.__version__, torchvision.models.squeezenet1_1()(torch.zeros(1, 3, 64, 64)).shape)
'
