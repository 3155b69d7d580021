#!/bin/sh
# Entry point of the Redis image: like the official one, it runs the server as user redis in /data and,
# unless the caller says otherwise, without protected mode (a container's clients are never local).
set -eu

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ] || [ "${1%.conf}" != "$1" ]; then set -- redis-server "$@"; fi

case "$1" in
redis-server | redis-sentinel)
    said=no
    for word in "$@"; do
        case "$word" in
        *protected-mode*) said=yes ;;
        *.conf) if [ -r "$word" ] && grep -q '^[[:space:]]*protected-mode' "$word"; then said=yes; fi ;;
        esac
    done
    if [ "$said" = no ]; then set -- "$@" --protected-mode no; fi
    if [ "$(id -u)" = 0 ]; then
        find . \! -user redis -exec chown redis:redis {} +
        exec setpriv --reuid=redis --regid=redis --init-groups "$@"
    fi
    ;;
esac
exec "$@"
