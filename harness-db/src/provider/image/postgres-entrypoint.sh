#!/bin/bash
# Entry point of the Postgres image: understands the settings of the official image
# (POSTGRES_USER, _PASSWORD, _DB, _HOST_AUTH_METHOD, _INITDB_ARGS, PGDATA, /docker-entrypoint-initdb.d).
# The cluster was initialised when the image was built, so that a first start costs no initdb.
set -euo pipefail

if [ $# -eq 0 ] || [ "${1#-}" != "$1" ]; then set -- postgres "$@"; fi
if [ "$1" != postgres ]; then exec "$@"; fi

as_postgres=()
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chmod 0700 "$PGDATA"
    chown postgres:postgres /run/postgresql
    # A bind mount or a tmpfs comes as root's.
    find "$PGDATA" \! -user postgres -exec chown postgres:postgres {} +
    as_postgres=(setpriv --reuid=postgres --regid=postgres --init-groups)
fi

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
password=${POSTGRES_PASSWORD:-}
auth=${POSTGRES_HOST_AUTH_METHOD:-scram-sha-256}
untouched=$PGDATA/harness.untouched # left by the build: nobody has started this cluster yet

if [ ! -s "$PGDATA/PG_VERSION" ] || [ -e "$untouched" ]; then
    if [ -z "$password" ] && [ "$auth" != trust ]; then
        echo 'Error: set POSTGRES_PASSWORD, or POSTGRES_HOST_AUTH_METHOD=trust to accept connections without one.' >&2
        exit 1
    fi
    if [ -e "$untouched" ] && { [ "$user" != postgres ] || [ -n "${POSTGRES_INITDB_ARGS:-}" ]; }; then
        find "$PGDATA" -mindepth 1 -delete # the built cluster has another owner or other settings
    fi
    if [ ! -s "$PGDATA/PG_VERSION" ]; then
        eval "\"\${as_postgres[@]}\" initdb --pgdata=\"\$PGDATA\" --username=\"\$user\" --auth=trust --encoding=UTF8 --no-instructions ${POSTGRES_INITDB_ARGS:-}"
        echo "listen_addresses = '*'" >>"$PGDATA/postgresql.conf"
    fi
    access="host all all all $auth"
    grep -qxF "$access" "$PGDATA/pg_hba.conf" || echo "$access" >>"$PGDATA/pg_hba.conf"

    scripts=(/docker-entrypoint-initdb.d/*)
    if [ -n "$password" ] || [ "$database" != postgres ] || [ -e "${scripts[0]}" ]; then
        # Of a first start that was killed: pg_ctl would take it for a sign that the server of today is up, since process
        # numbers repeat in a container.
        rm -f "$PGDATA/postmaster.pid"
        # Reachable by the socket only, so that nobody takes the half-made cluster for a ready one.
        "${as_postgres[@]}" pg_ctl --pgdata="$PGDATA" --wait --silent \
            --options="-c listen_addresses='' -c fsync=off -c logging_collector=off" start
        query=(psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$user")
        if [ -n "$password" ]; then
            "${query[@]}" --dbname=postgres --set=user="$user" --set=password="$password" <<<'ALTER ROLE :"user" PASSWORD :'"'password'"';'
        fi
        if [ "$database" != postgres ]; then
            # Only if it is not there: the first start may have been killed right after this.
            "${query[@]}" --dbname=postgres --set=database="$database" <<'SQL'
SELECT format('CREATE DATABASE %I', :'database')
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'database') \gexec
SQL
        fi
        for script in "${scripts[@]}"; do
            # shellcheck disable=SC1090 # somebody else's script, by design
            case "$script" in
            *.sh) if [ -x "$script" ]; then "$script"; else . "$script"; fi ;;
            *.sql) "${query[@]}" --dbname="$database" --file="$script" ;;
            *.sql.gz) gunzip -c "$script" | "${query[@]}" --dbname="$database" ;;
            esac
        done
        "${as_postgres[@]}" pg_ctl --pgdata="$PGDATA" --wait --silent --mode=fast stop
    fi
    rm -f "$untouched"
fi

exec "${as_postgres[@]}" "$@"
