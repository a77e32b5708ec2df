//go:build helm

package chart

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

func containers(t *testing.T, values string) map[string]corev1.Container {
	t.Helper()
	found := map[string]corev1.Container{}
	for _, c := range one[appsv1.StatefulSet](t, values, "StatefulSet").Spec.Template.Spec.Containers {
		found[c.Name] = c
	}
	return found
}

// The sidecars that are wanted are there, at the controller's socket, and no
// more is allowed than they need.
func TestSidecars(t *testing.T) {
	for _, c := range []struct {
		name, values string
		want         []string
		rights       []string // what of snapshots may be touched, beside what the controller reads
	}{
		{"default", ``, []string{"csi-resizer", "plinth"}, nil},
		{"none", `resizer: {enabled: false}`, []string{"plinth"}, nil},
		{"snapshots", `snapshots: {enabled: true}`, []string{"csi-resizer", "csi-snapshotter", "plinth"},
			[]string{"volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshotcontents/status"}},
		{"groups", `snapshots: {enabled: true, groups: true}`, []string{"csi-resizer", "csi-snapshotter", "plinth"},
			[]string{"volumegroupsnapshotclasses", "volumegroupsnapshotcontents", "volumegroupsnapshotcontents/status",
				"volumesnapshotclasses", "volumesnapshotcontents", "volumesnapshotcontents/status"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var names, rights []string
			for name, container := range containers(t, c.values) {
				names = append(names, name)
				if name == "plinth" {
					continue
				}
				if !slices.Contains(container.Args, "--csi-address=/csi/csi.sock") || len(container.VolumeMounts) != 1 || container.VolumeMounts[0].MountPath != "/csi" {
					t.Errorf("%s is not at the controller's socket: %v %v", name, container.Args, container.VolumeMounts)
				}
				if s := container.SecurityContext; s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem {
					t.Errorf("%s may do too much: %+v", name, s)
				}
			}
			for _, role := range all[rbacv1.ClusterRole](t, c.values, "ClusterRole") {
				for _, rule := range role.Rules {
					if strings.Contains(rule.APIGroups[0], "snapshot") && !slices.Contains(rule.Resources, "volumesnapshots") {
						rights = append(rights, rule.Resources...)
					}
				}
			}
			slices.Sort(names)
			slices.Sort(rights)
			if !slices.Equal(names, c.want) || !slices.Equal(rights, c.rights) {
				t.Errorf("containers %v, want %v; rights %v, want %v", names, c.want, rights, c.rights)
			}
		})
	}
}

// One sidecar of each kind works at a time, as one controller does.
func TestSidecarsElect(t *testing.T) {
	const elect = "--leader-election"
	for replicas, want := range map[string]bool{"1": false, "2": true} {
		for name, c := range containers(t, "{controller: {replicas: "+replicas+"}, snapshots: {enabled: true}}") {
			if name != "plinth" && slices.Contains(c.Args, elect) != want {
				t.Errorf("%s of %s controllers: %v", name, replicas, c.Args)
			}
		}
	}
}

func TestSidecarImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("a", 64)
	for values, want := range map[string]string{
		`{}`:                        "sig-storage/csi-resizer:v2.3.0",
		`{registry: r.example.com}`: "r.example.com/sig-storage/csi-resizer:v2.3.0",
		`{repository: a/b, digest: "` + digest + `"}`: "a/b@" + digest,
	} {
		if got := containers(t, "resizer: {image: "+values+"}")["csi-resizer"].Image; got != want {
			t.Errorf("%s: %s, want %s", values, got, want)
		}
	}
}
