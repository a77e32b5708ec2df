//go:build e2e

package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// badInput is one way to ask for what cannot be.
type badInput struct {
	key        string // as the table in docs/storageclass.md has it
	backend    string // of the pool, which the class names unless it says otherwise; "" is btrfs
	class      params
	attributes params // of a VolumeAttributesClass that the claim names
	pod        params // of a volume written in a pod, in place of a claim
	claim      func(*corev1.PersistentVolumeClaim)
	words      []string // of the event; POOL stands for the pool's name
}

func annotated(key, value string) func(*corev1.PersistentVolumeClaim) {
	return func(c *corev1.PersistentVolumeClaim) { c.Annotations = map[string]string{key: value} }
}

func badInputs() []badInput {
	cloning := func(c *corev1.PersistentVolumeClaim) {
		c.Annotations = map[string]string{"plinth.dev/adopt": "any"}
		c.Spec.DataSource = &corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "other"}
	}
	return []badInput{
		{key: "pool", class: params{"pool": "../etc"}, words: []string{"parameter pool", "../etc", "is not the name of a pool"}},
		{key: "pool", class: params{"pool": "nosuch"}, words: []string{"unknown pool nosuch", "POOL"}},
		{key: "pool", pod: params{"pool": "nosuch"}, words: []string{"nosuch", "POOL"}},
		{key: "volumeType", class: params{"volumeType": "nfs"}, words: []string{"nfs", "is not one of csi, local, hostPath"}},
		{key: "volumeType", backend: "image", class: params{"volumeType": "local"}, claim: block, words: []string{"Block", "cannot be volumeType local"}},
		{key: "csi.storage.k8s.io/fstype", backend: "image", class: params{"csi.storage.k8s.io/fstype": "ntfs"}, words: []string{"ntfs", "is not one of ext4, xfs"}},
		{key: "csi.storage.k8s.io/fstype", class: params{"csi.storage.k8s.io/fstype": "xfs"}, words: []string{"POOL", "gives directories"}},
		{key: "pathPattern", class: params{"volumeType": "local", "pathPattern": "{namespace}"}, words: []string{"{namespace}", "could not be told apart"}},
		{key: "pathPattern", class: params{"volumeType": "local", "pathPattern": "{pod}/{claim}"}, words: []string{"{pod}", "has a brace that is not of"}},
		{key: "pathPattern", class: params{"volumeType": "hostPath", "pathPattern": "../../{claim}"}, words: []string{"parameter pathPattern", "has the segment", "begins with a letter or a digit"}},
		{key: "pathPattern", class: params{"pathPattern": "{claim}"}, words: []string{"goes with volumeType local and hostPath"}},
		{key: "provisioning", class: params{"provisioning": "medium"}, words: []string{"medium", "is neither thick nor thin"}},
		{key: "provisioning", class: params{"provisioning": "thick"}, words: []string{"POOL", "cannot honour parameter provisioning: thick", "image"}},
		{key: "onDelete", class: params{"onDelete": "burn"}, words: []string{"burn", "is not one of delete, scrub, trash"}},
		{key: "onDelete", class: params{"onDelete": "trash"}, words: []string{"trash needs trashKeep", "7d"}},
		{key: "trashKeep", class: params{"onDelete": "trash", "trashKeep": "soon"}, words: []string{"soon", "is not a time such as"}},
		{key: "trashKeep", class: params{"onDelete": "scrub", "trashKeep": "7d"}, words: []string{"goes with onDelete: trash alone"}},
		{key: "mkfsOptions", class: params{"mkfsOptions": "-i 8192"}, words: []string{"POOL", "makes no filesystem", "mkfsOptions"}},
		{key: "mkfsOptions", backend: "image", class: params{"mkfsOptions": "-U 1"}, words: []string{"POOL", "mkfs option not allowed", "-N"}},
		{key: "mkfsOptions", backend: "image", class: params{"mkfsOptions": "-i 8192"}, claim: block, words: []string{"Block", "has no filesystem"}},
		{key: "mode", class: params{"mode": "rwx"}, words: []string{"rwx", "is not the permissions of a directory", "0770"}},
		{key: "mode", class: params{"mode": "4755"}, words: []string{"4755", "at most 3777"}},
		{key: "mode", backend: "image", class: params{"mode": "0770"}, claim: block, words: []string{"Block", "has no root directory"}},
		{key: "mode", pod: params{"mode": "0"}, words: []string{"is not the permissions of a directory"}},
		{key: "owner", class: params{"owner": "postgres"}, words: []string{"postgres", "is not uid:gid"}},
		{key: "owner", backend: "image", class: params{"owner": "1000:1000"}, claim: block, words: []string{"Block", "has no root directory"}},
		{key: "inodeLimit", attributes: params{"inodeLimit": "many"}, words: []string{"many", "is not a number of inodes"}},
		{key: "inodeLimit", attributes: params{"inodeLimit": "1000"}, words: []string{"POOL", "has no inodeLimit", "project quotas"}},
		{key: "softLimit", attributes: params{"softLimit": "80"}, words: []string{"is not a percentage", "0% to 99%"}},
		{key: "softLimit", attributes: params{"softLimit": "80%"}, words: []string{"POOL", "has no inodeLimit and softLimit"}},
		{key: "softLimit", attributes: params{"softLimit": "80%"}, class: params{"volumeType": "local"}, words: []string{"volumeAttributesClassName", "local"}},
		{key: "plinth.dev/adopt", claim: annotated("plinth.dev/adopt", "../escape"), words: []string{"plinth.dev/adopt", "is not a DNS label"}},
		{key: "plinth.dev/adopt", claim: annotated("plinth.dev/adopt", "nosuch"), words: []string{"nosuch", "not found"}},
		{key: "plinth.dev/adopt", claim: cloning, words: []string{"leave one of them out"}},
		{key: "size", pod: params{"size": "big"}, words: []string{"big", "is not a quantity of bytes"}},
		// What no table lists.
		{key: "", class: params{"colour": "red"}, words: []string{"unknown parameter", "colour", "volumeType", "mode"}},
		{key: "", pod: params{"colour": "red"}, words: []string{"unknown attribute", "colour", "size"}},
		{key: "", attributes: params{"iops": "5"}, words: []string{"iops", "cannot be changed", "inodeLimit"}},
	}
}

// TestBadInput walks the table of docs/storageclass.md: for each key a wrong
// value and an impossible combination, and keys that there are not. Each is
// refused by an event that says so, and nothing is made.
func TestBadInput(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	tried := map[string]bool{
		"plinth.dev/adopters": true, // TestAdoptRefused: it takes two namespaces
	}
	for i, in := range badInputs() {
		tried[in.key] = true
		pool := e.pool("btrfs")
		if in.backend != "" {
			pool = e.pool(in.backend)
		}
		name := "in-" + string(rune('a'+i/10)) + string(rune('0'+i%10))
		kind, reason := claims, "ProvisioningFailed"
		if in.pod != nil {
			kind, reason = pods, "FailedMount"
			e.pod(name, "", inline(in.pod, ""))
		} else {
			e.askBadly(name, pool, in)
		}
		t.Run(strings.Join(append([]string{in.key}, in.words[0]), " "), func(t *testing.T) {
			t.Parallel()
			e := &env{T: t, cluster: e.cluster, ctx: e.ctx, ns: e.ns}
			words := make([]string, len(in.words))
			for i, w := range in.words {
				words[i] = strings.ReplaceAll(w, "POOL", pool)
			}
			t.Log(e.awaitEvent(kind, name, reason, words...))
			if in.pod != nil {
				return
			}
			if got := get[corev1.PersistentVolumeClaim](e, claims, name).Status.Phase; got != corev1.ClaimPending {
				t.Errorf("the claim is %s", got)
			}
		})
	}
	doc, err := os.ReadFile("../../docs/storageclass.md")
	e.must(err, "read the documentation")
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Za-z0-9./-]+)` \\|(?:[^|]+\\|){4}$").FindAllStringSubmatch(string(doc), -1) {
		if !tried[row[1]] {
			t.Errorf("nothing wrong is tried with %s, which docs/storageclass.md lists", row[1])
		}
	}
}

// askBadly makes the claim of a row, with the classes that it names.
func (e *env) askBadly(name, pool string, in badInput) {
	e.Helper()
	p := params{"pool": pool}
	for k, v := range in.class {
		p[k] = v
	}
	e.claim(name, e.class(p), "32Mi", func(c *corev1.PersistentVolumeClaim) {
		if in.attributes != nil {
			c.Spec.VolumeAttributesClassName = new(e.attributesClass(in.attributes))
		}
		if in.claim != nil {
			in.claim(c)
		}
	})
}

// attributesClass makes a VolumeAttributesClass that is removed with the test.
func (e *env) attributesClass(p params) string {
	e.Helper()
	client := e.kube.StorageV1().VolumeAttributesClasses()
	made, err := client.Create(e.ctx, &storagev1.VolumeAttributesClass{
		ObjectMeta: metav1.ObjectMeta{GenerateName: e.ns + "-", Labels: map[string]string{testLabel: e.ns}},
		DriverName: driverName, Parameters: p,
	}, metav1.CreateOptions{})
	e.must(err, "make a VolumeAttributesClass")
	return made.Name
}
