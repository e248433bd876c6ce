.DEFAULT_GOAL := help
BIN     := bin
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X github.com/seed-452fa805/siptrace/internal/app.Version=$(VERSION)
FUZZTIME ?= 30s

.PHONY: help build test race fuzz bench faults lint up

help: ## show this
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## the four programs, into bin/
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o $(BIN)/ ./cmd/...

test: ## install what tests need, then lint and run every test with the race detector
	./scripts/test.sh

race: ## every test with the race detector, nothing installed
	go test -race ./...

fuzz: ## every fuzz target for FUZZTIME (30s)
	FUZZTIME=$(FUZZTIME) ./scripts/fuzz.sh

bench: build ## micro-benchmarks, then the whole pipeline; prints a table
	./scripts/bench.sh

faults: ## kills, stops and fills up every part under load; prints a table
	./scripts/faults.sh

lint: ## gofmt, vet, staticcheck
	./scripts/lint.sh

up: ## NATS, a tap and a db-writer on SQLite in one process
	go run ./cmd/ctl up
