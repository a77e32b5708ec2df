package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
)

// controllerProgram is beside this one.
const controllerProgram = "plinth-controller"

// newControllerCommand becomes plinth-controller, which says why it is a
// program of its own. Its flags are its own, too.
func newControllerCommand() *cobra.Command {
	return &cobra.Command{
		Use:                "controller",
		Short:              "Provision volumes for claims, publish capacity, and serve the CSI controller service",
		DisableFlagParsing: true,
		RunE: func(_ *cobra.Command, args []string) error {
			self, err := os.Executable()
			if err != nil {
				return fmt.Errorf("finding %s: %w", controllerProgram, err)
			}
			program := filepath.Join(filepath.Dir(self), controllerProgram)
			return fmt.Errorf("%s: %w", program, syscall.Exec(program, append([]string{controllerProgram}, args...), os.Environ()))
		},
	}
}
