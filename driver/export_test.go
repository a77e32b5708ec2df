package driver

import (
	"context"

	"google.golang.org/grpc"
)

// Register registers the services of the server, for tests over a real engine.
func (s *Server) Register(on grpc.ServiceRegistrar) { s.register(on) }

// Intercept is what every call goes through.
func (s *Server) Intercept(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	return s.intercept(ctx, req, info, handler)
}
