# The image of postgresql.yaml, from Debian's packages:
#   docker build -t postgresql:15 - <deploy/samples/postgresql.Dockerfile
FROM debian:bookworm-slim
# The user first, so that its number is one that a manifest can name. Debian
# would make a database on installation, and JIT compilation would bring LLVM.
RUN groupadd --system --gid 999 postgres \
 && useradd --system --uid 999 --gid postgres --home-dir /var/lib/postgresql --no-create-home postgres \
 && mkdir -p /etc/postgresql-common \
 && echo create_main_cluster=false >/etc/postgresql-common/createcluster.conf \
 && apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends postgresql-15 \
 && rm -rf /usr/lib/postgresql/15/lib/llvmjit.so /usr/lib/postgresql/15/lib/bitcode /usr/lib/*-linux-gnu/libLLVM* /usr/lib/*-linux-gnu/libz3* \
    /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf /var/log/* /usr/share/doc /usr/share/i18n /usr/share/locale \
 && /usr/lib/postgresql/15/bin/postgres --version
ENV PATH=/usr/lib/postgresql/15/bin:/usr/local/bin:/usr/bin:/bin
USER 999:999
# To PostgreSQL SIGINT is: do not wait for clients to leave, and stop in order.
STOPSIGNAL SIGINT
CMD ["postgres"]
