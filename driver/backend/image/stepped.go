package image

import (
	"context"

	"github.com/plinth-csi/plinth/driver/backend"
)

// stepped asks step before each operation on the machine and answers with its
// error instead, if it has one. Tests cut the backend short with it.
type stepped struct {
	host
	step func(operation string) error
}

// Stat implements host.
func (s *stepped) Stat(name string) (file, error) {
	if err := s.step("stat " + name); err != nil {
		return file{}, err
	}
	return s.host.Stat(name)
}

// Make implements host.
func (s *stepped) Make(ctx context.Context, name string, w wish) error {
	if err := s.step("make " + name); err != nil {
		return err
	}
	return s.host.Make(ctx, name, w)
}

// Rename implements host.
func (s *stepped) Rename(from, to string) error {
	if err := s.step("rename " + from + " to " + to); err != nil {
		return err
	}
	return s.host.Rename(from, to)
}

// Extend implements host.
func (s *stepped) Extend(name string, size int64, thick bool) error {
	if err := s.step("extend " + name); err != nil {
		return err
	}
	return s.host.Extend(name, size, thick)
}

// Free implements host.
func (s *stepped) Free(name string) error {
	if err := s.step("free " + name); err != nil {
		return err
	}
	return s.host.Free(name)
}

// Devices implements host.
func (s *stepped) Devices(names []string) (map[string]string, error) {
	if err := s.step("find the devices of images"); err != nil {
		return nil, err
	}
	return s.host.Devices(names)
}

// Names implements host.
func (s *stepped) Names(dir string) ([]string, error) {
	if err := s.step("list " + dir); err != nil {
		return nil, err
	}
	return s.host.Names(dir)
}

// Device implements host.
func (s *stepped) Device(name string, attach bool) (string, error) {
	if err := s.step("device of " + name); err != nil {
		return "", err
	}
	return s.host.Device(name, attach)
}

// Detach implements host.
func (s *stepped) Detach(name string) error {
	if err := s.step("detach " + name); err != nil {
		return err
	}
	return s.host.Detach(name)
}

// Copy implements copier.
func (s *stepped) Copy(ctx context.Context, from, to string, p backend.Progress) error {
	if err := s.step("copy " + from + " to " + to); err != nil {
		return err
	}
	return s.host.Copy(ctx, from, to, p)
}

// Own implements copier.
func (s *stepped) Own(ctx context.Context, name string, size int64, thick bool, c content) error {
	if err := s.step("own " + name); err != nil {
		return err
	}
	return s.host.Own(ctx, name, size, thick, c)
}

// Trim implements host.
func (s *stepped) Trim() error {
	if err := s.step("trim"); err != nil {
		return err
	}
	return s.host.Trim()
}

// Capture implements copier.
func (s *stepped) Capture(from, to string) (capture, error) {
	if err := s.step("capture " + from); err != nil {
		return nil, err
	}
	c, err := s.host.Capture(from, to)
	if err != nil {
		return nil, err
	}
	return &steppedCapture{c, s.step}, nil
}

// steppedCapture is stepped for a capture.
type steppedCapture struct {
	capture
	step func(operation string) error
}

// Freeze implements capture.
func (s *steppedCapture) Freeze() error {
	if err := s.step("freeze"); err != nil {
		return err
	}
	return s.capture.Freeze()
}

// Cut implements capture.
func (s *steppedCapture) Cut() error {
	if err := s.step("cut"); err != nil {
		return err
	}
	return s.capture.Cut()
}

// Seal implements capture.
func (s *steppedCapture) Seal() error {
	if err := s.step("seal"); err != nil {
		return err
	}
	return s.capture.Seal()
}
