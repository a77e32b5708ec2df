package pool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	yaml "go.yaml.in/yaml/v3"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The keys of the file and of one pool.
const (
	keyPools        = "pools"
	keyName         = "name"
	keyPath         = "path"
	keyBackend      = "backend"
	keyQuota        = "quota"
	keyQuotaGrace   = "quotaGrace"
	keyReserve      = "reserve"
	keyOvercommit   = "overcommit"
	keyShared       = "shared"
	keyRequireMount = "requireMount"
	keyDevices      = "devices"
)

// maxOvercommit bounds the ratio so that capacities stay within an int64.
const maxOvercommit = 1000

// maxGrace is what 32 bits of seconds hold, and more than anybody waits.
const maxGrace = 10 * 365 * 24 * time.Hour

// ParseConfig reads a pools file. A pool that is wrong is refused by itself,
// with its line and the way out; the error is for a file that cannot be read
// as a list of pools at all, and wraps volume.ErrInvalid.
func ParseConfig(data []byte) (Config, error) {
	list, err := poolList(data)
	if err != nil {
		return Config{}, fmt.Errorf("pools file: %w", err)
	}
	var cfg Config
	for _, node := range list {
		p, refusal := parsePool(node)
		if refusal == nil {
			refusal = clash(cfg.Pools, p)
		}
		if refusal != nil {
			refusal.Name, refusal.Path = p.Name, p.Path
			cfg.Refused = append(cfg.Refused, *refusal)
			continue
		}
		cfg.Pools = append(cfg.Pools, p)
	}
	return cfg, nil
}

// poolList finds the nodes of the pools in the file.
func poolList(data []byte) ([]*yaml.Node, error) {
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: not YAML: %v", volume.ErrInvalid, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: more than one YAML document; put all pools into one list", volume.ErrInvalid)
	}
	if len(doc.Content) == 0 {
		return nil, fmt.Errorf("%w: empty; it needs the key %q with a list", volume.ErrInvalid, keyPools)
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%w: line %d: not a mapping; it needs the key %q with a list", volume.ErrInvalid, top.Line, keyPools)
	}
	var list *yaml.Node
	for i := 0; i+1 < len(top.Content); i += 2 {
		key := top.Content[i]
		if key.Value != keyPools || list != nil {
			return nil, fmt.Errorf("%w: line %d: unexpected key %.60q; the only key is %q, once", volume.ErrInvalid, key.Line, key.Value, keyPools)
		}
		list = top.Content[i+1]
	}
	switch {
	case list == nil:
		return nil, fmt.Errorf("%w: it needs the key %q with a list", volume.ErrInvalid, keyPools)
	case list.Kind == yaml.ScalarNode && list.Tag == "!!null":
		return nil, nil
	case list.Kind != yaml.SequenceNode:
		return nil, fmt.Errorf("%w: line %d: %q is not a list", volume.ErrInvalid, list.Line, keyPools)
	}
	return list.Content, nil
}

// parsePool reads one pool. All that could be read is returned, also beside a
// refusal, so that the refused pool can be named.
func parsePool(node *yaml.Node) (PoolConfig, *Refusal) {
	p := PoolConfig{Backend: BackendAuto, Overcommit: 1, RequireMount: true, Line: node.Line}
	if node.Kind != yaml.MappingNode {
		return p, refuse(node.Line, "a pool is a mapping with the keys %s and %s at least", keyName, keyPath)
	}
	var first *Refusal
	seen := map[string]int{}
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		var refusal *Refusal
		if line, twice := seen[key.Value]; twice {
			refusal = refuse(key.Line, "the key %s is there twice, first in line %d; remove one", key.Value, line)
		} else {
			seen[key.Value] = key.Line
			refusal = p.set(key, value)
		}
		if first == nil {
			first = refusal
		}
	}
	if first == nil {
		first = p.complete(seen)
	}
	return p, first
}

func (p *PoolConfig) set(key, value *yaml.Node) *Refusal {
	if key.Value == keyDevices {
		return parseDevices(&p.Devices, value)
	}
	if value.Kind != yaml.ScalarNode {
		if slices.Contains(poolKeys(), key.Value) {
			return refuse(value.Line, "%s takes one plain value", key.Value)
		}
	}
	text, line := value.Value, value.Line
	switch key.Value {
	case keyName:
		if _, err := volume.ParseID(text); err != nil || value.Tag != "!!str" {
			return refuse(line, "name %.80q is not a DNS label: small letters, digits and inner hyphens, at most 63 (quote it if it is a number)", text)
		}
		p.Name = text
	case keyPath:
		p.Path = text
		if !filepath.IsAbs(text) || strings.ContainsRune(text, 0) {
			return refuse(line, "path %.200q is not absolute; begin it with /", text)
		}
		if clean := filepath.Clean(text); clean != text || clean == "/" {
			return refuse(line, "path %.200q is not clean or is the root; write it without //, . and .. and without a / at the end", text)
		}
	case keyBackend:
		return oneOf(value, &p.Backend, key.Value, BackendAuto, BackendBtrfs, BackendDirectory, BackendImage, BackendDevice, BackendMemory)
	case keyQuota:
		return oneOf(value, &p.Quota, key.Value, QuotaProject, QuotaNone)
	case keyQuotaGrace:
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Second || d > maxGrace || d%time.Second != 0 {
			return refuse(line, "quotaGrace %.40q is not a time of whole seconds from 1s to %s; write it like 24h", text, maxGrace)
		}
		p.QuotaGrace = d
	case keyReserve:
		return parseReserve(&p.Reserve, line, text)
	case keyOvercommit:
		ratio, err := strconv.ParseFloat(text, 64)
		if err != nil || !(ratio >= 1 && ratio <= maxOvercommit) {
			return refuse(line, "overcommit %.40q is not a number from 1 to %d; 1 promises no more than there is", text, maxOvercommit)
		}
		p.Overcommit = ratio
	case keyShared:
		return parseBool(value, &p.Shared, key.Value)
	case keyRequireMount:
		return parseBool(value, &p.RequireMount, key.Value)
	default:
		return refuse(key.Line, "unknown key %.60q; the keys are %s", key.Value, strings.Join(poolKeys(), ", "))
	}
	return nil
}

// complete checks what needs more than one key.
func (p *PoolConfig) complete(seen map[string]int) *Refusal {
	switch {
	case p.Name == "":
		return refuse(p.Line, "the pool has no %s", keyName)
	case p.Path == "":
		return refuse(p.Line, "the pool has no %s", keyPath)
	case p.Quota != "" && p.Backend != BackendDirectory:
		return refuse(seen[keyQuota], "quota is for backend: %s only, and this pool has backend: %s", BackendDirectory, p.Backend)
	case p.QuotaGrace != 0 && (p.Backend != BackendDirectory || p.Quota == QuotaNone):
		return refuse(seen[keyQuotaGrace], "quotaGrace is for backend: %s with project quotas only", BackendDirectory)
	case p.Shared && p.Backend != BackendAuto && p.Backend != BackendDirectory && p.Backend != BackendMemory:
		return refuse(seen[keyShared], "a shared pool keeps directories: several nodes must not write to one %s volume; use backend: %s", p.Backend, BackendDirectory)
	case (p.Backend == BackendDevice) != (len(p.Devices) > 0):
		return refuse(p.Line, "%s and backend: %s need each other; a pool of disks lists them, and no other pool does", keyDevices, BackendDevice)
	case p.Backend == BackendDevice && (p.Overcommit != 1 || p.Reserve != Reserve{}):
		return refuse(p.Line, "%s and %s are not for backend: %s: a volume there is a whole disk", keyReserve, keyOvercommit, BackendDevice)
	}
	if p.Quota == "" {
		p.Quota = QuotaProject
	}
	return nil
}

// clash refuses a pool that has the name or the ground of an earlier one.
func clash(earlier []PoolConfig, p PoolConfig) *Refusal {
	for _, e := range earlier {
		var r *Refusal
		switch {
		case e.Name == p.Name:
			r = refuse(p.Line, "the pool in line %d is called %s too and goes on serving; give this one another name", e.Line, p.Name)
			r.Reason = ReasonDuplicate
		case within(e.Path, p.Path) || within(p.Path, e.Path):
			r = refuse(p.Line, "path %s and path %s of pool %s in line %d overlap; give each pool a place of its own", p.Path, e.Path, e.Name, e.Line)
			r.Reason = ReasonOverlap
		}
		if r != nil {
			return r
		}
	}
	return nil
}

// within reports whether path is dir or below it.
func within(dir, path string) bool {
	return path == dir || strings.HasPrefix(path, dir+"/")
}

func poolKeys() []string {
	return []string{keyName, keyPath, keyBackend, keyQuota, keyQuotaGrace, keyReserve, keyOvercommit, keyShared, keyRequireMount, keyDevices}
}

func refuse(line int, format string, args ...any) *Refusal {
	return &Refusal{Line: line, Reason: ReasonConfig, Message: fmt.Sprintf(format, args...)}
}

func oneOf(value *yaml.Node, to *string, key string, allowed ...string) *Refusal {
	if !slices.Contains(allowed, value.Value) {
		return refuse(value.Line, "%s %.40q is not one of %s", key, value.Value, strings.Join(allowed, ", "))
	}
	*to = value.Value
	return nil
}

func parseBool(value *yaml.Node, to *bool, key string) *Refusal {
	if value.Tag != "!!bool" || value.Decode(to) != nil {
		return refuse(value.Line, "%s %.40q is not true or false", key, value.Value)
	}
	return nil
}

func parseReserve(to *Reserve, line int, text string) *Refusal {
	if number, isPercent := strings.CutSuffix(text, "%"); isPercent {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || !(percent >= 0 && percent < 100) {
			return refuse(line, "reserve %.40q is not a percentage from 0 to below 100", text)
		}
		*to = Reserve{Percent: percent}
		return nil
	}
	q, err := resource.ParseQuantity(text)
	if err != nil || q.Sign() < 0 {
		return refuse(line, "reserve %.40q is neither a percentage nor a quantity of bytes; write it like 5%% or 10Gi", text)
	}
	*to = Reserve{Bytes: q.Value()}
	return nil
}

// parseDevices reads a list of devices. A pattern may not climb, so what it
// finds is below /dev by its name; what it is, the backend looks at.
func parseDevices(to *[]string, value *yaml.Node) *Refusal {
	if value.Kind != yaml.SequenceNode || len(value.Content) == 0 {
		return refuse(value.Line, "%s is a list of devices, such as [/dev/disk/by-id/nvme-*]", keyDevices)
	}
	for _, item := range value.Content {
		name := item.Value
		_, err := filepath.Match(name, "")
		switch {
		case item.Kind != yaml.ScalarNode || item.Tag != "!!str":
			return refuse(item.Line, "%s is a list of plain values", keyDevices)
		case err != nil:
			return refuse(item.Line, "device %.200q is no pattern: a [ without its ], or a \\ at the end", name)
		case !strings.HasPrefix(name, "/dev/") || filepath.Clean(name) != name || strings.ContainsRune(name, 0):
			return refuse(item.Line, "device %.200q is not an absolute, clean path below /dev, such as /dev/disk/by-id/nvme-*", name)
		case slices.Contains(*to, name):
			return refuse(item.Line, "device %.200q is there twice; remove one", name)
		}
		*to = append(*to, name)
	}
	return nil
}
