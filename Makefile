# Needs Go (go.mod says which) and make; Go fetches the rest by itself.

GO ?= go
# ARGS are flags for demo and run: make demo ARGS='--natives 3 --for 1m'.
ARGS ?=
# FUZZTIME is how long each fuzz target runs; 1000x counts runs instead.
FUZZTIME ?= 10s
# PLUGINLINES is what a module from outside takes at most, its program and comments included.
PLUGINLINES = 120
# BENCHTIME is how long a benchmark measures one thing, and scales how long the rest of them take.
BENCHTIME ?= 1s
# SCHEDULES is how many random schedules of faults make figures runs, of ten simulated minutes each.
SCHEDULES ?= 2000
# VULNDB is where govulncheck has its database from, a mirror maybe.
VULNDB ?= https://vuln.go.dev
# UPDATE=1 has make bench write its figures into docs/benchmarks.md.
UPDATE ?=

# A build of a tag is a release; any other tells its commit, if git is there to ask.
release = $(shell git describe --tags --exact-match --dirty --match 'v[0-9]*' 2>/dev/null)

.PHONY: help build test figures bench plugin lint fuzz demo run tidy go
.DEFAULT_GOAL = help

help: ## Say what there is to do
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

build: go ## Build bin/ocnode, one static binary
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(if $(release),-X github.com/opencloud/ocnode/cmd.release=$(release:v%=%))' -o bin/ocnode ./cmd/ocnode

# With the race detector a schedule takes five times as long. 16 have it; with these they are 200.
test: go ## Run every test, under the race detector
	@race=-race; \
	if [ "$$($(GO) env CGO_ENABLED)" != 1 ]; then \
		race=; echo 'no C compiler (or CGO_ENABLED=0), so the race detector is off; install gcc for the whole test' >&2; \
	fi; \
	echo "$(GO) test $$race -timeout 30m ./..."; $(GO) test $$race -timeout 30m ./...
	$(GO) test -count=1 -run '^TestSimSchedules$$' ./modules -schedules 184

figures: go ## Run the simulated network, the attacks and the end-to-end test, and show what they measure
	$(GO) test -count=1 -v -run '^TestSim' -skip '^TestSimSchedules$$' ./modules
	$(GO) test -count=1 -v -timeout 30m -run '^TestSimSchedules$$' ./modules -schedules $(SCHEDULES)
	$(GO) test -count=1 -v -p 1 -run '^TestAttack' -skip '^TestAttackTheDecoder' ./adapters/... ./domain ./modules
	$(GO) test -count=1 -v -run '^TestAttackTheDecoder' ./adapters/internal/wire -frames 10000000
	$(GO) test -count=1 -v -run '^TestATakeoverKeepsUp|^TestManyWatchers|^TestARenewalByANumberCounts' ./domain
	$(GO) test -count=1 -v -run '^TestEndToEnd' ./cmd/ocnode

bench: go ## Measure speed and size, as one table (a quarter of an hour; UPDATE=1 keeps it in docs)
	$(GO) test -run '^$$' -bench '^BenchmarkTable$$' -benchtime $(BENCHTIME) -timeout 2h ./modules $(if $(UPDATE),-update-benchmarks)

# What is not to be seen from there, such as our internal packages, is not to be had. At
# least one line is counted, so that an empty copy is not a short program.
plugin: go ## Test docs/boltstore as what it is: a program outside of this repository
	@race=-race; [ "$$($(GO) env CGO_ENABLED)" = 1 ] || race=; \
	root=$$PWD; dir=$$(mktemp -d) || exit; trap 'rm -rf "$$dir"' EXIT; \
	cp -R docs/. "$$dir" && cd "$$dir/boltstore" || exit; \
	lines=$$(find . -name '*.go' ! -name '*_test.go' -exec cat {} + | wc -l); \
	if [ "$$lines" -lt 1 ] || [ "$$lines" -ge $(PLUGINLINES) ]; then \
		echo "docs/boltstore has $$lines lines of Go without its tests; allowed are fewer than $(PLUGINLINES)" >&2; exit 1; \
	fi; \
	set -ex; export GOWORK=off; \
	$(GO) mod edit -replace "github.com/opencloud/ocnode=$$root"; \
	$(GO) mod tidy -diff; \
	$(GO) vet ./...; \
	$(GO) tool -modfile="$$root/.ci/tools/go.mod" staticcheck ./...; \
	$(GO) test $$race -count=1 ./...

# govulncheck knows nothing without its database, which is not in the module proxy. So a machine
# that cannot have it skips that, and says so; whatever else goes wrong is an error.
lint: go ## Check format, vet, staticcheck, known vulnerabilities and every go.mod
	@unformatted=$$("$$($(GO) env GOROOT)/bin/gofmt" -l -s .) || exit; \
	if [ -n "$$unformatted" ]; then echo "not formatted, mend with make tidy:" $$unformatted >&2; exit 1; fi
	$(GO) vet ./...
	$(GO) tool -modfile=.ci/tools/go.mod staticcheck ./...
	@echo '$(GO) tool -modfile=.ci/tools/go.mod govulncheck -db $(VULNDB) ./...'; \
	found=$$($(GO) tool -modfile=.ci/tools/go.mod govulncheck -db '$(VULNDB)' ./... 2>&1); code=$$?; \
	case $$code:$$found in \
	0:*) ;; \
	*'govulncheck: fetching vulnerabilities:'*) echo 'skipped: $(VULNDB), where govulncheck has its database, cannot be reached from here' >&2 ;; \
	*) printf '%s\n' "$$found" >&2; exit $$code ;; \
	esac
	$(GO) mod tidy -diff
	cd .ci/tools && $(GO) mod tidy -diff
	cd .ci/deploy-tools && $(GO) mod tidy -diff
	cd docs/boltstore && $(GO) mod tidy -diff
	$(GO) mod verify

# Found by grep, since go test -list would have to build every test to ask it.
fuzz: go ## Run every fuzz target for FUZZTIME (10s)
	@find . -name '*_test.go' -exec grep '^func Fuzz' /dev/null {} + | while IFS=': (' read -r file _ target _; do \
		set -- $(GO) test -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) "$${file%/*}"; \
		echo "$$*"; "$$@" </dev/null || exit; \
	done

demo: build ## Watch a small network find itself
	@bin/ocnode demo $(ARGS)

run: build ## Run a native with config.yaml, until Ctrl-C
	@bin/ocnode run $(ARGS)

tidy: go ## Format the code and tidy every go.mod
	"$$($(GO) env GOROOT)/bin/gofmt" -w -s .
	$(GO) mod tidy
	cd .ci/tools && $(GO) mod tidy
	cd .ci/deploy-tools && $(GO) mod tidy
	cd docs/boltstore && $(GO) mod tidy

# Go 1.21 and later fetch the version that go.mod asks for, or say why not.
go:
	@$(GO) list -m >/dev/null || { \
		echo "ocnode needs Go $$(awk '$$1 == "go" { print $$2 }' go.mod) or later: https://go.dev/dl" >&2; exit 1; }
