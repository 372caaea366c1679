# Images of CloudServe: `all` is `cloudserve serve` with its workers; `api`, `gateway`, `sandbox` and
# `frontend` are one role each, with what that role needs and no more.
#
#   docker build --target all --tag cloudserve-all .
#
# The build needs the network: crates and npm's packages, which lock files pin by hash, and upstream's
# release of the V8 library, by https alone: tools/v8.sha256 has no hash of what upstream publishes, and
# here each use is the first. It takes 20 to 30 minutes on two cores and 20 GB of disk.

# The tags are pinned here and nowhere else; tools/check-deploy holds Rust's to Cargo.toml.
ARG RUST=rust:1.95.0-bookworm
ARG NODE=node:22.21.1-bookworm-slim
ARG DEBIAN=debian:12.12-slim

FROM ${NODE} AS node

# What a build needs that does not change with the source: programs, V8, esbuild, the dashboard.
FROM ${RUST} AS toolchain
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libclang-14-dev python3 python3-pip \
    && rm -rf /var/lib/apt/lists/*
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=node /usr/local/lib/node_modules/npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm \
    && ln -s ../lib/node_modules/npm/bin/npx-cli.js /usr/local/bin/npx
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY tools tools
COPY dashboard dashboard
# Never an hour of building V8 by surprise: where upstream's release is out of reach this fails.
RUN tools/setup --no-v8-build

FROM toolchain AS build
COPY . .
# The whole workspace, as everywhere: another selection would give the engine other features.
RUN cargo build --release --locked --workspace \
    && mkdir /out \
    && strip -o /out/cloudserve target/release/cloudserve \
    && strip -o /out/cloudserve-worker target/release/cloudserve-worker \
    && cp tools/node_modules/@esbuild/linux-*/bin/esbuild /out/esbuild \
    && cp -r tools/node_modules/npm /out/npm \
    && rm -rf target

# What every image has: certificates for connections, a user, a place for data.
FROM ${DEBIAN} AS base
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates tini zlib1g \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 cloudserve \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin cloudserve \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/cloudserve
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="CloudServe" \
      org.opencontainers.image.description="Serverless functions in JavaScript and TypeScript" \
      org.opencontainers.image.source="https://github.com/cloudserve/cloudserve" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY LICENSE /usr/share/doc/cloudserve/LICENSE
WORKDIR /
# SIGTERM finishes what has begun.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 \
    CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/$HEALTH_PORT; printf 'GET /readyz HTTP/1.0\\r\\n\\r\\n' >&3; read -r _ status _ <&3; [ \"$status\" = 200 ]"]
ENTRYPOINT ["tini", "--", "cloudserve"]

# npm fetches dependencies; functions run in the worker and not in Node. Not the npm that comes with
# Node, which cannot be kept to the registry, but the one that tools/package-lock.json pins.
FROM base AS npm
COPY --from=node /usr/local/bin/node /usr/local/bin/node
COPY --from=build /out/npm /usr/local/lib/node_modules/npm
RUN ln -s ../lib/node_modules/npm/bin/npm-cli.js /usr/local/bin/npm

# The control plane. esbuild bundles; neither Node nor the worker is here.
FROM base AS api
COPY --from=build /out/esbuild /usr/local/bin/esbuild
COPY --from=build /out/cloudserve /usr/local/bin/cloudserve
ENV CLOUDSERVE_DATA_DIR=/var/lib/cloudserve \
    CLOUDSERVE_API_LISTEN=0.0.0.0:8080 \
    HEALTH_PORT=8080
VOLUME /var/lib/cloudserve
USER 10001:10001
EXPOSE 8080
CMD ["api"]

# The data plane: one program, and nothing that it writes.
FROM base AS gateway
COPY --from=build /out/cloudserve /usr/local/bin/cloudserve
ENV CLOUDSERVE_GATEWAY_LISTEN=0.0.0.0:8081 \
    HEALTH_PORT=8081
USER 10001:10001
EXPOSE 8081
CMD ["gateway"]

# Where functions run, and where npm fetches dependencies: Node is there for npm alone.
FROM npm AS sandbox
COPY --from=build /out/cloudserve-worker /usr/local/bin/cloudserve-worker
COPY --from=build /out/cloudserve /usr/local/bin/cloudserve
ENV CLOUDSERVE_DATA_DIR=/var/lib/cloudserve \
    CLOUDSERVE_SANDBOX_LISTEN=0.0.0.0:8082 \
    HEALTH_PORT=8082
VOLUME /var/lib/cloudserve
USER 10001:10001
EXPOSE 8082
CMD ["sandbox"]

# The dashboard's files, which are in the program.
FROM base AS frontend
COPY --from=build /out/cloudserve /usr/local/bin/cloudserve
ENV CLOUDSERVE_FRONTEND_LISTEN=0.0.0.0:8083 \
    HEALTH_PORT=8083
USER 10001:10001
EXPOSE 8083
CMD ["frontend"]

# API, dashboard, gateway and workers in one process tree: `cloudserve serve`. esbuild bundles, Node
# is there for npm, which fetches dependencies; functions run in the worker and not in Node.
FROM npm AS all
# The largest first: of its releases only what changed is fetched.
COPY --from=build /out/esbuild /usr/local/bin/esbuild
COPY --from=build /out/cloudserve-worker /usr/local/bin/cloudserve-worker
COPY --from=build /out/cloudserve /usr/local/bin/cloudserve
ENV CLOUDSERVE_DATA_DIR=/var/lib/cloudserve \
    CLOUDSERVE_API_LISTEN=0.0.0.0:8080 \
    CLOUDSERVE_GATEWAY_LISTEN=0.0.0.0:8081 \
    HEALTH_PORT=8080
# The root file system may be read-only; these two are written to, /tmp with little.
VOLUME /var/lib/cloudserve
USER 10001:10001
EXPOSE 8080 8081
CMD ["serve"]
