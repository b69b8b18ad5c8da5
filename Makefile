# berth: build, test and look around. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.release=$(VERSION)

# Tools are built on demand from modules of their own, which pin them.
BIN := .cache/bin
GOFUMPT := $(BIN)/gofumpt
STATICCHECK := $(BIN)/staticcheck
HCLFMT := $(BIN)/hclfmt

# What needs a real engine runs by itself, one package at a time; the rest runs
# once, with the race detector.
ENGINE := ./test/engine/...
UNIT = $(shell go list ./... | grep -v /test/engine)
GOTEST := go run ./test/gotest

# Lint vets everything already, and nobody debugs these binaries: leaving both out
# saves more than a minute on a cold machine.
LEAN := -vet=off -ldflags=-w

SEED ?=
STEPS ?= 1000000
CHECK ?=
check_flag := $(if $(filter 1,$(CHECK)),-check)

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/berth
	@mkdir -p bin
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/berth ./cmd/berth

.PHONY: run
run: setup-engine build ## run the agent in the foreground on this host's engine
	bin/berth run

.PHONY: demo
demo: setup-engine build ## show real containers getting names in DNS, and telling their metrics
	@go run ./test/demo

.PHONY: demo-bind
demo-bind: setup-bind build ## the same with the names in a zone of BIND
	@go run ./test/demo -bind

.PHONY: setup-engine setup-bind setup setup-bench
setup-engine:
	@test/setup.sh engine
setup-bind:
	@test/setup.sh bind
setup: ## install what the tests need, and start an engine where none answers
	@test/setup.sh test
setup-bench:
	@test/setup.sh bench

# The tests with an engine wait most of their time; all else takes what they leave of
# the processors, which takes a third less time than one after the other. It has a
# session of its own, of the least weight: the kernel shares processors among sessions
# before it looks at priorities (sched(7), autogroup), and the engine, whose events the
# tests wait for, is in another one.
.PHONY: test
test: setup ## run everything that decides whether a change is good
	@setsid bash -c 'echo 19 2>/dev/null >/proc/self/autogroup || true; exec nice -n 19 $(MAKE) -k --no-print-directory alone' & alone=$$!; \
	trap 'kill -- -$$alone' INT TERM HUP; code=0; \
	$(MAKE) --no-print-directory engine || code=1; \
	wait $$alone || code=1; \
	exit $$code
	@$(MAKE) --no-print-directory pitfalls

.PHONY: alone
alone: generate-check race sim lint ## run what decides that, and needs no engine

.PHONY: race
race: ## run the tests that need no engine, with the race detector
	@$(GOTEST) -json .cache/test/race.json -- -race $(LEAN) $(UNIT)

.PHONY: engine
engine: ## run the tests with a real Docker engine
	@$(GOTEST) -json .cache/test/engine.json -- -p 1 -count 1 $(LEAN) $(ENGINE)

.PHONY: sim
sim: ## run the simulation of the loop: SEED= to replay, STEPS=
	@BERTH_SIM_SEED=$(SEED) BERTH_SIM_STEPS=$(STEPS) \
		$(GOTEST) -json .cache/test/sim.json -- -v -count 1 -run '^TestSimulation$$' ./agent

.PHONY: lint
lint: $(GOFUMPT) $(STATICCHECK) $(HCLFMT) ## gofumpt, go vet, staticcheck, shellcheck, hclfmt
	@unformatted=$$($(GOFUMPT) -l $$(git ls-files --cached --others --exclude-standard -- '*.go' | grep -v /testdata/)); \
	if [ -n "$$unformatted" ]; then \
		echo "not as gofumpt would have it (run $(GOFUMPT) -w on them):"; echo "$$unformatted"; exit 1; \
	fi
	@go vet ./...
	@$(STATICCHECK) ./...
	@command -v shellcheck >/dev/null || { echo "shellcheck is missing: run make setup"; exit 1; }
	@scripts=$$(git ls-files --cached --others --exclude-standard | grep -v /testdata/ | xargs grep -lE '^#!(/usr)?/bin/(env )?(ba)?sh' -- || true); \
	shellcheck $$scripts
	@$(HCLFMT) -check -require-no-change packaging/examples/*.tf >/dev/null || \
		{ echo "not as hclfmt would have it (run $(HCLFMT) -w packaging/examples/*.tf)"; exit 1; }

.PHONY: generate
generate: ## write what is generated from the code
	@go generate ./...

# What is generated must be as generating it again leaves it. Compared with the
# tree before, not with the commit: work in progress is no error.
.PHONY: generate-check
generate-check:
	@state() { { git status --porcelain; git diff HEAD; } | sha256sum; }; \
	before=$$(state); go generate ./...; \
	if [ "$$before" != "$$(state)" ]; then \
		echo "generated files were out of date; make generate has rewritten them:"; git status --short; exit 1; \
	fi

.PHONY: pitfalls
pitfalls: ## list the known pitfalls and the tests that cover them
	@go run ./test/pitfalls

.PHONY: bench bench-loop bench-dns bench-names bench-statsd bench-advice
bench: bench-loop bench-dns bench-names bench-statsd bench-advice bench-usage bench-prune ## run all benchmarks: CHECK=1 holds the counts against the limits
bench-loop: setup-bench build ## measure the way from an engine's event to a DNS answer
	@go run ./test/bench/loop $(check_flag)
bench-dns: setup-bench build ## measure the DNS server
	@go run ./test/bench/dns $(check_flag)
bench-names: setup-bench build ## measure names in Route 53 and BIND: calls, times, memory
	@go run ./test/bench/names $(check_flag)
bench-statsd: setup-bench ## measure the statsd relay, beside others
	@go run ./test/bench/statsd $(check_flag)

bench-advice: ## score what berth advises to reserve, beside Kubernetes' autoscaler
	@go run ./test/bench/advice $(check_flag)

.PHONY: bench-prune
bench-prune: setup-bench ## measure the pruning of log folders, beside Ruby and a pruner without safety
	@go run ./test/bench/prune $(check_flag)
.PHONY: bench-usage
bench-usage: setup build ## measure what it costs to know what 100 containers use
	@go run ./test/bench/usage $(check_flag)

NIGHTLY_SEEDS ?= 1 2 3 4
NIGHTLY_STEPS ?= 20000000
FUZZ_TIME ?= 1m

.PHONY: nightly
nightly: setup ## what takes longer: long simulations, kills by the thousand, fuzzing
	@for seed in $(NIGHTLY_SEEDS); do \
		BERTH_SIM_SEED=$$seed BERTH_SIM_STEPS=$(NIGHTLY_STEPS) \
			go test -count 1 -timeout 4h -run '^TestSimulation$$' ./agent; \
	done
	@BERTH_KILLS=1000 go test -count 1 -timeout 4h ./agent/journal
	@BERTH_KILLS=1000 go test -count 1 -timeout 4h -run '^TestKill$$' ./sinks/rfc2136
	@BERTH_KILLS=1000 go test -count 1 -timeout 4h -run '^TestCrash$$' ./sinks/route53
	@BERTH_PRUNE_RUNS=10000 go test -count 1 -timeout 4h -run '^TestFaults' ./collectors/logprune
	@for pkg in $(UNIT); do \
		for target in $$(go test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "fuzz $$pkg $$target"; \
			go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZ_TIME) $$pkg; \
		done; \
	done

.PHONY: clean
clean: ## remove what the targets above have made
	rm -rf bin dist $(BIN) .cache/test

$(GOFUMPT): test/tools/gofumpt/go.mod test/tools/gofumpt/go.sum
	@mkdir -p $(BIN)
	go build -C test/tools/gofumpt -o $(CURDIR)/$@ mvdan.cc/gofumpt
$(STATICCHECK): test/tools/staticcheck/go.mod test/tools/staticcheck/go.sum
	@mkdir -p $(BIN)
	go build -C test/tools/staticcheck -o $(CURDIR)/$@ honnef.co/go/tools/cmd/staticcheck
$(HCLFMT): test/tools/hclfmt/go.mod test/tools/hclfmt/go.sum
	@mkdir -p $(BIN)
	go build -C test/tools/hclfmt -o $(CURDIR)/$@ github.com/hashicorp/hcl/v2/cmd/hclfmt
