package driver

import (
	"context"
	"log/slog"

	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registeredVersion is the CSI version that kubelet is told (kubelet's
// csi_plugin.go accepts any 1.x; node-driver-registrar sends the same).
const registeredVersion = "1.0.0"

// registration answers kubelet's plugin watcher, which finds the socket in
// its plugins_registry, also after a restart of kubelet.
type registration struct {
	registerapi.UnimplementedRegistrationServer
	name     string
	endpoint string // path of the CSI socket, the same on the host
	log      *slog.Logger
}

func (r *registration) GetInfo(context.Context, *registerapi.InfoRequest) (*registerapi.PluginInfo, error) {
	return &registerapi.PluginInfo{
		Type:              registerapi.CSIPlugin,
		Name:              r.name,
		Endpoint:          r.endpoint,
		SupportedVersions: []string{registeredVersion},
	}, nil
}

// NotifyRegistrationStatus: kubelet tries again by itself after a failure, so
// there is nothing to do but say so.
func (r *registration) NotifyRegistrationStatus(_ context.Context, s *registerapi.RegistrationStatus) (*registerapi.RegistrationStatusResponse, error) {
	if s.GetPluginRegistered() {
		r.log.Info("registered with kubelet")
	} else {
		r.log.Error("kubelet refused the registration", logError, s.GetError())
	}
	return &registerapi.RegistrationStatusResponse{}, nil
}
