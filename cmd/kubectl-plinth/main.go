// Kubectl-plinth is `kubectl plinth`: what Plinth keeps, and whose it is, for
// administrators.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := newCommand(os.Stdout, os.Stderr).ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "kubectl plinth:", err)
		os.Exit(1)
	}
}

// display is how users call the program.
func display() map[string]string {
	return map[string]string{cobra.CommandDisplayNameAnnotation: "kubectl plinth"}
}
