# The program alone on a small Debian, run by nobody in particular.
#
#   docker build -t sidepool .
#   docker run -p 3306:3306 -e SIDEPOOL_BACKEND__ADDRESSES=db.internal:3306 sidepool
#
# There is no HEALTHCHECK: images in OCI format have none. Ask /live and /ready on port 9137 instead.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --bin sidepool

FROM debian:bookworm-slim
# Certificate authorities, for backend.tls.mode = "verify_ca" and "verify_identity".
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/sidepool /usr/local/bin/sidepool
# The rest is as in config/sidepool.toml. This port answers probes and scrapers from outside the container; the
# dashboard and the API stay on the container's own 127.0.0.1:9136.
ENV SIDEPOOL_ADMIN__METRICS_ADDRESS=0.0.0.0:9137
# By number, so that Kubernetes can tell it is not root.
USER 10001:10001
EXPOSE 3306 9137
ENTRYPOINT ["/usr/local/bin/sidepool"]
