//go:build bench

package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// senders is how many claims are written or deleted at a time in a burst.
const senders = 50

// moment is when a claim was seen to be bound.
type moment struct {
	claim string
	at    time.Time
}

// bounds tells of each new claim of the namespace when it is bound, until ctx
// ends.
func (c *cluster) bounds(ctx context.Context) <-chan moment {
	c.Helper()
	claims, err := c.kube.CoreV1().PersistentVolumeClaims(c.ns).List(ctx, metav1.ListOptions{})
	c.must(err, "list claims")
	told := map[string]bool{}
	for _, claim := range claims.Items {
		told[claim.Name] = true
	}
	out := make(chan moment, 16)
	go func() {
		defer close(out)
		follow(ctx, claims.ResourceVersion, c.kube.CoreV1().PersistentVolumeClaims(c.ns).Watch, func(e watch.Event) {
			claim, ok := e.Object.(*corev1.PersistentVolumeClaim)
			if !ok || claim.Status.Phase != corev1.ClaimBound || told[claim.Name] {
				return
			}
			told[claim.Name] = true
			select {
			case out <- moment{claim.Name, time.Now()}:
			case <-ctx.Done():
			}
		})
	}()
	return out
}

// follow shows every change since a version until ctx ends. The API server ends
// the watch of who is slow on a busy machine; it then goes on at once where it was.
func follow(ctx context.Context, version string, begin func(context.Context, metav1.ListOptions) (watch.Interface, error), see func(watch.Event)) {
	for ctx.Err() == nil {
		w, err := begin(ctx, metav1.ListOptions{ResourceVersion: version})
		if err != nil {
			return
		}
		for e := range w.ResultChan() {
			m, err := meta.Accessor(e.Object)
			if err != nil {
				return // the server's error: the version is too old
			}
			version = m.GetResourceVersion()
			see(e)
		}
		w.Stop()
	}
}

var errWatchEnded = errors.New("the watch has ended")

func (c *cluster) claim(ctx context.Context, name, class, size string) error {
	_, err := c.kube.CoreV1().PersistentVolumeClaims(c.ns).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			StorageClassName: &class,
			AccessModes:      []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce},
			Resources:        corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse(size)}},
		},
	}, metav1.CreateOptions{})
	return err
}

// oneByOne makes claims, each after the one before is bound, and returns how
// long each took, from before it was written until it was seen to be bound.
func (c *cluster) oneByOne(class, size string, n int) []float64 {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	bound := c.bounds(ctx)
	c.turn++
	var out []float64
	for i := range n {
		name := fmt.Sprintf("%s-%d-%d", class, c.turn, i)
		began := time.Now()
		c.must(c.claim(ctx, name, class, size), "make a claim")
		for {
			m, ok := <-bound
			if !ok {
				c.Fatalf("claim %s of class %s is not bound: %v", name, class, errors.Join(errWatchEnded, ctx.Err()))
			}
			if m.claim == name {
				out = append(out, m.at.Sub(began).Seconds())
				break
			}
		}
	}
	return out
}

// burst makes claims as fast as they can be written, and returns how long it
// took until all were bound.
func (c *cluster) burst(class, size string, n int) time.Duration {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	bound := c.bounds(ctx)
	c.turn++
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		failed <- atOnce(n, func(i int) error { return c.claim(ctx, fmt.Sprintf("%s-%d-%d", class, c.turn, i), class, size) })
	}()
	for range n {
		if _, ok := <-bound; !ok {
			c.Fatalf("not all claims of class %s are bound: %v", class, errors.Join(errWatchEnded, ctx.Err()))
		}
	}
	took := time.Since(began)
	c.must(<-failed, "make claims")
	return took
}

// clear deletes all claims of the namespace, and returns how long it took until
// the last of their volumes was gone.
func (c *cluster) clear() time.Duration {
	c.Helper()
	ctx, cancel := context.WithTimeout(c.ctx, limit)
	defer cancel()
	claims, err := c.kube.CoreV1().PersistentVolumeClaims(c.ns).List(ctx, metav1.ListOptions{})
	c.must(err, "list claims")
	volumes := map[string]bool{}
	for _, claim := range claims.Items {
		volumes[claim.Spec.VolumeName] = true
	}
	gone := make(chan string, 16)
	go func() {
		defer close(gone)
		follow(ctx, claims.ResourceVersion, c.kube.CoreV1().PersistentVolumes().Watch, func(e watch.Event) {
			if pv, ok := e.Object.(*corev1.PersistentVolume); ok && e.Type == watch.Deleted {
				select {
				case gone <- pv.Name:
				case <-ctx.Done():
				}
			}
		})
	}()
	began := time.Now()
	failed := make(chan error, 1)
	go func() {
		failed <- atOnce(len(claims.Items), func(i int) error {
			return c.kube.CoreV1().PersistentVolumeClaims(c.ns).Delete(ctx, claims.Items[i].Name, metav1.DeleteOptions{})
		})
	}()
	for len(volumes) > 0 {
		name, ok := <-gone
		if !ok {
			c.Fatalf("%d volumes are not gone: %v", len(volumes), errors.Join(errWatchEnded, ctx.Err()))
		}
		delete(volumes, name)
	}
	took := time.Since(began)
	c.must(<-failed, "delete claims")
	c.await("end of the claims", func(ctx context.Context) error {
		left, err := c.kube.CoreV1().PersistentVolumeClaims(c.ns).List(ctx, metav1.ListOptions{})
		if err == nil && len(left.Items) > 0 {
			err = fmt.Errorf("there are %d claims", len(left.Items))
		}
		return err
	})
	return took
}

// atOnce does something for 0 to n-1, several at a time, until one fails.
func atOnce(n int, do func(i int) error) error {
	next := make(chan int)
	ended := make(chan error, senders)
	stop := make(chan struct{})
	var once sync.Once
	for range senders {
		go func() {
			var err error
			for i := range next {
				if err = do(i); err != nil {
					once.Do(func() { close(stop) })
					break
				}
			}
			ended <- err
		}()
	}
feed:
	for i := range n {
		select {
		case next <- i:
		case <-stop:
			break feed
		}
	}
	close(next)
	var err error
	for range senders {
		err = errors.Join(err, <-ended)
	}
	return err
}
