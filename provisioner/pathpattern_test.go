package provisioner

import (
	"errors"
	"strings"
	"testing"

	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"

	"github.com/plinth-csi/plinth/driver/volume"
	"github.com/plinth-csi/plinth/provisioner/api/v1alpha1"
	"github.com/plinth-csi/plinth/provisioner/ledger"
)

func TestPathPattern(t *testing.T) {
	long := strings.Repeat("x", 253)
	for _, c := range []struct {
		pattern, namespace, claim string
		want                      volume.Path
		fault                     string // of the pattern, or of this claim
	}{
		{pattern: "{namespace}/{claim}", want: "shop/data-db-0"},
		{pattern: "{claim}", want: "data-db-0"},
		{pattern: "k8s/{namespace}-{claim}/{volume}", want: "k8s/shop-data-db-0/pvc-1"},
		{pattern: "{claim}/{claim}", want: "data-db-0/data-db-0"},
		{pattern: "{namespace}/{claim}", claim: "www.example.org", want: "shop/www.example.org"},
		{pattern: "", fault: "has neither"},
		{pattern: "{namespace}", fault: "has neither"},
		{pattern: "data", fault: "has neither"},
		{pattern: "/{claim}", fault: `the segment ""`},
		{pattern: "{claim}/", fault: `the segment ""`},
		{pattern: "{namespace}//{claim}", fault: `the segment ""`},
		{pattern: "../{claim}", fault: `the segment ".."`},
		{pattern: "{claim}/../../etc", fault: `the segment ".."`},
		{pattern: "./{claim}", fault: `the segment "."`},
		{pattern: ".{claim}", fault: `the segment ".c"`},
		{pattern: "{claim} x", fault: `the segment "c x"`},
		{pattern: "a\\{claim}", fault: "the segment"},
		{pattern: "{claim}\x00", fault: "the segment"},
		{pattern: "{claim}/{node}", fault: "brace"},
		{pattern: "{ claim }/{volume}", fault: "brace"},
		{pattern: "{{claim}}", fault: "brace"},
		{pattern: "${.PVC.name}/{claim}", fault: "brace"},
		{pattern: "{{ .PVC.namespace }}/{claim}", fault: "brace"},
		{pattern: "1/2/3/4/5/6/7/8/{claim}", fault: "segments"},
		{pattern: "{claim}-{namespace}", claim: long, fault: "at most 255"},
		{pattern: "{claim}/{claim}/{claim}", claim: long, fault: "most are 512"},
		// No such names come from Kubernetes; a pattern does not rely on that.
		{pattern: "{namespace}/{claim}", claim: "..", fault: `the segment ".."`},
		{pattern: "{namespace}/{claim}", claim: "{volume}", fault: "brace"},
		{pattern: "{namespace}/{claim}", namespace: "../..", fault: `the segment ".."`},
	} {
		t.Run(c.pattern+" "+c.claim, func(t *testing.T) {
			if c.namespace == "" {
				c.namespace = "shop"
			}
			if c.claim == "" {
				c.claim = "data-db-0"
			}
			p, err := parsePathPattern(c.pattern)
			var got volume.Path
			if err == nil {
				got, err = p.expand(c.namespace, c.claim, "pvc-1")
			}
			if c.fault == "" && (err != nil || got != c.want) {
				t.Errorf("%q, %v", got, err)
			}
			if c.fault != "" && (err == nil || !strings.Contains(err.Error(), c.fault) || !strings.Contains(err.Error(), ParamPathPattern)) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// TestPathTaken: a claim whose path another volume has is told so, waits, and
// is tried again once that one is gone.
func TestPathTaken(t *testing.T) {
	for _, known := range []bool{true, false} {
		m := &ledger.Memory{}
		reports(t, m, "n1", btrfs("a", "10Gi"))
		if known {
			retainedOn(t, m, func(v *v1alpha1.PlinthVolume) { v.Spec.VolumeType, v.Spec.Path = v1alpha1.VolumeTypeLocal, "default/c" })
		}
		one := claim("c", "1Gi")
		b := setUp(t, m, one, readyNode("n1"))
		(&fakeNode{name: "n1", answer: refuses(v1alpha1.ReasonPathTaken)}).run(t, m)
		sc := class("sc", map[string]string{"volumeType": "local", "pathPattern": "{namespace}/{claim}"})
		_, state, err := b.provision(one, sc, "n1")
		if state != controller.ProvisioningFinished || err == nil || !strings.Contains(err.Error(), "the node says PathTaken") {
			t.Fatal(state, err)
		}
		if errors.Is(err, volume.ErrInvalid) {
			t.Errorf("invalid: %v", err)
		}
		parked, waits := b.provisioner.parked.claims[one.UID]
		if waits != known || known && (parked.path != "default/c" || parked.request != nil) {
			t.Errorf("parked %t: %+v", waits, parked)
		}
		if !known {
			continue
		}
		woken := b.listen()
		old, err := m.GetVolume(t.Context(), "old")
		if err == nil {
			err = m.DeleteVolume(t.Context(), old)
		}
		if err != nil {
			t.Fatal(err)
		}
		if uid := woken.next(t); uid != string(one.UID) {
			t.Errorf("woken: %s", uid)
		}
	}
}
