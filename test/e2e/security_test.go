//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

const mergePatch = types.MergePatchType

// as is a client with the token of a pod's service account, bound to that pod
// as kubelet would bind it, or to none.
func (e *env) as(p *corev1.Pod, boundToPod bool) dynamic.Interface {
	e.Helper()
	request := &authenticationv1.TokenRequest{}
	if boundToPod {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID}
	}
	request, err := e.kube.CoreV1().ServiceAccounts(p.Namespace).CreateToken(e.ctx, p.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	e.must(err, "ask for a token of "+p.Name)
	config := rest.AnonymousClientConfig(e.config)
	config.BearerToken = request.Status.Token
	client, err := dynamic.NewForConfig(config)
	e.must(err, "make a client")
	return client
}

// TestAgentSpeaksForItself: with the token of one node's agent, the objects
// of that node can be written as the agent has to, and nothing else.
func TestAgentSpeaksForItself(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	names := e.nodeNames()
	own, other := names[0], names[1]
	class := e.class(params{"pool": e.pool("btrfs")}, waiting)
	for claim, node := range map[string]string{"own": own, "other": other} {
		e.claim(claim, class, "16Mi")
		e.pod(claim, claim, onlyOn(node))
	}
	ownVolume, otherVolume := e.volumeOf("own").Name, e.volumeOf("other").Name
	agent := e.as(e.agentOn(own), true)
	unbound := e.as(e.agentOn(own), false)

	// Every write is a dry run: admission decides, nothing changes.
	dry := []string{metav1.DryRunAll}
	updateStatus := func(c dynamic.Interface, r kind, name, field string) error {
		return retry.RetryOnConflict(retry.DefaultRetry, func() error {
			u, err := e.of(r).Get(e.ctx, name, metav1.GetOptions{})
			e.must(err, "get "+name)
			e.must(unstructured.SetNestedField(u.Object, "forged", "status", field), "change "+name)
			_, err = c.Resource(r.GroupVersionResource).UpdateStatus(e.ctx, u, metav1.UpdateOptions{DryRun: dry})
			return err
		})
	}
	patch := func(c dynamic.Interface, r kind, name string, change any) error {
		b, err := json.Marshal(change)
		e.must(err, "write a patch")
		_, err = c.Resource(r.GroupVersionResource).Patch(e.ctx, name, mergePatch, b, metav1.PatchOptions{DryRun: dry})
		return err
	}
	create := func(c dynamic.Interface, r kind, name string) error {
		u := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": v1alpha1.GroupVersion.String(), "kind": "PlinthNode", "metadata": map[string]any{"name": name}}}
		if r == plinthVols {
			u.SetKind("PlinthVolume")
			u.Object["spec"] = map[string]any{"nodeName": own, "pool": "p", "size": "1Mi", "volumeMode": "Filesystem", "volumeType": "csi"}
		}
		_, err := c.Resource(r.GroupVersionResource).Create(e.ctx, u, metav1.CreateOptions{DryRun: dry})
		return err
	}
	remove := func(c dynamic.Interface, r kind, name string) error {
		return c.Resource(r.GroupVersionResource).Delete(e.ctx, name, metav1.DeleteOptions{DryRun: dry})
	}
	noFinalizer := map[string]any{"metadata": map[string]any{"finalizers": nil}}
	for _, c := range []struct {
		name    string
		allowed bool
		err     error
	}{
		{"status of the own node", true, updateStatus(agent, plinthNodes, own, "version")},
		{"status of another node", false, updateStatus(agent, plinthNodes, other, "version")},
		{"status of the own volume", true, updateStatus(agent, plinthVols, ownVolume, "message")},
		{"status of another node's volume", false, updateStatus(agent, plinthVols, otherVolume, "message")},
		{"status of the own node, token bound to no pod", false, updateStatus(unbound, plinthNodes, own, "version")},
		{"status of the own volume, token bound to no pod", false, updateStatus(unbound, plinthVols, ownVolume, "message")},
		{"finalizer of another node's volume", false, patch(agent, plinthVols, otherVolume, noFinalizer)},
		{"finalizer of the own volume that is in use", false, patch(agent, plinthVols, ownVolume, noFinalizer)},
		{"size of the own volume", false, patch(agent, plinthVols, ownVolume, map[string]any{"spec": map[string]any{"size": "1Gi"}})},
		{"labels of the own volume", false, patch(agent, plinthVols, ownVolume, map[string]any{"metadata": map[string]any{"labels": map[string]string{"a": "b"}}})},
		{"making a volume", false, create(agent, plinthVols, "forged")},
		{"making a node of another name", false, create(agent, plinthNodes, "forged")},
		{"deleting the own volume", false, remove(agent, plinthVols, ownVolume)},
		{"deleting another node's volume", false, remove(agent, plinthVols, otherVolume)},
		{"deleting another node", false, remove(agent, plinthNodes, other)},
	} {
		if c.allowed && c.err != nil {
			t.Errorf("%s: refused: %v", c.name, c.err)
		}
		if !c.allowed && !apierrors.IsForbidden(c.err) {
			t.Errorf("%s: should be Forbidden, got %v", c.name, c.err)
		}
	}
}

// TestFewRights: neither service account may do what its part has no use for.
func TestFewRights(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	type right struct{ verb, group, resource, subresource string }
	both := []right{
		{"get", "", "secrets", ""}, {"create", "", "pods", ""}, {"create", "", "pods", "exec"}, {"delete", "", "nodes", ""}, {"patch", "", "nodes", ""},
		{"create", "rbac.authorization.k8s.io", "clusterrolebindings", ""}, {"create", "", "serviceaccounts", "token"}, {"update", "apps", "daemonsets", ""},
	}
	for component, refused := range map[string][]right{
		"node":       append(both, right{"get", "", "pods", ""}, right{"create", "", "persistentvolumes", ""}, right{"delete", "plinth.dev", "plinthvolumes", ""}),
		"controller": append(both, right{"update", "plinth.dev", "plinthvolumes", "status"}, right{"update", "plinth.dev", "plinthnodes", "status"}),
	} {
		p := e.plinthPods(component)[0]
		for _, r := range refused {
			review, err := e.kube.AuthorizationV1().SubjectAccessReviews().Create(e.ctx, &authorizationv1.SubjectAccessReview{
				Spec: authorizationv1.SubjectAccessReviewSpec{
					User:   fmt.Sprintf("system:serviceaccount:%s:%s", p.Namespace, p.Spec.ServiceAccountName),
					Groups: []string{"system:serviceaccounts", "system:serviceaccounts:" + p.Namespace, "system:authenticated"},
					ResourceAttributes: &authorizationv1.ResourceAttributes{
						Verb: r.verb, Group: r.group, Resource: r.resource, Subresource: r.subresource, Namespace: p.Namespace},
				}}, metav1.CreateOptions{})
			e.must(err, "ask what is allowed")
			if review.Status.Allowed {
				t.Errorf("the %s may %v: %s", component, r, review.Status.Reason)
			}
		}
	}
}

// TestControllerUnprivileged: the controller's process has no capability, is
// not root, and its pod sees nothing of its node.
func TestControllerUnprivileged(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for _, p := range e.plinthPods("controller") {
		if p.Spec.HostNetwork || p.Spec.HostPID || p.Spec.HostIPC {
			t.Errorf("pod %s shares namespaces with its node", p.Name)
		}
		for _, v := range p.Spec.Volumes {
			if v.HostPath != nil {
				t.Errorf("pod %s has %s of its node", p.Name, v.HostPath.Path)
			}
		}
		for i, c := range p.Spec.Containers {
			s := c.SecurityContext
			if s == nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
				t.Errorf("container %s may write its image or gain privileges: %+v", c.Name, s)
			}
			_, id, _ := strings.Cut(p.Status.ContainerStatuses[i].ContainerID, "://")
			tasks := e.mustOnNode(p.Spec.NodeName, "ctr", "--namespace", "k8s.io", "tasks", "list")
			for line := range strings.Lines(tasks) {
				f := strings.Fields(line)
				if len(f) < 2 || f[0] != id {
					continue
				}
				for field := range strings.Lines(e.mustOnNode(p.Spec.NodeName, "cat", "/proc/"+f[1]+"/status")) {
					k, v, _ := strings.Cut(strings.TrimSpace(field), ":\t")
					if k == "Uid" && strings.HasPrefix(v, "0\t") {
						t.Errorf("container %s runs as root", c.Name)
					}
					if (k == "CapEff" || k == "CapPrm" || k == "CapBnd") && strings.Trim(v, "0") != "" {
						t.Errorf("container %s has capabilities: %s %s", c.Name, k, v)
					}
				}
			}
		}
	}
}
