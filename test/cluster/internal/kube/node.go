package kube

import (
	"crypto/sha256"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/plinth-csi/plinth/test/cluster/internal/images"
	"github.com/plinth-csi/plinth/test/cluster/internal/machine"
	"github.com/plinth-csi/plinth/test/cluster/internal/pki"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

const (
	runtimeSocket = "/run/containerd/containerd.sock"
	flexVolumes   = "/var/lib/kubelet/volumeplugins" // the default lies in /usr, which is read-only
)

// WriteNode writes the files of the node m below root.
func WriteNode(root string, a *Authorities, m plan.Machine) error {
	t := &tree{root: root}
	t.write(caFile, a.CA.Cert)
	t.pair(a.CA, "kubelet", pki.Request{User: m.Name, Hosts: []string{m.Name, m.IP()}})
	t.kubeconfig(a.CA, config+"/kubelet.conf", controlServer(),
		pki.Request{User: "system:node:" + m.Name, Groups: []string{"system:nodes"}})
	t.kubeconfig(a.CA, config+"/kube-proxy.conf", controlServer(), pki.Request{User: "system:kube-proxy"})
	t.yaml(config+"/kubelet.yaml", kubeletConfig(m))
	t.yaml(config+"/kube-proxy.yaml", proxyConfig(m))
	t.write("/etc/containerd/config.toml", []byte(runtimeConfig))
	t.write("/etc/crictl.yaml", []byte("runtime-endpoint: unix://"+runtimeSocket+"\n"))
	t.write("/etc/cni/net.d/10-pods.conflist", []byte(fmt.Sprintf(podNetwork, m.PodNet())))
	t.write("/etc/machine-id", []byte(fmt.Sprintf("%x\n", sha256.Sum256([]byte(m.Name)))[:32]+"\n"))
	// What pods with dnsPolicy Default get; the cluster's own DNS is the only one there is.
	t.write("/etc/resolv.conf", []byte("nameserver "+plan.DNSServiceIP+"\n"))
	return t.err
}

// runtimeConfig is that of containerd: config_path of CNI is Debian's, and a
// machine that may not lower OOM scores must not fail for it.
const runtimeConfig = `version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '` + images.Pause + `'

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
  bin_dirs = ['/usr/lib/cni']
`

const podNetwork = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "ptp",
      "ipMasq": false,
      "mtu": 1500,
      "ipam": {
        "type": "host-local",
        "dataDir": "/run/cni-ipam",
        "ranges": [[{"subnet": %q}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
`

// NodeUnits are the programs of the node m.
func NodeUnits(m plan.Machine) []machine.Unit {
	api := fmt.Sprintf("tcp:%s:%d", plan.ControlIP, plan.APIPort)
	path := "PATH=" + BinCRI + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	return []machine.Unit{
		{Name: "containerd", Argv: []string{BinCRI + "/containerd"}, Env: []string{path}, Last: true},
		{
			Name: "kube-proxy", Gated: true, After: []string{api},
			Argv: []string{BinK8s + "/kube-proxy", "--config=" + config + "/kube-proxy.yaml"},
		},
		{
			Name: "kubelet", Gated: true, After: []string{"unix:" + runtimeSocket, api},
			Argv: []string{
				BinK8s + "/kubelet",
				"--config=" + config + "/kubelet.yaml",
				"--kubeconfig=" + config + "/kubelet.conf",
				"--node-ip=" + m.IP(),
				"--hostname-override=" + m.Name,
				"--node-labels=" + zoneLabel + "=" + plan.Zone,
			},
		},
	}
}

func kubeletConfig(m plan.Machine) object {
	return object{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"authentication": object{
			"anonymous": object{"enabled": false},
			"webhook":   object{"enabled": true},
			"x509":      object{"clientCAFile": caFile},
		},
		"authorization":            object{"mode": "Webhook"},
		"tlsCertFile":              certs + "/kubelet.crt",
		"tlsPrivateKeyFile":        certs + "/kubelet.key",
		"containerRuntimeEndpoint": "unix://" + runtimeSocket,
		"clusterDNS":               []string{plan.DNSServiceIP},
		"clusterDomain":            plan.Domain,
		"resolvConf":               "/etc/resolv.conf",
		// The machine is shared with others: stay inside a branch of its cgroups,
		// reserve nothing, evict nothing, remove no image.
		"cgroupDriver":                "cgroupfs",
		"cgroupRoot":                  "/" + m.Name,
		"volumePluginDir":             flexVolumes,
		"makeIPTablesUtilChains":      false,
		"maxOpenFiles":                openFiles(),
		"failCgroupV1":                false,
		"failSwapOn":                  false,
		"enforceNodeAllocatable":      []string{},
		"oomScoreAdj":                 0,
		"evictionHard":                object{"memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
		"imageGCHighThresholdPercent": 100,
		"imageGCLowThresholdPercent":  99,
		"maxPods":                     250,
		"serializeImagePulls":         false,
		"nodeStatusUpdateFrequency":   "5s",
		"nodeLeaseDurationSeconds":    20,
		"syncFrequency":               "20s",
		"kubeAPIQPS":                  100,
		"kubeAPIBurst":                200,
		"eventRecordQPS":              0,
		"crashLoopBackOff":            object{"maxContainerRestartPeriod": "30s"},
	}
}

// openFiles is what kubelet may set its limit to on this machine.
func openFiles() uint64 {
	const preferred = 1_000_000 // kubelet's own default
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return preferred
	}
	return min(preferred, limit.Max)
}

func proxyConfig(m plan.Machine) object {
	return object{
		"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",
		"mode":             "nftables",
		"hostnameOverride": m.Name,
		"clusterCIDR":      plan.PodNet,
		"clientConnection": object{"kubeconfig": config + "/kube-proxy.conf"},
		// The limit belongs to the whole machine and is not ours to set.
		"conntrack": object{"maxPerCore": 0, "min": 0},
		"nftables":  object{"syncPeriod": "30s", "minSyncPeriod": "100ms"},
	}
}
