#!/usr/bin/env bash
# Install acr-ray on a node of a `ray up` cluster, with the versions that its tests pass with. Again is quick.
set -euo pipefail
cd "$HOME/acr-ray"
chmod 700 "$HOME/.ray"
chmod 600 "$HOME/.ray/auth_token"

python=""
fits='import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
for candidate in python3.12 python3.13 python3.11 python3; do
  if "$candidate" -c "$fits" 2>/dev/null; then
    python="$candidate"
    break
  fi
done
if [ -z "$python" ]; then
  echo "acr-ray needs Python 3.11 to 3.13 with venv on every node; on Ubuntu 24.04: apt-get install python3-venv" >&2
  exit 2
fi

# Ray starts workers of the same Python only: the same image, and so the same candidate, on all nodes.
[ -x "$HOME/acr-ray-venv/bin/python" ] || "$python" -m venv "$HOME/acr-ray-venv"
"$HOME/acr-ray-venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt . "$@"

# shellcheck disable=SC2016 # for the shells to come to expand
line='[ ! -f "$HOME/acr-ray/cluster/ray-up/node.sh" ] || . "$HOME/acr-ray/cluster/ray-up/node.sh"'
grep -qxF "$line" "$HOME/.bashrc" || echo "$line" >>"$HOME/.bashrc"
