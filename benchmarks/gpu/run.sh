#!/usr/bin/env bash
# Speed and memory on this machine's GPU. No network: everything is in a folder of wheels and a folder of a model.
#
#   benchmarks/gpu/run.sh --wheels FOLDER --model FOLDER    about half an hour of one GPU
#   benchmarks/gpu/run.sh --dry --model FOLDER              the same scripts in miniature, without a GPU or wheels
#
# The wheels, made where there is a network, by the same Python and kind of machine:
#   pip wheel --wheel-dir FOLDER --constraint constraints.txt '.[vllm]'
set -euo pipefail

usage() { sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2; }

wheels="" model="" dry=""
while [ $# -gt 0 ]; do
  case "$1" in
    --wheels) wheels=${2:?}; shift 2 ;;
    --model) model=${2:?}; shift 2 ;;
    --dry) dry=1; shift ;;
    *) usage ;;
  esac
done
[ -d "$model" ] || usage
model=$(realpath "$model")
[ -z "$wheels" ] || wheels=$(realpath "$wheels")
cd "$(dirname "$0")/../.."
export HF_HUB_OFFLINE=1

if [ -n "$dry" ]; then
  exec "${PYTHON:-.venv/bin/python}" -m benchmarks.gpu.measure "$model" --dry
fi
[ -d "$wheels" ] || usage
if ! nvidia-smi --list-gpus >&2; then
  echo "there is no GPU here; --dry tries the scripts without one" >&2
  exit 2
fi
environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
"${PYTHON:-python3.11}" -m venv "$environment"
"$environment/bin/pip" install --quiet --no-index --find-links "$wheels" 'cotpipe[vllm]'
"$environment/bin/python" -m benchmarks.gpu.measure "$model"
