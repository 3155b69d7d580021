# Postgres from distribution packages, with the manners of the official image.
FROM scratch
ADD root.tar /
COPY entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV LANG=C.UTF-8 PG_MAJOR=17 PGDATA=/var/lib/postgresql/data \
    PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin
# Initialised here, so that a container's first start takes no initdb; a volume is filled from here.
RUN install -d /docker-entrypoint-initdb.d \
 && install -d -o postgres -g postgres -m 2775 /run/postgresql \
 && install -d -o postgres -g postgres -m 0700 "$PGDATA" \
 && as_postgres="setpriv --reuid=postgres --regid=postgres --init-groups" \
 && $as_postgres initdb --auth=trust --encoding=UTF8 --no-instructions \
 && echo "listen_addresses = '*'" >> "$PGDATA/postgresql.conf" \
 && $as_postgres touch "$PGDATA/harness.untouched"
VOLUME /var/lib/postgresql/data
EXPOSE 5432
# SIGTERM would wait for every client to leave.
STOPSIGNAL SIGINT
LABEL harness.image=1
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
