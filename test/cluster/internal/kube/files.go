// Package kube knows what the programs of Kubernetes want to be told: their
// flags, their files, and the few objects a cluster begins with.
package kube

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"sigs.k8s.io/yaml"

	"github.com/plinth-csi/plinth/test/cluster/internal/pki"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

// Folders inside a machine.
const (
	config  = "/etc/kubernetes"
	certs   = config + "/pki"
	BinK8s  = "/opt/cluster/kubernetes"
	BinEtcd = "/opt/cluster/etcd"
	BinCRI  = "/opt/cluster/containerd"
	BinDNS  = "/opt/cluster/coredns"

	caFile = certs + "/ca.crt"
)

// Authorities are what all certificates of a cluster come from.
type Authorities struct {
	CA         *pki.Authority // of the cluster
	FrontProxy *pki.Authority // of requests that the API server passes on
	Tokens     pki.Pair       // signs service account tokens
}

// NewAuthorities makes them and saves them in dir.
func NewAuthorities(dir string) (*Authorities, error) {
	ca, err := pki.NewAuthority("kubernetes")
	if err != nil {
		return nil, err
	}
	front, err := pki.NewAuthority("front-proxy")
	if err != nil {
		return nil, err
	}
	tokens, err := pki.SigningKey()
	if err != nil {
		return nil, err
	}
	err = errors.Join(ca.Save(dir, "ca"), front.Save(dir, "front-proxy-ca"), tokens.Save(dir, "tokens"))
	return &Authorities{CA: ca, FrontProxy: front, Tokens: tokens}, err
}

// LoadAuthorities reads what NewAuthorities saved.
func LoadAuthorities(dir string) (*Authorities, error) {
	ca, err := pki.LoadAuthority(dir, "ca")
	if err != nil {
		return nil, err
	}
	front, err := pki.LoadAuthority(dir, "front-proxy-ca")
	if err != nil {
		return nil, err
	}
	tokens, err := pki.Load(dir, "tokens")
	return &Authorities{CA: ca, FrontProxy: front, Tokens: tokens}, err
}

// tree writes files below the root of a machine. The first error sticks.
type tree struct {
	root string
	err  error
}

func (t *tree) write(path string, content []byte) {
	if t.err != nil {
		return
	}
	at := filepath.Join(t.root, path)
	if t.err = os.MkdirAll(filepath.Dir(at), 0o755); t.err == nil {
		t.err = os.WriteFile(at, content, 0o600)
	}
}

func (t *tree) yaml(path string, object any) {
	raw, err := yaml.Marshal(object)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.write(path, raw)
}

// pair issues a certificate and writes it to the folder of certificates.
func (t *tree) pair(a *pki.Authority, name string, r pki.Request) {
	p, err := a.Issue(r)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.write(filepath.Join(certs, name+".crt"), p.Cert)
	t.write(filepath.Join(certs, name+".key"), p.Key)
}

// kubeconfig issues a certificate and writes a client configuration with it.
func (t *tree) kubeconfig(a *pki.Authority, path, server string, r pki.Request) {
	raw, err := Kubeconfig(a, "cluster", server, r)
	if err != nil && t.err == nil {
		t.err = err
	}
	t.write(path, raw)
}

// Kubeconfig returns a client configuration for the user in r.
func Kubeconfig(a *pki.Authority, name, server string, r pki.Request) ([]byte, error) {
	p, err := a.Issue(r)
	if err != nil {
		return nil, err
	}
	b64 := base64.StdEncoding.EncodeToString
	return yaml.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": list{{"name": name, "cluster": object{"server": server, "certificate-authority-data": b64(a.Cert)}}},
		"users":    list{{"name": name, "user": object{"client-certificate-data": b64(p.Cert), "client-key-data": b64(p.Key)}}},
		"contexts": list{{"name": name, "context": object{"cluster": name, "user": name}}},
	})
}

// object and list are JSON, as Kubernetes speaks it.
type (
	object map[string]any
	list   []object
)

func controlServer() string {
	return fmt.Sprintf("https://%s:%d", plan.ControlIP, plan.APIPort)
}
