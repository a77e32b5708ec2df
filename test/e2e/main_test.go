//go:build e2e

package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/plinth-csi/plinth/test/sanity"
)

// atOnce is how many tests run at the same time, unless -parallel says
// otherwise. They wait for the cluster most of the time.
const atOnce = 10

func TestMain(m *testing.M) {
	sanity.Host()
	flag.Parse()
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		if err := flag.Set("test.parallel", fmt.Sprint(atOnce)); err != nil {
			panic(err)
		}
	}
	code := m.Run()
	if err := namespacesGone(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// namespacesGone waits until no namespace of any test is left.
func namespacesGone() error {
	c, err := theCluster()
	if err != nil {
		return err
	}
	var missing error
	err = wait.PollUntilContextTimeout(context.Background(), pollInterval, limit, true, func(ctx context.Context) (bool, error) {
		l, err := c.kube.CoreV1().Namespaces().List(ctx, metav1.ListOptions{LabelSelector: testLabel})
		if err != nil || len(l.Items) == 0 {
			missing = err
			return err == nil, nil
		}
		missing = fmt.Errorf("namespace %s of %s is still there: %+v", l.Items[0].Name, l.Items[0].Annotations["plinth.dev/test"], l.Items[0].Status)
		return false, nil
	})
	if err != nil {
		return missing
	}
	return nil
}
