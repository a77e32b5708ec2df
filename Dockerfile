# The one image of Plinth: node agent, controller and standalone plugin.
FROM golang:1.26-bookworm AS build
ARG VERSION=dev
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY driver driver
COPY provisioner provisioner
# grpcnotrace leaves out a tracer whose templates would keep every method of
# every type that Kubernetes has: half of each program.
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -tags grpcnotrace -o /out/ \
    -ldflags "-s -w -X main.version=${VERSION}" ./cmd/plinth ./cmd/plinth-controller

# xfsprogs brings Python and ICU for one command that Plinth never runs, so
# only those that it does run are taken from it.
FROM debian:bookworm-slim AS xfs
RUN apt-get update \
 && apt-get install -y --no-install-recommends xfsprogs

FROM debian:bookworm-slim
# All that the node agent runs: mkfs.ext4, e2fsck, resize2fs and tune2fs,
# mkfs.xfs and xfs_db, and blkid and wipefs, which Debian always has. The last
# lines prove that those of xfsprogs have their libraries. Mounts, quotas and
# loop devices are system calls.
COPY --from=xfs /usr/sbin/mkfs.xfs /usr/sbin/xfs_db /usr/sbin/
RUN apt-get update \
 && apt-get install -y --no-install-recommends e2fsprogs libedit2 libinih1 liburcu8 \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf /var/log/* \
 && mkfs.xfs -V \
 && xfs_db -V
COPY --from=build /out/plinth /out/plinth-controller /usr/local/bin/
LABEL org.opencontainers.image.title="plinth" \
      org.opencontainers.image.description="Local persistent storage for Kubernetes" \
      org.opencontainers.image.licenses="Apache-2.0"
# The controller needs no more than this. The chart runs the node agent as
# root, because it mounts filesystems.
USER 65532:65532
ENTRYPOINT ["/usr/local/bin/plinth"]
