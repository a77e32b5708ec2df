package kube

import (
	"fmt"
	"strconv"
	"time"

	"github.com/plinth-csi/plinth/test/cluster/internal/machine"
	"github.com/plinth-csi/plinth/test/cluster/internal/pki"
	"github.com/plinth-csi/plinth/test/cluster/internal/plan"
)

const (
	etcdAddress = "127.0.0.1:2379"
	apiAddress  = "127.0.0.1:6443"
)

// WriteControl writes the files of the control plane below root.
func WriteControl(root string, a *Authorities) error {
	t := &tree{root: root}
	t.write(caFile, a.CA.Cert)
	t.write(certs+"/ca.key", a.CA.Key)
	t.write(certs+"/front-proxy-ca.crt", a.FrontProxy.Cert)
	t.write(certs+"/tokens.pub", a.Tokens.Cert)
	t.write(certs+"/tokens.key", a.Tokens.Key)
	t.pair(a.CA, "apiserver", pki.Request{User: "kube-apiserver", Hosts: []string{
		"localhost", "127.0.0.1", plan.ControlIP, plan.APIServiceIP,
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc." + plan.Domain,
	}})
	t.pair(a.CA, "kubelet-client", pki.Request{User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}})
	t.pair(a.FrontProxy, "front-proxy-client", pki.Request{User: "front-proxy-client"})
	local := "https://" + apiAddress
	t.kubeconfig(a.CA, config+"/controller-manager.conf", local, pki.Request{User: "system:kube-controller-manager"})
	t.kubeconfig(a.CA, config+"/scheduler.conf", local, pki.Request{User: "system:kube-scheduler"})
	t.kubeconfig(a.CA, config+"/coredns.conf", local, pki.Request{User: dnsUser})
	t.write(config+"/authentication.yaml", []byte(authentication))
	t.write(config+"/Corefile", []byte(corefile))
	return t.err
}

// authentication lets nobody in without a name, but anybody ask after health.
const authentication = `apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous:
  enabled: true
  conditions:
  - path: /livez
  - path: /readyz
  - path: /healthz
`

// corefile answers for the cluster, and that there is nothing else: no query leaves it.
const corefile = plan.Domain + `:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    ready
    kubernetes ` + plan.Domain + ` in-addr.arpa ip6.arpa {
        kubeconfig ` + config + `/coredns.conf
        pods insecure
        ttl 5
    }
    cache 5
}
.:53 {
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
`

// ControlUnits are the programs of the control plane.
func ControlUnits(o plan.Options) []machine.Unit {
	return []machine.Unit{
		{Name: "etcd", Argv: etcd(o), Last: true},
		// It lingers over watches that nobody ends; all it knows is in etcd.
		{Name: "kube-apiserver", Argv: apiserver(), After: []string{"tcp:" + etcdAddress}, Grace: 2 * time.Second},
		{Name: "kube-controller-manager", Argv: controllerManager(o), After: []string{"tcp:" + apiAddress}},
		{Name: "kube-scheduler", Argv: scheduler(), After: []string{"tcp:" + apiAddress}},
		{Name: "coredns", Argv: []string{BinDNS + "/coredns", "-conf", config + "/Corefile"}, After: []string{"tcp:" + apiAddress}},
	}
}

func etcd(o plan.Options) []string {
	argv := []string{
		BinEtcd + "/etcd",
		"--name=control", "--data-dir=/var/lib/etcd",
		"--listen-client-urls=http://" + etcdAddress, "--advertise-client-urls=http://" + etcdAddress,
		"--listen-peer-urls=http://127.0.0.1:2380", "--initial-advertise-peer-urls=http://127.0.0.1:2380",
		"--initial-cluster=control=http://127.0.0.1:2380",
		"--heartbeat-interval=1000", "--election-timeout=5000", // a busy test machine is no reason to elect
		"--initial-election-tick-advance=true",
		"--log-level=warn",
	}
	if !o.EtcdFsync {
		argv = append(argv, "--unsafe-no-fsync")
	}
	return argv
}

func apiserver() []string {
	return []string{
		BinK8s + "/kube-apiserver",
		"--etcd-servers=http://" + etcdAddress,
		"--advertise-address=" + plan.ControlIP,
		"--secure-port=" + strconv.Itoa(plan.APIPort),
		"--allow-privileged=true",
		"--authentication-config=" + config + "/authentication.yaml",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + caFile,
		"--tls-cert-file=" + certs + "/apiserver.crt", "--tls-private-key-file=" + certs + "/apiserver.key",
		// Without the preference every log and exec first waits for the name of the node.
		"--kubelet-preferred-address-types=InternalIP",
		"--kubelet-certificate-authority=" + caFile,
		"--kubelet-client-certificate=" + certs + "/kubelet-client.crt",
		"--kubelet-client-key=" + certs + "/kubelet-client.key",
		"--requestheader-client-ca-file=" + certs + "/front-proxy-ca.crt",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + certs + "/front-proxy-client.crt",
		"--proxy-client-key-file=" + certs + "/front-proxy-client.key",
		"--service-account-issuer=https://kubernetes.default.svc." + plan.Domain,
		"--service-account-key-file=" + certs + "/tokens.pub",
		"--service-account-signing-key-file=" + certs + "/tokens.key",
		"--service-cluster-ip-range=" + plan.ServiceNet,
		"--profiling=false",
		"--shutdown-delay-duration=0s",
	}
}

func controllerManager(o plan.Options) []string {
	kubeconfig := config + "/controller-manager.conf"
	argv := []string{
		BinK8s + "/kube-controller-manager",
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
		"--use-service-account-credentials=true",
		"--service-account-private-key-file=" + certs + "/tokens.key",
		"--root-ca-file=" + caFile,
		"--cluster-signing-cert-file=" + caFile, "--cluster-signing-key-file=" + certs + "/ca.key",
		"--requestheader-client-ca-file=" + certs + "/front-proxy-ca.crt",
		"--allocate-node-cidrs=true",
		"--cluster-cidr=" + plan.PodNet,
		"--service-cluster-ip-range=" + plan.ServiceNet,
		"--flex-volume-plugin-dir=" + flexVolumes,
		"--node-monitor-period=2s",
		"--node-monitor-grace-period=20s",
	}
	if o.KubeAPIQPS > 0 {
		argv = append(argv, fmt.Sprintf("--kube-api-qps=%d", o.KubeAPIQPS))
	}
	if o.KubeAPIBurst > 0 {
		argv = append(argv, fmt.Sprintf("--kube-api-burst=%d", o.KubeAPIBurst))
	}
	return argv
}

func scheduler() []string {
	kubeconfig := config + "/scheduler.conf"
	return []string{
		BinK8s + "/kube-scheduler",
		"--kubeconfig=" + kubeconfig,
		"--authentication-kubeconfig=" + kubeconfig,
		"--authorization-kubeconfig=" + kubeconfig,
		"--bind-address=127.0.0.1",
		"--leader-elect=false",
	}
}
