//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// statefulSet is three web servers that serve what is on their volumes.
const statefulSet = `
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: None
  selector: {app: web}
  ports: [{name: http, port: 8080}]
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: web}
spec:
  serviceName: web
  replicas: 3
  podManagementPolicy: Parallel
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: main
        image: ` + image + `
        imagePullPolicy: IfNotPresent
        command: [busybox, httpd, -f, -p, "8080", -h, /data]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec:
      accessModes: [ReadWriteOnce]
      storageClassName: %s
      resources: {requests: {storage: 64Mi}}
`

// TestStatefulSet is the reason for Plinth, for each type of volume.
func TestStatefulSet(t *testing.T) {
	t.Parallel()
	for _, c := range variants {
		t.Run(c.volumeType+" on "+c.backend, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			e.apply(fmt.Sprintf(statefulSet, e.class(params{"pool": e.pool(c.backend), "volumeType": c.volumeType}, waiting)))
			e.comesBack("web")
			e.eventually("web-0 reads from web-1 by its name in the headless service", func() error {
				if got, err := e.sh("web-0", "wget -q -O - http://web-1.web:8080/written-by"); err != nil || got != "web-1" {
					return fmt.Errorf("got %q, %v", got, err)
				}
				return nil
			})
			for i := range 3 {
				v := e.volumeOf(fmt.Sprintf("data-web-%d", i))
				if got := typeOf(v.pv); got != c.volumeType {
					t.Errorf("PersistentVolume %s is of type %s, not %s", v.Name, got, c.volumeType)
				}
				if got := nodesOf(v.pv); !slices.Equal(got, []string{v.Spec.NodeName}) {
					t.Errorf("PersistentVolume %s of a pool of node %s lets itself be used on %v", v.Name, v.Spec.NodeName, got)
				}
			}
		})
	}
}

// TestSample applies the sample of the demo as it stands.
func TestSample(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	sample, err := os.ReadFile("../../deploy/samples/statefulset.yaml")
	e.must(err, "read the sample")
	for _, u := range e.apply(string(sample)) {
		if u.GetKind() == "StatefulSet" {
			e.comesBack(u.GetName())
			return
		}
	}
	t.Fatal("the sample has no StatefulSet")
}

// nodesOf are the nodes that a PersistentVolume's node affinity names.
func nodesOf(pv *corev1.PersistentVolume) []string {
	var names []string
	if a := pv.Spec.NodeAffinity; a != nil && a.Required != nil {
		for _, term := range a.Required.NodeSelectorTerms {
			for _, x := range term.MatchExpressions {
				if x.Key == driverName+"/node" && x.Operator == corev1.NodeSelectorOpIn {
					names = append(names, x.Values...)
				}
			}
		}
	}
	return names
}

// typeOf names the volume type of a PersistentVolume.
func typeOf(pv *corev1.PersistentVolume) string {
	switch s := pv.Spec.PersistentVolumeSource; {
	case s.CSI != nil:
		return "csi"
	case s.Local != nil:
		return "local"
	case s.HostPath != nil:
		return "hostPath"
	default:
		return fmt.Sprintf("%+v", s)
	}
}

// comesBack waits for a StatefulSet, writes through its pods, deletes one of
// them and expects it back with its name, node, claim and data.
func (e *env) comesBack(name string) {
	e.Helper()
	set := await(e, statefulSets, name, "ready with all replicas", func(s *appsv1.StatefulSet) error {
		if s.Status.ReadyReplicas != *s.Spec.Replicas {
			return fmt.Errorf("%d of %d replicas are ready", s.Status.ReadyReplicas, *s.Spec.Replicas)
		}
		return nil
	})
	dir := set.Spec.Template.Spec.Containers[0].VolumeMounts[0].MountPath
	template := set.Spec.VolumeClaimTemplates[0].Name
	for i := range int(*set.Spec.Replicas) {
		pod := fmt.Sprintf("%s-%d", name, i)
		e.mustSh(pod, fmt.Sprintf("echo %s > %s/written-by && sync", pod, dir))
	}
	pod := name + "-1"
	claim := template + "-" + pod
	before := get[corev1.Pod](e, pods, pod)
	claimBefore := get[corev1.PersistentVolumeClaim](e, claims, claim)
	e.remove(pods, pod)
	after := e.awaitNewPod(pod, before.UID)
	claimAfter := get[corev1.PersistentVolumeClaim](e, claims, claim)
	if after.Spec.NodeName != before.Spec.NodeName {
		e.Errorf("pod %s was on node %s and came back on %s", pod, before.Spec.NodeName, after.Spec.NodeName)
	}
	if claimAfter.UID != claimBefore.UID || claimAfter.Spec.VolumeName != claimBefore.Spec.VolumeName {
		e.Errorf("claim %s is another: %s on %s, was %s on %s", claim,
			claimAfter.UID, claimAfter.Spec.VolumeName, claimBefore.UID, claimBefore.Spec.VolumeName)
	}
	if got := e.mustSh(pod, "cat "+dir+"/written-by"); got != pod {
		e.Errorf("pod %s finds %q on its volume, wrote %q", pod, got, pod)
	}
}

// awaitNewPod waits until a pod of that name that is not the old one serves.
func (e *env) awaitNewPod(name string, old types.UID) *corev1.Pod {
	e.Helper()
	return await(e, pods, name, "back and ready", func(p *corev1.Pod) error {
		if p.UID == old {
			return fmt.Errorf("it is still the old one, deleted at %v", p.DeletionTimestamp)
		}
		return ready(p)
	})
}

// TestBinding: with Immediate a claim is bound without a pod; with
// WaitForFirstConsumer it waits for one and follows it.
func TestBinding(t *testing.T) {
	t.Parallel()
	for _, volumeType := range []string{"csi", "local", "hostPath"} {
		t.Run(volumeType, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			p := params{"pool": e.pool("btrfs"), "volumeType": volumeType}
			e.claim("immediate", e.class(p), "32Mi")
			home := e.volumeOf("immediate").Spec.NodeName
			e.pod("follows", "immediate")

			e.claim("waits", e.class(p, waiting), "32Mi")
			e.awaitEvent(claims, "waits", "WaitForFirstConsumer")
			node := e.nodeNames()[0]
			e.pod("leads", "waits", onlyOn(node))

			if got := await(e, pods, "follows", "ready", ready).Spec.NodeName; got != home {
				t.Errorf("the volume is on %s and its pod on %s", home, got)
			}
			await(e, pods, "leads", "ready", ready)
			if got := e.volumeOf("waits").Spec.NodeName; got != node {
				t.Errorf("the pod was bound to %s and its volume is on %s", node, got)
			}
		})
	}
}
