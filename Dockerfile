# One image with siptrace's four programs and nothing else: no shell, no
# package manager, no root. Compose, or docker run, says which one to start:
#
#   docker build -t siptrace .
#   docker run --rm siptrace tap --help

FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath \
      -ldflags "-s -w -X github.com/seed-452fa805/siptrace/internal/app.Version=${VERSION}" \
      -o /out/ ./cmd/tap ./cmd/hep-forwarder ./cmd/db-writer ./cmd/ctl \
 && mkdir /state

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/ /usr/local/bin/
# What a process keeps of its own; a volume made here belongs to the user below.
COPY --from=build --chown=65532:65532 /state /var/lib/siptrace
ENV PATH=/usr/local/bin STATE_DIRECTORY=/var/lib/siptrace
USER 65532:65532
WORKDIR /var/lib/siptrace
CMD ["ctl", "--help"]
