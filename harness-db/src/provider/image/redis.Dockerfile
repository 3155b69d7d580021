# Redis and Sentinel from distribution packages, with the manners of the official image.
FROM scratch
ADD root.tar /
COPY entrypoint.sh /usr/local/bin/docker-entrypoint.sh
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
EXPOSE 6379
LABEL harness.image=1
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["redis-server"]
