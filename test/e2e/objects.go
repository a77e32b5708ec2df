//go:build e2e

package e2e

import (
	"fmt"
	"path"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiresource "k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

// driverName is the driver under test.
const driverName = "csi.plinth.dev"

// testLabel marks what belongs to a test, by its namespace.
const testLabel = "plinth.dev/test-namespace"

// image is what the test pods run.
const image = "docker.io/library/busybox:1.37"

// The kinds of object that the tests use.
var (
	namespaces   = kind{corev1.SchemeGroupVersion.WithResource("namespaces"), false}
	pods         = kind{corev1.SchemeGroupVersion.WithResource("pods"), true}
	claims       = kind{corev1.SchemeGroupVersion.WithResource("persistentvolumeclaims"), true}
	events       = kind{corev1.SchemeGroupVersion.WithResource("events"), true}
	volumes      = kind{corev1.SchemeGroupVersion.WithResource("persistentvolumes"), false}
	statefulSets = kind{appsv1.SchemeGroupVersion.WithResource("statefulsets"), true}
	classes      = kind{storagev1.SchemeGroupVersion.WithResource("storageclasses"), false}
	plinthVols   = kind{v1alpha1.GroupVersion.WithResource("plinthvolumes"), false}
	nodes        = kind{corev1.SchemeGroupVersion.WithResource("nodes"), false}
	plinthNodes  = kind{v1alpha1.GroupVersion.WithResource("plinthnodes"), false}
)

// params are the parameters of a StorageClass.
type params = map[string]string

// class makes a StorageClass that is removed with the test; it binds at once
// and deletes unless a change says otherwise.
func (e *env) class(p params, changes ...func(*storagev1.StorageClass)) string {
	e.Helper()
	c := &storagev1.StorageClass{
		ObjectMeta:        metav1.ObjectMeta{GenerateName: e.ns + "-", Labels: map[string]string{testLabel: e.ns}},
		Provisioner:       driverName,
		Parameters:        p,
		VolumeBindingMode: new(storagev1.VolumeBindingImmediate),
		ReclaimPolicy:     new(corev1.PersistentVolumeReclaimDelete),
	}
	for _, change := range changes {
		change(c)
	}
	made, err := e.kube.StorageV1().StorageClasses().Create(e.ctx, c, metav1.CreateOptions{})
	e.must(err, "make a StorageClass")
	return made.Name
}

// waiting has the class bind when the first pod is placed.
func waiting(c *storagev1.StorageClass) {
	c.VolumeBindingMode = new(storagev1.VolumeBindingWaitForFirstConsumer)
}

// retaining has the class keep volumes.
func retaining(c *storagev1.StorageClass) {
	c.ReclaimPolicy = new(corev1.PersistentVolumeReclaimRetain)
}

// madeOn has the class make volumes on one node.
func madeOn(node string) func(*storagev1.StorageClass) {
	return func(c *storagev1.StorageClass) {
		c.AllowedTopologies = []corev1.TopologySelectorTerm{{MatchLabelExpressions: []corev1.TopologySelectorLabelRequirement{
			{Key: driverName + "/node", Values: []string{node}}}}}
	}
}

// claim makes a claim: ReadWriteOnce and Filesystem unless a change says
// otherwise.
func (e *env) claim(name, class, size string, changes ...func(*corev1.PersistentVolumeClaim)) {
	e.Helper()
	c := &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: apiresource.MustParse(size)}},
		},
	}
	for _, change := range changes {
		change(c)
	}
	_, err := e.kube.CoreV1().PersistentVolumeClaims(e.ns).Create(e.ctx, c, metav1.CreateOptions{})
	e.must(err, "make claim "+name)
}

// block asks for a block device.
func block(c *corev1.PersistentVolumeClaim) { c.Spec.VolumeMode = new(corev1.PersistentVolumeBlock) }

// access asks for an access mode.
func access(m corev1.PersistentVolumeAccessMode) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) { c.Spec.AccessModes = []corev1.PersistentVolumeAccessMode{m} }
}

// pod makes a pod that has the claim at /data and idles.
func (e *env) pod(name, claim string, changes ...func(*corev1.Pod)) {
	e.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			TerminationGracePeriodSeconds: new(int64(1)),
			Containers: []corev1.Container{{
				Name: "main", Image: image, ImagePullPolicy: corev1.PullIfNotPresent,
				Command:      []string{"sh", "-c", "exec tail -f /dev/null"},
				VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}},
			}},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim}}}},
		},
	}
	for _, change := range changes {
		change(p)
	}
	_, err := e.kube.CoreV1().Pods(e.ns).Create(e.ctx, p, metav1.CreateOptions{})
	e.must(err, "make pod "+name)
}

// running has the pod run a shell script.
func running(script string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.Containers[0].Command = []string{"sh", "-c", script} }
}

// onlyOn binds the pod to a node, by way of the scheduler.
func onlyOn(node string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{corev1.LabelHostname: node} }
}

// withoutGrace has the pod end at once.
func withoutGrace(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64) }

// withDevice gives the claim to the pod as the block device /dev/volume.
func withDevice(p *corev1.Pod) {
	c := &p.Spec.Containers[0]
	c.VolumeMounts = nil
	c.VolumeDevices = []corev1.VolumeDevice{{Name: "data", DevicePath: "/dev/volume"}}
}

// ready is what await wants of a pod that serves.
func ready(p *corev1.Pod) error {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil {
			return nil
		}
	}
	return fmt.Errorf("phase %s, conditions %v", p.Status.Phase, p.Status.Conditions)
}

// bound is what await wants of a claim that has its volume.
func bound(c *corev1.PersistentVolumeClaim) error {
	if c.Status.Phase != corev1.ClaimBound {
		return fmt.Errorf("phase %s", c.Status.Phase)
	}
	return nil
}

// placed is a claim's volume: its objects and where the node keeps it.
type placed struct {
	*v1alpha1.PlinthVolume
	pv   *corev1.PersistentVolume
	pool v1alpha1.PoolStatus
}

// volumeOf waits for the claim to be bound and finds its volume.
func (e *env) volumeOf(claim string) placed {
	e.Helper()
	c := await(e, claims, claim, "bound", bound)
	v := placed{PlinthVolume: get[v1alpha1.PlinthVolume](e, plinthVols, c.Spec.VolumeName), pv: get[corev1.PersistentVolume](e, volumes, c.Spec.VolumeName)}
	if v.PlinthVolume == nil || v.pv == nil {
		e.Fatalf("claim %s is bound to %s, which has PersistentVolume %v and PlinthVolume %v", claim, c.Spec.VolumeName, v.pv != nil, v.PlinthVolume != nil)
	}
	v.pool = e.poolOn(v.Spec.NodeName, v.Spec.Pool)
	return v
}

// paths are the places where the pool may keep the volume's bytes.
func (v placed) paths() []string {
	return []string{path.Join(v.pool.Path, "volumes", v.Name), path.Join(v.pool.Path, "volumes", v.Name+".img")}
}

// poolOn reads the status of one pool.
func (e *env) poolOn(node, pool string) v1alpha1.PoolStatus {
	e.Helper()
	n := get[v1alpha1.PlinthNode](e, plinthNodes, node)
	if n == nil {
		e.Fatalf("there is no PlinthNode %s", node)
	}
	for _, p := range n.Status.Pools {
		if p.Name == pool {
			return p
		}
	}
	e.Fatalf("PlinthNode %s has no pool %s", node, pool)
	return v1alpha1.PoolStatus{}
}

// poolWhere finds the name of a pool that serves on every node and is as
// wanted.
func (e *env) poolWhere(what string, wanted func(v1alpha1.PoolStatus) bool) string {
	e.Helper()
	found := map[string]int{}
	all := list[v1alpha1.PlinthNode](e, plinthNodes)
	for _, n := range all {
		for _, p := range n.Status.Pools {
			if p.State == "Ready" && wanted(p) {
				found[p.Name]++
			}
		}
	}
	var names []string
	for name, count := range found {
		if count == len(all) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		e.Fatalf("no %s serves on all %d nodes; found on some: %v", what, len(all), found)
	}
	return slices.Min(names)
}

// pool finds a node-local pool of a backend.
func (e *env) pool(backend string) string {
	e.Helper()
	return e.poolWhere("node-local pool with backend "+backend, func(p v1alpha1.PoolStatus) bool { return p.Backend == backend && !p.Shared })
}

// sharedPool finds a pool that every node has.
func (e *env) sharedPool() string {
	e.Helper()
	return e.poolWhere("shared pool of directories", func(p v1alpha1.PoolStatus) bool { return p.Shared && len(p.FSTypes) == 0 })
}

// nodeNames lists the nodes that have pools.
func (e *env) nodeNames() []string {
	e.Helper()
	var names []string
	for _, n := range list[v1alpha1.PlinthNode](e, plinthNodes) {
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return names
}

// plinthPods lists the pods of a component of Plinth: node or controller.
func (e *env) plinthPods(component string) []corev1.Pod {
	e.Helper()
	l, err := e.kube.CoreV1().Pods("").List(e.ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/name=plinth,app.kubernetes.io/component=" + component})
	e.must(err, "list the "+component+" pods")
	if len(l.Items) == 0 {
		e.Fatalf("there is no %s pod of Plinth", component)
	}
	return l.Items
}
