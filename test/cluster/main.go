// Command cluster starts and stops a real Kubernetes cluster on one Linux
// machine, from Go modules, without Docker and without a registry.
package main

import (
	"os"

	"github.com/plinth-csi/plinth/test/cluster/internal/cli"
)

func main() { os.Exit(cli.Run(os.Args[1:])) }
