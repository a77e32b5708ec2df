//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/remotecommand"
)

// sh runs a shell command in a pod and returns its standard output. The error
// carries all that it printed.
func (e *env) sh(pod, script string) (string, error) {
	return e.run(pod, "sh", "-c", script)
}

// run is sh for a program and its arguments: not every image has a shell.
func (e *env) run(pod string, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(e.ctx, limit)
	defer cancel()
	var out bytes.Buffer
	err := e.stream(ctx, pod, &out, command...)
	return strings.TrimSpace(out.String()), err
}

// stream runs a program in a pod and passes on its standard output as it comes.
// The error carries what it wrote to standard error.
func (e *env) stream(ctx context.Context, pod string, out io.Writer, command ...string) error {
	url := e.kube.CoreV1().RESTClient().Post().Resource("pods").Namespace(e.ns).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	x, err := remotecommand.NewWebSocketExecutor(e.config, "GET", url.String())
	if err != nil {
		return err
	}
	var errs bytes.Buffer
	if err := x.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: out, Stderr: &errs}); err != nil {
		return fmt.Errorf("in pod %s: %s: %w\n%s", pod, strings.Join(command, " "), err, &errs)
	}
	return nil
}

// mustSh is sh for a command that has to succeed.
func (e *env) mustSh(pod, script string) string {
	e.Helper()
	out, err := e.sh(pod, script)
	e.must(err, "run a command")
	return out
}

// onNode runs a command on a node, in its mount and network namespaces.
func (e *env) onNode(node string, command ...string) (string, error) {
	e.Helper()
	if e.binary == "" {
		e.Skip("PLINTH_CLUSTER is not set: no way to look into a node")
	}
	var errs bytes.Buffer
	cmd := exec.Command(e.binary, append([]string{"exec", node, "--"}, command...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("on node %s: %s: %w\n%s%s", node, strings.Join(command, " "), err, out, &errs)
	}
	return strings.TrimSpace(string(out)), nil
}

// mustOnNode is onNode for a command that has to succeed.
func (e *env) mustOnNode(node string, command ...string) string {
	e.Helper()
	out, err := e.onNode(node, command...)
	e.must(err, "run a command")
	return out
}
