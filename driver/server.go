// Package driver is the CSI face of Plinth: the Identity, Controller and Node
// services of CSI 1.13 on a unix socket, and the registration with kubelet.
// It validates a request, asks one interface to do the work, and translates
// the error; volumes and mounts are the business of the packages below.
package driver

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	registerapi "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/plinth-csi/plinth/driver/volume"
)

// The keys of what this package logs.
const (
	logMethod   = "method"
	logCode     = "code"
	logDuration = "duration"
	logError    = "error"
	logSocket   = "socket"
	logPanic    = "panic"
)

// stopGrace is how long calls under way may take once the server is to stop.
// Cut calls are resumed by their next try.
const stopGrace = 20 * time.Second

// namePattern is how a driver may be called (CSI 1.13, GetPluginInfo: domain
// name notation, at most 63 characters).
var namePattern = regexp.MustCompile(`^[a-zA-Z0-9]([-.a-zA-Z0-9]{0,61}[a-zA-Z0-9])?$`)

// Config is what a Server needs.
type Config struct {
	Name     string // of the driver, such as csi.plinth.dev
	Version  string
	Node     string // the name of this node; needed with Mounter
	Endpoint string // unix:///absolute/path of the socket to serve
	// RegistrationDir is kubelet's plugins_registry; "" does not register.
	RegistrationDir string
	Volumes         Volumes // nil: no Controller service
	Mounter         Mounter // nil: no Node service
	// ControllerElsewhere, GroupsElsewhere: that service is another instance's.
	// All instances announce what the plugin serves as a whole (CSI 1.13,
	// GetPluginCapabilities).
	ControllerElsewhere, GroupsElsewhere bool
	// What is not set is not announced; the first three need Volumes.
	Snapshots Snapshots // snapshots, and volumes with the content of others
	Groups    Groups    // the GroupController service; needs Snapshots
	Modifier  Modifier
	Health    Health // of volumes to the controller and the node, of pools to the node
	Log       *slog.Logger
}

// Server serves CSI. It is made by New and runs once.
type Server struct {
	cfg    Config
	socket string
}

// New validates the configuration.
func New(cfg Config) (*Server, error) {
	socket, isUnix := strings.CutPrefix(cfg.Endpoint, "unix://")
	switch {
	case !namePattern.MatchString(cfg.Name):
		return nil, fmt.Errorf("%w: driver name %q is not a domain name of at most 63 characters", volume.ErrInvalid, cfg.Name)
	case cfg.Version == "":
		return nil, fmt.Errorf("%w: the driver has no version", volume.ErrInvalid)
	case !isUnix || !filepath.IsAbs(socket) || filepath.Clean(socket) != socket:
		return nil, fmt.Errorf("%w: endpoint %q is not unix:// and an absolute, clean path", volume.ErrInvalid, cfg.Endpoint)
	case cfg.Volumes == nil && cfg.Mounter == nil:
		return nil, fmt.Errorf("%w: neither volumes nor a mounter to serve", volume.ErrInvalid)
	case cfg.Volumes == nil && (cfg.Snapshots != nil || cfg.Groups != nil || cfg.Modifier != nil):
		return nil, fmt.Errorf("%w: snapshots, groups and modifications need volumes", volume.ErrInvalid)
	case cfg.Groups != nil && cfg.Snapshots == nil:
		return nil, fmt.Errorf("%w: groups need snapshots", volume.ErrInvalid)
	case cfg.Mounter != nil && cfg.Node == "":
		return nil, fmt.Errorf("%w: the node has no name", volume.ErrInvalid)
	case cfg.RegistrationDir != "" && cfg.Mounter == nil:
		return nil, fmt.Errorf("%w: only a node registers with kubelet", volume.ErrInvalid)
	case cfg.Log == nil:
		return nil, fmt.Errorf("%w: no log", volume.ErrInvalid)
	}
	return &Server{cfg: cfg, socket: socket}, nil
}

// Run serves until the context ends, then lets calls under way finish. It
// returns nil after an orderly end.
func (s *Server) Run(ctx context.Context) error {
	calls := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
	s.register(calls)
	all := []served{{calls, s.socket}}
	if s.cfg.RegistrationDir != "" {
		reg := grpc.NewServer(grpc.UnaryInterceptor(s.intercept))
		registerapi.RegisterRegistrationServer(reg, &registration{name: s.cfg.Name, endpoint: s.socket, log: s.cfg.Log})
		// The CSI socket listens before kubelet learns of it.
		all = append(all, served{reg, filepath.Join(s.cfg.RegistrationDir, s.cfg.Name+"-reg.sock")})
	}
	return serve(ctx, all, s.cfg.Log)
}

// register registers the services of CSI that the configuration has.
func (s *Server) register(on grpc.ServiceRegistrar) {
	c := s.cfg
	csi.RegisterIdentityServer(on, &identityServer{
		name: c.Name, version: c.Version, controller: c.Volumes != nil || c.ControllerElsewhere, groups: c.Groups != nil || c.GroupsElsewhere,
	})
	if c.Volumes != nil {
		csi.RegisterControllerServer(on, &controllerServer{
			driver: c.Name, volumes: c.Volumes, snapshots: c.Snapshots, modifier: c.Modifier, health: c.Health,
		})
	}
	if c.Groups != nil {
		csi.RegisterGroupControllerServer(on, &groupServer{volumes: c.Volumes, snapshots: c.Snapshots, groups: c.Groups})
	}
	if c.Mounter != nil {
		csi.RegisterNodeServer(on, &nodeServer{driver: c.Name, node: c.Node, mounter: c.Mounter, health: c.Health})
	}
}

type served struct {
	server *grpc.Server
	socket string
}

// serve runs servers, each on its socket, until the context ends or one fails.
func serve(ctx context.Context, all []served, log *slog.Logger) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for _, one := range all {
		listener, remove, err := listen(ctx, one.socket)
		if err != nil {
			cancel(err)
			break
		}
		log.Info("listening", logSocket, one.socket)
		wg.Go(func() {
			if err := one.server.Serve(listener); err != nil {
				cancel(fmt.Errorf("serve %s: %w", one.socket, err))
			}
		})
		wg.Go(func() {
			<-ctx.Done()
			stop(one.server)
			remove()
		})
	}
	<-ctx.Done()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func stop(server *grpc.Server) {
	timer := time.AfterFunc(stopGrace, server.Stop)
	defer timer.Stop()
	server.GracefulStop()
}

// listen opens a socket in place of a stale one. The function it returns
// removes the socket unless somebody has put another there since.
func listen(ctx context.Context, socket string) (net.Listener, func(), error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o750); err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	if err := removeStale(ctx, socket); err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	if err != nil {
		return nil, nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	if u, ok := listener.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	ours, err := os.Lstat(socket)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("listen on %s: %w", socket, err), listener.Close())
	}
	return listener, func() {
		if now, err := os.Lstat(socket); err == nil && os.SameFile(ours, now) {
			_ = os.Remove(socket) // a stale socket is removed at the next start
		}
	}, nil
}

// removeStale removes a socket on which nobody listens; anything else that is
// there stays and is an error.
func removeStale(ctx context.Context, socket string) error {
	fi, err := os.Lstat(socket)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if fi.Mode().Type() != os.ModeSocket {
		return errors.New("there is a file that is not a socket; remove it or choose another path")
	}
	conn, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket)
	if err == nil {
		return errors.Join(errors.New("another process serves it"), conn.Close())
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return err
	}
	return os.Remove(socket)
}

// intercept makes a handler's error a status, survives its panic, and logs
// the call: its method, code and duration, and nothing of what was in it.
func (s *Server) intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (resp any, err error) {
	start := time.Now()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("panic", logMethod, info.FullMethod, logPanic, fmt.Sprint(p), "stack", string(debug.Stack()))
			resp, err = nil, status.Error(codes.Internal, "a fault in plinth; its log has the stack")
		}
		s.log(ctx, info.FullMethod, err, time.Since(start))
	}()
	resp, err = handler(ctx, req)
	if err != nil {
		return nil, toStatus(err)
	}
	return resp, nil
}

func (s *Server) log(ctx context.Context, method string, err error, took time.Duration) {
	level, attrs := slog.LevelDebug, []slog.Attr{
		slog.String(logMethod, method), slog.String(logCode, status.Code(err).String()), slog.Duration(logDuration, took),
	}
	if err != nil {
		level, attrs = slog.LevelWarn, append(attrs, slog.String(logError, status.Convert(err).Message()))
		if status.Code(err) == codes.Internal {
			level = slog.LevelError
		}
	} else if changes(method) {
		level = slog.LevelInfo
	}
	s.cfg.Log.LogAttrs(ctx, level, "call", attrs...)
}

// changes tells the calls that alter something from those that only ask.
func changes(method string) bool {
	name := method[strings.LastIndexByte(method, '/')+1:]
	for _, asks := range []string{"Get", "NodeGet", "ControllerGet", "List", "Probe", "Validate"} {
		if strings.HasPrefix(name, asks) {
			return false
		}
	}
	return true
}
