// Package chart tests what the chart renders and refuses. `make chart` runs
// it, with PLINTH_HELM naming the helm program.
package chart
