#!/bin/sh
# Fetch BGE-M3 into models/bge-m3 (2.3 GB), or go on where it stopped. Same as `flask model download`.
set -eu
cd "$(dirname "$0")"
make --no-print-directory model
