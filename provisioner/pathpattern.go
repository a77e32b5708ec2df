package provisioner

import (
	"fmt"
	"strings"

	"github.com/plinth-csi/plinth/driver/volume"
)

// pathPattern says where the volumes of a class are to be found, below the
// directory paths of their pool: "{namespace}/{claim}". Its variables are
// fixed, its values are names that Kubernetes has checked, and what comes out
// is checked again as a whole (volume.ParsePath), so there is nothing in it to
// escape from.
type pathPattern string

// The variables of a pattern.
const (
	varNamespace = "{namespace}" // of the claim
	varClaim     = "{claim}"     // its name
	varVolume    = "{volume}"    // the name of its PersistentVolume
)

// parsePathPattern refuses a pattern that gives no path to an ordinary claim,
// or that would give one path to all of them.
func parsePathPattern(s string) (pathPattern, error) {
	p := pathPattern(s)
	if !strings.Contains(s, varClaim) && !strings.Contains(s, varVolume) {
		return "", fmt.Errorf("parameter %s: %.80q has neither %s nor %s, so claims could not be told apart", ParamPathPattern, s, varClaim, varVolume)
	}
	if _, err := p.expand("n", "c", "v"); err != nil {
		return "", err
	}
	return p, nil
}

// expand gives the path for a claim.
func (p pathPattern) expand(namespace, claim, pv string) (volume.Path, error) {
	s := strings.NewReplacer(varNamespace, namespace, varClaim, claim, varVolume, pv).Replace(string(p))
	if strings.ContainsAny(s, "{}") {
		return "", fmt.Errorf("parameter %s: %.80q has a brace that is not of %s, %s or %s", ParamPathPattern, string(p), varNamespace, varClaim, varVolume)
	}
	path, err := volume.ParsePath(s)
	if err != nil {
		return "", fmt.Errorf("parameter %s: %s", ParamPathPattern, strings.TrimPrefix(err.Error(), volume.ErrInvalid.Error()+": "))
	}
	return path, nil
}

// parkForPath leaves a claim until its path is free. Where no volume of this
// cluster is in the way it is tried again with a back-off: the one that was may
// have gone meanwhile, and of others nobody would hear.
func (p *Provisioner) parkForPath(w *order, path volume.Path, fault error) error {
	p.limiter.rest(string(w.claim.UID))
	p.parked.awaitPath(w.claim, w.sc.Name, path, fault.Error())
	for _, v := range p.view.Volumes() {
		if v.Name != w.name && v.Spec.Path != "" && volume.Path(v.Spec.Path).Clashes(path) {
			return fault
		}
	}
	p.parked.drop(w.claim.UID)
	p.limiter.begin(string(w.claim.UID))
	return fault
}
