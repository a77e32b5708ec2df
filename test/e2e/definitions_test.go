//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
)

var definitions = kind{schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}, false}

// TestDefinitionsDeleted: whoever deletes Plinth's definitions is refused; where
// the policy is not there, every object is marked as deleted at once, and not
// one byte goes. The way back is that of docs/operations.md. Not in parallel:
// every volume of the cluster is concerned.
func TestDefinitionsDeleted(t *testing.T) {
	const definition, policy = "plinthvolumes.plinth.dev", "plinth-definitions"
	e := newEnv(t)
	class := e.class(params{"pool": e.pool("btrfs")})
	e.claim("used", class, "32Mi")
	e.pod("used", "used")
	await(e, pods, "used", "ready", ready)
	e.mustSh("used", "echo kept > /data/file && sync")
	used := e.volumeOf("used")
	e.claim("local", e.class(params{"pool": e.pool("image"), "volumeType": "local"}), "32Mi")
	idle := e.volumeOf("local")

	err := e.of(definitions).Delete(e.ctx, definition, metav1.DeleteOptions{})
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "uninstall") {
		t.Fatalf("the definition was deleted: %v", err)
	}
	bindings := e.kube.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	binding, err := bindings.Get(e.ctx, policy, metav1.GetOptions{})
	e.must(err, "read the policy's binding")
	e.must(bindings.Delete(e.ctx, policy, metav1.DeleteOptions{}), "delete the policy's binding")
	t.Cleanup(func() {
		_, err := bindings.Create(e.ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
			ObjectMeta: metav1.ObjectMeta{Name: policy, Labels: binding.Labels, Annotations: binding.Annotations}, Spec: binding.Spec,
		}, metav1.CreateOptions{})
		e.must(err, "put the policy's binding back")
	})
	saved, err := e.of(plinthVols).List(e.ctx, metav1.ListOptions{})
	e.must(err, "save the PlinthVolumes")
	gone := true
	back := func() {
		if gone {
			gone = false
			e.bringBack(definition, saved.Items)
		}
	}
	e.eventually("the definition is deleted", func() error {
		return e.of(definitions).Delete(e.ctx, definition, metav1.DeleteOptions{})
	})
	t.Cleanup(back) // if the test ends before
	for _, v := range []placed{used, idle} {
		await(e, plinthVols, v.Name, "held", func(v *v1alpha1.PlinthVolume) error {
			if v.DeletionTimestamp == nil || v.Status.Reason != v1alpha1.ReasonWithdrawn {
				return fmt.Errorf("deleted %v, reason %q: %s", v.DeletionTimestamp, v.Status.Reason, v.Status.Message)
			}
			return nil
		})
		e.hasBytes(v)
	}
	if got := e.mustSh("used", "echo more > /data/more && cat /data/file"); got != "kept" {
		t.Errorf("the pod reads %q", got)
	}

	back()
	for _, v := range []placed{used, idle} {
		await(e, plinthVols, v.Name, "ready again", func(v *v1alpha1.PlinthVolume) error {
			if v.Status.Phase != v1alpha1.VolumeReady || v.Status.Size == nil {
				return fmt.Errorf("phase %q: %s", v.Status.Phase, v.Status.Message)
			}
			return nil
		})
		e.hasBytes(v)
	}
	if got := e.mustSh("used", "cat /data/file"); got != "kept" {
		t.Errorf("the pod reads %q", got)
	}
	e.remove(pods, "used")
	e.remove(claims, "used")
	e.remove(claims, "local")
	e.awaitFreed(used)
	e.awaitFreed(idle)
}

// bringBack defines PlinthVolumes anew once they are no more, and makes those
// that were saved: the way back of docs/operations.md.
func (e *env) bringBack(definition string, saved []unstructured.Unstructured) {
	e.Helper()
	for _, v := range saved {
		_, err := e.of(plinthVols).Patch(e.ctx, v.GetName(), mergePatch, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		if !apierrors.IsNotFound(err) {
			e.must(err, "let go of PlinthVolume "+v.GetName())
		}
	}
	e.awaitGone(definitions, definition)
	e.define("plinth.dev_plinthvolumes.yaml")
	for _, v := range saved {
		for _, field := range [][]string{{"status"}, {"metadata", "uid"}, {"metadata", "resourceVersion"}, {"metadata", "creationTimestamp"}, {"metadata", "generation"}} {
			unstructured.RemoveNestedField(v.Object, field...)
		}
		e.eventually("PlinthVolume "+v.GetName()+" is made again", func() error { // its definition is served a moment later
			_, err := e.of(plinthVols).Create(e.ctx, &v, metav1.CreateOptions{})
			return err
		})
	}
}

// define installs one of the chart's definitions and waits until it is served.
func (e *env) define(file string) {
	e.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "charts", "plinth", "crds", file))
	e.must(err, "read a definition")
	u := &unstructured.Unstructured{}
	e.must(yaml.Unmarshal(text, &u.Object), "read a definition")
	_, err = e.of(definitions).Create(e.ctx, u, metav1.CreateOptions{})
	e.must(err, "install a definition")
	type served struct {
		Status struct {
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"status"`
	}
	await(e, definitions, u.GetName(), "served", func(d *served) error {
		if !meta.IsStatusConditionTrue(d.Status.Conditions, "Established") {
			return fmt.Errorf("conditions %+v", d.Status.Conditions)
		}
		return nil
	})
}
