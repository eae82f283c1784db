#!/bin/sh
# As the official image's entry point: options alone are redis-server's, and root is given up.
set -eu
case "${1:-}" in "" | -* | *.conf) set -- redis-server "$@" ;; esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
    chown -R redis /data
    exec setpriv --reuid redis --regid redis --init-groups "$0" "$@"
fi
exec "$@"
