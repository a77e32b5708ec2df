package device

import (
	"context"

	"github.com/plinth-csi/plinth/driver/host/device"
	"github.com/plinth-csi/plinth/driver/volume"
)

// stepped asks step before each operation on the machine and answers with its
// error instead, if it has one. Tests cut the backend short with it.
type stepped struct {
	host
	step func(operation string) error
}

// Names implements host.
func (s *stepped) Names(dir string) ([]string, error) {
	if err := s.step("list " + dir); err != nil {
		return nil, err
	}
	return s.host.Names(dir)
}

// Read implements host.
func (s *stepped) Read(name string) (claim, error) {
	if err := s.step("read " + name); err != nil {
		return claim{}, err
	}
	return s.host.Read(name)
}

// Write implements host.
func (s *stepped) Write(name string, c claim) error {
	if err := s.step("write " + name); err != nil {
		return err
	}
	return s.host.Write(name, c)
}

// Rename implements host.
func (s *stepped) Rename(from, to string) error {
	if err := s.step("rename " + from + " to " + to); err != nil {
		return err
	}
	return s.host.Rename(from, to)
}

// Drop implements host.
func (s *stepped) Drop(name string) error {
	if err := s.step("drop " + name); err != nil {
		return err
	}
	return s.host.Drop(name)
}

// Disks implements host.
func (s *stepped) Disks() ([]device.Disk, error) {
	if err := s.step("list disks"); err != nil {
		return nil, err
	}
	return s.host.Disks()
}

// Offered implements host.
func (s *stepped) Offered(ctx context.Context, claimed map[string]bool) ([]device.Disk, []string, error) {
	if err := s.step("look for free disks"); err != nil {
		return nil, nil, err
	}
	return s.host.Offered(ctx, claimed)
}

// Take implements host.
func (s *stepped) Take(ctx context.Context, d device.Disk, c claim) error {
	if err := s.step("take " + d.Path); err != nil {
		return err
	}
	return s.host.Take(ctx, d, c)
}

// Format implements host.
func (s *stepped) Format(ctx context.Context, d device.Disk, c claim, v volume.Spec) error {
	if err := s.step("format " + d.Path); err != nil {
		return err
	}
	return s.host.Format(ctx, d, c, v)
}

// Ours implements host.
func (s *stepped) Ours(ctx context.Context, d device.Disk, c claim) (bool, error) {
	if err := s.step("look at " + d.Path); err != nil {
		return false, err
	}
	return s.host.Ours(ctx, d, c)
}

// Wipe implements host.
func (s *stepped) Wipe(ctx context.Context, d device.Disk) error {
	if err := s.step("wipe " + d.Path); err != nil {
		return err
	}
	return s.host.Wipe(ctx, d)
}

// Zero implements host.
func (s *stepped) Zero(ctx context.Context, d device.Disk, from int64, done func(int64) error) error {
	if err := s.step("zero " + d.Path); err != nil {
		return err
	}
	return s.host.Zero(ctx, d, from, done)
}

// Idle implements host.
func (s *stepped) Idle(d device.Disk) error {
	if err := s.step("is it idle: " + d.Path); err != nil {
		return err
	}
	return s.host.Idle(d)
}
