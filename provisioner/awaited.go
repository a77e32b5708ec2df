package provisioner

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// byAwaited indexes the claims without a volume by what they are to have or
// to start with, so that its change is found to concern them.
const byAwaited = "awaited"

// awaitedVolume and awaitedClaim are the keys of that index.
func awaitedVolume(name string) string           { return "volume/" + name }
func awaitedClaim(namespace, name string) string { return "claim/" + namespace + "/" + name }

// awaited is the index function. VolumeSnapshots are not watched: a claim that
// waits for one is tried again with a back-off.
func awaited(o any) ([]string, error) {
	c, ok := o.(*corev1.PersistentVolumeClaim)
	if !ok || c.Spec.VolumeName != "" {
		return nil, nil
	}
	if adopts := c.Annotations[AnnotationAdopt]; adopts != "" {
		return []string{awaitedVolume(adopts)}, nil
	}
	if d := c.Spec.DataSourceRef; d != nil && d.Kind == claimKind {
		return []string{awaitedClaim(c.Namespace, d.Name)}, nil
	}
	if d := c.Spec.DataSource; d != nil && d.Kind == claimKind {
		return []string{awaitedClaim(c.Namespace, d.Name)}, nil
	}
	return nil, nil
}

// nudge has the claims that wait for something looked at now, however long
// they were to be left alone.
func (c *Controller) nudge(key string) {
	found, err := c.claims.GetIndexer().ByIndex(byAwaited, key)
	if err != nil {
		return // there is such an index
	}
	for _, o := range found {
		if claim, ok := o.(*corev1.PersistentVolumeClaim); ok {
			c.provisioner.limiter.Forget(string(claim.UID))
			c.steering.queue.Forget(cache.ObjectName{Namespace: claim.Namespace, Name: claim.Name})
			c.steering.claimChanged(claim)
			c.wakeClaim(claim.UID)
		}
	}
}
