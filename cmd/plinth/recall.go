package main

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"time"

	"github.com/plinth-csi/plinth/driver/host/atomicfile"
	"github.com/plinth-csi/plinth/provisioner/agent"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

// recallFile is what a node remembers of itself from its last run, in the
// mounts directory: its name cannot be that of a volume.
const recallFile = ".node.json"

// identity is what a node must know of itself before it opens its pools: the
// UUIDs that it has reported, so that no other disk is taken for a pool, and
// the cluster, so that its records name it.
type identity struct {
	ClusterID string            `json:"clusterID"`
	Pools     map[string]string `json:"pools"`
}

// The times of asking the API server who we are.
const (
	askTimeout = 5 * time.Second
	askAgain   = 2 * time.Second
)

// recall asks the API server, whose word counts. While that is away the
// memory of the last run does, so that pods start all the same. A node that
// has never run waits: it could not tell a pool's disk from another.
func recall(ctx context.Context, dir, node string, objects *ledger.Client, log *slog.Logger) (identity, error) {
	for {
		me, err := ask(ctx, node, objects)
		if err == nil {
			return me, nil
		}
		log.Warn("the API server does not say what this node has reported", "error", err)
		if me, err = readIdentity(dir); err == nil {
			return me, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return identity{}, err
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			return identity{}, ctx.Err()
		}
	}
}

func ask(ctx context.Context, node string, objects *ledger.Client) (identity, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	cluster, err := objects.ClusterID(ctx)
	if err != nil {
		return identity{}, err
	}
	known, err := agent.KnownPools(ctx, objects, node)
	return identity{ClusterID: cluster, Pools: known}, err
}

func readIdentity(dir string) (me identity, err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return me, err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	data, err := root.ReadFile(recallFile)
	if err != nil {
		return me, err
	}
	return me, json.Unmarshal(data, &me)
}

// remember keeps the identity for a start without the API server.
func remember(ctx context.Context, dir, cluster string, e *engine, log *slog.Logger) {
	me := identity{ClusterID: cluster, Pools: map[string]string{}}
	for _, p := range e.pools.Pools(ctx) {
		if p.UUID != "" {
			me.Pools[p.Name] = p.UUID
		}
	}
	before, err := readIdentity(dir)
	if err == nil && before.ClusterID == cluster && maps.Equal(before.Pools, me.Pools) {
		return
	}
	if err := writeIdentity(dir, me); err != nil {
		log.Error("this node cannot remember its pools for a start without the API server", "error", err)
	}
}

func writeIdentity(dir string, me identity) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	data, err := json.Marshal(me)
	if err != nil {
		return errors.Join(err, root.Close())
	}
	return errors.Join(atomicfile.Write(root, "", recallFile, append(data, '\n'), 0o600), root.Close())
}
