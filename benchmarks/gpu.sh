#!/usr/bin/env bash
# Measures what one GPU does, in at most eight minutes: benchmarks/gpu.sh [--peer DIR] [--tiny]
#
# Runs the tests that need CUDA and the parts of gpu.py, the most important first. Writes a JSON file after each
# measurement into the folder $OUT, by default benchmarks/results/gpu. A part that takes too long is stopped.
#   --peer DIR  a checkout of junyanz/pytorch-CycleGAN-and-pix2pix, to time its steps beside ours
#   --tiny      small networks and few steps, on any device, to see that everything runs
#
# Uses no network and installs nothing. Needs bash, timeout (coreutils), and a Python with the dependencies of
# pyproject.toml, pytest, and stlpips-pytorch for emb's evaluation: $PYTHON, or else .venv/bin/python, or else python3.
# ganlab itself need not be installed.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root" || exit 1
out=${OUT:-benchmarks/results/gpu}
python=${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}
options=("$@")
mkdir -p "$out"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PYTHONPATH="$root:$root/plugins:$work${PYTHONPATH:+:$PYTHONPATH}"

# without an installed ganlab, its plugins are found by metadata made from pyproject.toml
"$python" - "$work" <<'PYTHON'
import sys, tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

try:
    version("ganlab")
except PackageNotFoundError:
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    info = Path(sys.argv[1]) / f"ganlab-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: ganlab\nVersion: {project['version']}\n")
    plugins = (f"{name} = {module}" for name, module in project["entry-points"]["ganlab"].items())
    (info / "entry_points.txt").write_text("\n".join(["[ganlab]", *plugins, ""]))
PYTHON

# part SECONDS NAME: seconds include the start of Python and the import of torch
part() {
    echo "== $2, at most $1 s"
    timeout -k 5 "$1" "$python" benchmarks/gpu.py "$2" "$out" --seconds $(($1 - 12)) ${options[@]+"${options[@]}"}
    echo "{\"part\": \"$2\", \"exit_code\": $?, \"seconds_allowed\": $1}" >>"$out/parts.jsonl"
}

rm -f "$out"/*.json "$out/parts.jsonl"
# what one part compiles, a later one need not compile again
export TORCHINDUCTOR_CACHE_DIR="$work/compiled"
echo "== tests, at most 85 s"
timeout -k 5 85 "$python" -m pytest -q -p no:cacheprovider tests/engine/test_cuda.py 2>&1 | tee "$out/tests.txt"
echo "{\"part\": \"tests\", \"exit_code\": ${PIPESTATUS[0]}, \"seconds_allowed\": 85}" >>"$out/parts.jsonl"
part 35 captured
part 110 table
part 100 compiled
part 60 peer
part 40 long
part 50 evaluation
cat "$out/parts.jsonl"
