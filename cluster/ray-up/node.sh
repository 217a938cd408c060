# shellcheck shell=bash
# What every node of a `ray up` cluster has in its environment: sourced by ~/.bashrc and before each `ray start`.
# Jobs inherit it from the head, so drivers and nodes agree (they must, for the token and for the health checks).

export PATH="$HOME/acr-ray-venv/bin:$PATH"
export RAY_USAGE_STATS_ENABLED=0

# The token lies in a file that only this user can read; `ray up` copies it there (file_mounts).
export RAY_AUTH_MODE=token
export RAY_AUTH_TOKEN_PATH="$HOME/.ray/auth_token"

# `ray job stop` sends SIGTERM and waits this long before SIGKILL: time for a checkpoint. Ray's default is 3 s.
export RAY_JOB_STOP_WAIT_TIME_S=30

# How soon a silent node is given up. With these five, 8 to 12 s until it is marked dead and 23 to 29 s until its
# work goes on elsewhere; Ray's defaults take 65 s and about 7 minutes. The price: a link that is cut for 20 s costs
# the node (it must be started anew), which the defaults survive. Delete the five lines to go back to the defaults.
export RAY_health_check_period_ms=1000
export RAY_health_check_timeout_ms=2000
export RAY_health_check_failure_threshold=4
export RAY_grpc_client_keepalive_time_ms=5000
export RAY_grpc_client_keepalive_timeout_ms=5000

# gloo and NCCL take the first interface they find, which on hosts with containers or several networks is often the
# wrong one. The one of the default route is a better guess; set both yourself where that is not the fast network.
if [ -z "${GLOO_SOCKET_IFNAME:-}" ]; then
  GLOO_SOCKET_IFNAME="$(ip -o route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)"
  if [ -n "$GLOO_SOCKET_IFNAME" ]; then
    export GLOO_SOCKET_IFNAME NCCL_SOCKET_IFNAME="${NCCL_SOCKET_IFNAME:-$GLOO_SOCKET_IFNAME}"
  fi
fi

# Ray holds a socket for each pair of workers.
ulimit -n 65536 2>/dev/null || ulimit -n "$(ulimit -Hn)"
