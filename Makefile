# Every target is one line; what it does is in test/scripts, with its reasons.
# `make` alone lists them. Programs, images and packages that targets need are
# built or installed by the targets themselves, and cached in PLINTH_CACHE
# (default ~/.cache/plinth).
.PHONY: help build image demo demo-down test test-unit test-vm lint generate verify sanity crash soak chart e2e cluster-up cluster-down clean e2e-upstream test-workloads bench

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /\1\t/' | expand -t 16

build: ## bin/plinth, bin/plinth-controller and bin/kubectl-plinth, static
	CGO_ENABLED=0 go build -trimpath -tags grpcnotrace -ldflags "-s -w" -o bin/ ./cmd/...

image: ## the container image, without docker; prints the archive's path
	@test/scripts/packages && test/images/build

demo: ## a real cluster, Plinth on it, a StatefulSet and its story
	@test/scripts/demo

demo-down: cluster-down ## end the demo and leave nothing behind

test: ## every test there is, counted in the last line
	@test/scripts/packages && go run -C test ./tally

test-unit: ## tests that need neither root nor tools, with the race detector
	@test/scripts/unit

sanity: ## as root: every backend on real filesystems, and csi-sanity
	@test/scripts/sanity

test-vm: ## project quotas, in a virtual machine whose kernel has them
	@test/scripts/packages && test/vm/run && test/vm/run sanity

crash: ## as root: plinth is killed, and loses its power, under load
	@test/scripts/crash

soak: ## as root: at least 500 kills and 20 power cuts under load, a minute for each fuzz target
	@test/scripts/soak

bench: ## as root: what docs/performance.md promises, measured; BENCH=part
	@test/scripts/bench

chart: ## what the chart renders and refuses
	@test/scripts/chart

e2e: ## on the test cluster, which is kept; FOCUS=pattern of test names
	@test/scripts/e2e -v

test-workloads: ## the samples of deploy/samples on the test cluster, each as it stands
	@test/scripts/workloads -v

e2e-upstream: ## Kubernetes' own storage tests on the test cluster; UPSTREAM_FOCUS=pattern
	@test/scripts/e2e-upstream

lint: ## golangci-lint with the layering rule, shellcheck, helm lint
	@test/scripts/packages && test/scripts/lint

generate: ## deep copies, CRDs, deploy/plinth.yaml
	@test/scripts/generate

verify: ## generated files and go.mod files are what they should be
	@test/scripts/verify

cluster-up: ## the test cluster with this checkout of Plinth on it
	@test/scripts/install

cluster-down: ## end the test cluster and leave nothing behind
	@test/scripts/cluster down

clean: ## what was built in this checkout; the cache stays
	rm -rf bin out
