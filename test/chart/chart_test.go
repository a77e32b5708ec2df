//go:build helm

package chart

import (
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	storagev1 "k8s.io/api/storage/v1"
	"sigs.k8s.io/yaml"
)

// render is helm template with some values and flags.
func render(t *testing.T, values string, flags ...string) (string, error) {
	t.Helper()
	helm := os.Getenv("PLINTH_HELM")
	if helm == "" {
		t.Fatal("PLINTH_HELM does not name the helm program: run make chart")
	}
	cmd := exec.Command(helm, append([]string{"template", "plinth", "../../charts/plinth", "--namespace", "ns", "--no-hooks", "--values", "-"}, flags...)...)
	cmd.Stdin = strings.NewReader(values)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// all decodes the rendered objects of one kind.
func all[T any](t *testing.T, values, kind string) []T {
	t.Helper()
	out, err := render(t, values)
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var found []T
	for doc := range strings.SplitSeq(out, "\n---\n") {
		var object T
		if !strings.Contains(doc, "\nkind: "+kind+"\n") {
			continue
		}
		if err := yaml.UnmarshalStrict([]byte(doc), &object); err != nil {
			t.Fatalf("%v\n%s", err, doc)
		}
		found = append(found, object)
	}
	return found
}

func one[T any](t *testing.T, values, kind string) T {
	t.Helper()
	found := all[T](t, values, kind)
	if len(found) != 1 {
		t.Fatalf("%d objects of kind %s", len(found), kind)
	}
	return found[0]
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ name, values, words string }{
		{"no pools", `pools: []`, "minItems"},
		{"unknown value", `pool: {}`, "'pool' not allowed"},
		{"unknown key of a pool", `pools: [{name: a, path: /mnt/a, bakend: auto}]`, "'bakend' not allowed"},
		{"relative path", `pools: [{name: a, path: mnt/a}]`, "/pools/0/path"},
		{"path that climbs", `pools: [{name: a, path: /mnt/../a}]`, "/pools/0/path"},
		{"path without a parent to mount", `pools: [{name: a, path: /mnt}]`, "/pools/0/path"},
		{"two pools of one name", `pools: [{name: a, path: /mnt/a}, {name: a, path: /mnt/b}]`, `two pools are called "a"`},
		{"over the image's own programs", `pools: [{name: a, path: /usr/a}]`, "below a system directory"},
		{"in the kubelet's directory", `pools: [{name: a, path: /var/lib/kubelet/a}]`, "in the kubelet's directory"},
		{"around the kubelet's directory", `pools: [{name: a, path: /var/lib}]`, "holds the kubelet's directory"},
		{"in Plinth's directory", `pools: [{name: a, path: /var/lib/plinth/mounts}]`, "only /var/lib/plinth/pools/NAME is for pools"},
		{"a disk that cannot be there", `pools: [{name: a, path: /var/lib/plinth/pools/a}]`, "requireMount: false"},
		{"overcommit below one", `pools: [{name: a, path: /mnt/a, overcommit: 0.5}]`, "/pools/0/overcommit"},
		{"reserve without a unit that is known", `pools: [{name: a, path: /mnt/a, reserve: 5x}]`, "/pools/0/reserve"},
		{"a device that is none", `pools: [{name: a, path: /mnt/a, backend: device, devices: [sdb]}]`, "/pools/0/devices/0"},
		{"a grace time without a unit", `pools: [{name: a, path: /mnt/a, quotaGrace: "24"}]`, "/pools/0/quotaGrace"},
		{"class of an unknown pool", `storageClasses: [{name: a, pools: [fast]}]`, `there is no pool "fast"; the pools are: default`},
		{"unknown volume type", `storageClasses: [{name: a, volumeType: nfs}]`, "/storageClasses/0/volumeType"},
		{"one port for two", `metrics: {enabled: true, port: 9808}`, "metrics.port: 9808 is node.healthPort"},
		{"a mode that YAML reads as a number", `storageClasses: [{name: a, mode: 0770}]`, "/storageClasses/0/mode"},
		{"an owner by name", `storageClasses: [{name: a, owner: "me:us"}]`, "/storageClasses/0/owner"},
		{"an end that is none", `storageClasses: [{name: a, onDelete: burn}]`, "/storageClasses/0/onDelete"},
		{"trash without an end", `storageClasses: [{name: a, onDelete: trash}]`, "trashKeep"},
		{"two defaults", `storageClasses: [{name: a, default: true}, {name: b, default: true}]`, "only one can be the default, not a, b"},
		{"two classes of one name", `storageClasses: [{name: a}, {name: a}]`, `two classes are called "a"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := render(t, c.values)
			if err == nil || !strings.Contains(out, c.words) {
				t.Errorf("it is not refused with %q: %v\n%.500s", c.words, err, out)
			}
		})
	}
}

// TestPoolsFile: the pools are in the file as they are in the values, with
// every key that the file has (driver/pool/parse.go).
func TestPoolsFile(t *testing.T) {
	const values = `
pools:
- {name: dirs, path: /mnt/dirs, backend: directory, quota: project, quotaGrace: 24h, reserve: 5%, overcommit: 1.5, shared: true, requireMount: true}
- {name: disks, path: /var/lib/plinth/pools/disks, backend: device, requireMount: false, devices: ["/dev/disk/by-id/nvme-eui.*", "/dev/sd[b-d]"]}
`
	var got, want any
	for _, c := range all[corev1.ConfigMap](t, values, "ConfigMap") {
		for name, text := range c.Data {
			if name == "pools.yaml" {
				if err := yaml.Unmarshal([]byte(text), &got); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if err := yaml.Unmarshal([]byte(values), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the file has %v, want %v", got, want)
	}
}

// What a pool's path brings into the agent: the directory above it, so that a
// missing disk is never replaced by an empty directory.
func TestPoolMounts(t *testing.T) {
	for _, c := range []struct {
		name, values string
		want         []string
	}{
		{"default", ``, []string{"/var/lib/plinth/pools/default"}},
		{"two below one", `pools: [{name: a, path: /mnt/a}, {name: b, path: /mnt/b}]`, []string{"/mnt"}},
		{"nested", `pools: [{name: a, path: /mnt/a}, {name: b, path: /mnt/disks/b}]`, []string{"/mnt"}},
		{"alike but not nested", `pools: [{name: a, path: /mnt/a}, {name: b, path: /mnt2/b}]`, []string{"/mnt", "/mnt2"}},
		{"own directory elsewhere", `{statePath: /opt/state, pools: [{name: a, path: /opt/state/pools/a, requireMount: false}]}`, []string{"/opt/state/pools/a"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			pod := one[appsv1.DaemonSet](t, c.values, "DaemonSet").Spec.Template.Spec
			var got []string
			for _, m := range pod.Containers[0].VolumeMounts {
				if strings.HasPrefix(m.Name, "pools-") && m.Name != "pools-file" {
					got = append(got, m.MountPath)
					if m.MountPropagation == nil || *m.MountPropagation != corev1.MountPropagationHostToContainer {
						t.Errorf("%s does not follow the node's mounts", m.MountPath)
					}
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("mounted: %v, want %v", got, c.want)
			}
		})
	}
}

func TestRightsAreNamed(t *testing.T) {
	rules := func(kind string) (rules []rbacv1.PolicyRule) {
		for _, r := range all[rbacv1.ClusterRole](t, "controller: {replicas: 2}"+schedules, kind) {
			rules = append(rules, r.Rules...)
		}
		return rules
	}
	for _, r := range slices.Concat(rules("ClusterRole"), rules("Role")) {
		for _, word := range slices.Concat(r.APIGroups, r.Resources, r.Verbs) {
			if strings.Contains(word, "*") || word == "secrets" {
				t.Errorf("too wide a right: %v", r)
			}
		}
	}
}

func TestReplicas(t *testing.T) {
	const elect = "--leader-elect=true"
	one := all[appsv1.StatefulSet](t, ``, "StatefulSet")[0].Spec.Template.Spec.Containers[0].Args
	two := all[appsv1.StatefulSet](t, `controller: {replicas: 2}`, "StatefulSet")[0].Spec.Template.Spec.Containers[0].Args
	if slices.Contains(one, elect) || !slices.Contains(two, elect) {
		t.Errorf("a leader is elected among several only: %v, %v", one, two)
	}
	if n := len(all[policyv1.PodDisruptionBudget](t, ``, "PodDisruptionBudget")); n != 0 {
		t.Errorf("%d disruption budgets for one controller: it could not be drained", n)
	}
	if n := len(all[policyv1.PodDisruptionBudget](t, `controller: {replicas: 2}`, "PodDisruptionBudget")); n != 1 {
		t.Errorf("%d disruption budgets for two controllers", n)
	}
}

func TestStorageClasses(t *testing.T) {
	const values = `
pools: [{name: a, path: /mnt/a}, {name: b, path: /mnt/b}]
driverName: other.example.com
storageClasses:
- {name: plain}
- {name: full, default: true, pools: [a, b], volumeType: local, fsType: xfs, reclaimPolicy: Retain, volumeBindingMode: Immediate, mountOptions: [noatime],
   provisioning: thick, onDelete: trash, trashKeep: 7d, mkfsOptions: "-m reflink=0", mode: "0770", owner: "1000:1001"}
`
	classes := all[storagev1.StorageClass](t, values, "StorageClass")
	if len(classes) != 2 {
		t.Fatalf("%d classes", len(classes))
	}
	plain, full := classes[0], classes[1]
	if plain.Name != "plain" {
		plain, full = full, plain
	}
	if plain.Provisioner != "other.example.com" || *plain.ReclaimPolicy != "Delete" || *plain.VolumeBindingMode != "WaitForFirstConsumer" ||
		len(plain.Parameters) != 1 || plain.Parameters["volumeType"] != "csi" || len(plain.Annotations) != 0 {
		t.Errorf("defaults: %+v", plain)
	}
	want := map[string]string{
		"pool": "a,b", "volumeType": "local", "csi.storage.k8s.io/fstype": "xfs", "provisioning": "thick", "onDelete": "trash", "trashKeep": "7d",
		"mkfsOptions": "-m reflink=0", "mode": "0770", "owner": "1000:1001",
	}
	if *full.ReclaimPolicy != "Retain" || *full.VolumeBindingMode != "Immediate" || !slices.Equal(full.MountOptions, []string{"noatime"}) ||
		!reflect.DeepEqual(full.Parameters, want) ||
		full.Annotations["storageclass.kubernetes.io/is-default-class"] != "true" {
		t.Errorf("all keys: %+v", full)
	}
	if d := one[storagev1.CSIDriver](t, values, "CSIDriver"); d.Name != "other.example.com" || *d.Spec.AttachRequired || !*d.Spec.StorageCapacity {
		t.Errorf("CSIDriver: %+v", d)
	}
}

func TestImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for values, want := range map[string]string{
		``:           "plinth:0.1.0",
		`{tag: dev}`: "plinth:dev",
		`{registry: "r.example.com:5000", repository: a/b, tag: v1}`:                    "r.example.com:5000/a/b:v1",
		`{registry: r.example.com, repository: a/b, tag: v1, digest: "` + digest + `"}`: "r.example.com/a/b@" + digest,
	} {
		if values != `` {
			values = "image: " + values
		}
		if got := one[appsv1.DaemonSet](t, values, "DaemonSet").Spec.Template.Spec.Containers[0].Image; got != want {
			t.Errorf("%s: %s, want %s", values, got, want)
		}
	}
}
