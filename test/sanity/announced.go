package sanity

import (
	"context"
	"slices"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// Capabilities are what a socket announces, sorted, by the name that
// docs/csi.md has for the service: Plugin, Controller, GroupController, Node. A
// service that it does not serve is not there.
type Capabilities map[string][]string

// answerTimeout bounds how long a socket that has served a whole suite may
// take to say what it announces.
const answerTimeout = 30 * time.Second

// announced asks a socket what it announces.
func announced(address string) (Capabilities, error) {
	ctx, cancel := context.WithTimeout(context.Background(), answerTimeout)
	defer cancel()
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing was written
	out := Capabilities{}
	for service, ask := range map[string]func(context.Context, *grpc.ClientConn) ([]string, error){
		"Plugin": pluginCapabilities, "Controller": controllerCapabilities, "GroupController": groupCapabilities, "Node": nodeCapabilities,
	} {
		names, err := ask(ctx, conn)
		if status.Code(err) == codes.Unimplemented {
			continue
		}
		if err != nil {
			return nil, err
		}
		slices.Sort(names)
		out[service] = names
	}
	return out, nil
}

func pluginCapabilities(ctx context.Context, conn *grpc.ClientConn) (names []string, err error) {
	r, err := csi.NewIdentityClient(conn).GetPluginCapabilities(ctx, &csi.GetPluginCapabilitiesRequest{})
	for _, c := range r.GetCapabilities() {
		if c.GetService() != nil {
			names = append(names, c.GetService().GetType().String())
		} else {
			names = append(names, "VolumeExpansion."+c.GetVolumeExpansion().GetType().String())
		}
	}
	return names, err
}

func controllerCapabilities(ctx context.Context, conn *grpc.ClientConn) (names []string, err error) {
	r, err := csi.NewControllerClient(conn).ControllerGetCapabilities(ctx, &csi.ControllerGetCapabilitiesRequest{})
	for _, c := range r.GetCapabilities() {
		names = append(names, c.GetRpc().GetType().String())
	}
	return names, err
}

func groupCapabilities(ctx context.Context, conn *grpc.ClientConn) (names []string, err error) {
	r, err := csi.NewGroupControllerClient(conn).GroupControllerGetCapabilities(ctx, &csi.GroupControllerGetCapabilitiesRequest{})
	for _, c := range r.GetCapabilities() {
		names = append(names, c.GetRpc().GetType().String())
	}
	return names, err
}

func nodeCapabilities(ctx context.Context, conn *grpc.ClientConn) (names []string, err error) {
	r, err := csi.NewNodeClient(conn).NodeGetCapabilities(ctx, &csi.NodeGetCapabilitiesRequest{})
	for _, c := range r.GetCapabilities() {
		names = append(names, c.GetRpc().GetType().String())
	}
	return names, err
}
