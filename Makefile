# Needs Go (go.mod says which) and make; Go fetches the rest by itself.

GO ?= go
# ARGS are flags for demo and run: make demo ARGS='--natives 3 --for 1m'.
ARGS ?=
# FUZZTIME is how long each fuzz target runs; 1000x counts runs instead.
FUZZTIME ?= 10s

# A build of a tag is a release; any other tells its commit, if git is there to ask.
release = $(shell git describe --tags --exact-match --dirty --match 'v[0-9]*' 2>/dev/null)

.PHONY: help build test figures lint fuzz demo run tidy go
.DEFAULT_GOAL = help

help: ## Say what there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

build: go ## Build bin/ocnode, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(if $(release),-X main.release=$(release:v%=%))' -o bin/ocnode ./cmd/ocnode

test: go ## Run every test, under the race detector
	@race=-race; \
	if [ "$$($(GO) env CGO_ENABLED)" != 1 ]; then \
		race=; echo 'no C compiler (or CGO_ENABLED=0), so the race detector is off; install gcc for the whole test' >&2; \
	fi; \
	echo "$(GO) test $$race ./..."; $(GO) test $$race ./...

figures: go ## Run the simulated network and the end-to-end test, and show what they measure
	$(GO) test -count=1 -v -run '^TestSim' ./modules
	$(GO) test -count=1 -v ./cmd/ocnode

lint: go ## Check format, vet, staticcheck and both go.mod
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l -s .) || exit; \
	if [ -n "$$unformatted" ]; then echo "not formatted, mend with make tidy:" $$unformatted >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) tool -modfile=.ci/tools/go.mod staticcheck ./...
	$(GO) mod tidy -diff
	cd .ci/tools && $(GO) mod tidy -diff
	$(GO) mod verify

# Found by grep, since go test -list would have to build every test to ask it.
fuzz: go ## Run every fuzz target for FUZZTIME (10s)
	@find . -name '*_test.go' -exec grep '^func Fuzz' /dev/null {} + | while IFS=': (' read -r file _ target _; do \
		set -- $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$${file%/*}"; \
		echo "$$*"; "$$@" </dev/null || exit; \
	done

demo: build ## Watch a small network find itself, for 30 s
	@bin/ocnode demo $(ARGS)

run: build ## Run a native with config.yaml, until Ctrl-C
	@bin/ocnode run $(ARGS)

tidy: go ## Format the code and tidy both go.mod
	"$$($(GO) env GOROOT)/bin/gofmt" -w -s .
	$(GO) mod tidy
	cd .ci/tools && $(GO) mod tidy

# Go 1.21 and later fetch the version that go.mod asks for, or say why not.
go:
	@$(GO) list -m >/dev/null || { \
		echo "ocnode needs Go $$(awk '$$1 == "go" { print $$2 }' go.mod) or later: https://go.dev/dl" >&2; exit 1; }
