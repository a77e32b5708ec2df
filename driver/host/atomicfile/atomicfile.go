// Package atomicfile publishes files so that a reader sees the old content or
// the new, whole, whatever is cut: temporary file, fsync, rename, fsync of the
// directory (rename(2), fsync(2): a name is durable once its directory is).
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// The shape of a temporary file's name: prefix, final name, random text, suffix.
const (
	tempPrefix = ".new-"
	tempSuffix = ".tmp"
)

// IsTemp reports whether a file's name (its last element) is one that Write
// gives to a file it has not published yet. Such a file is rubbish from a cut.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}

// Write publishes data under name, below root, with the given permissions
// whatever the umask. The temporary file is made in tmpDir, which is on the
// same filesystem; "" takes the directory of name. On an error the old file is
// as it was, unless only the last fsync failed.
func Write(root *os.Root, tmpDir, name string, data []byte, perm fs.FileMode) error {
	if err := WriteOrdered(root, tmpDir, name, data, perm); err != nil {
		return err
	}
	return SyncDir(root, path.Dir(name))
}

// WriteOrdered is Write without the last fsync. A cut may leave the old file
// until something later is durable: a filesystem of this machine has one
// journal, in which names are durable in the order in which they were changed
// (of ext4, XFS and btrfs alike). Whoever needs only that the file is there
// before what is done next needs no more.
func WriteOrdered(root *os.Root, tmpDir, name string, data []byte, perm fs.FileMode) error {
	if tmpDir == "" {
		tmpDir = path.Dir(name)
	}
	temp := path.Join(tmpDir, tempPrefix+path.Base(name)+"-"+rand.Text()[:8]+tempSuffix)
	if err := writeSynced(root, temp, data, perm); err != nil {
		return errors.Join(fmt.Errorf("publish %s: %w", name, err), removeTemp(root, temp))
	}
	if err := root.Rename(temp, name); err != nil {
		return errors.Join(fmt.Errorf("publish %s: %w", name, err), removeTemp(root, temp))
	}
	return nil
}

// Remove deletes a file durably; one that is not there is no error.
func Remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return SyncDir(root, path.Dir(name))
}

// SyncDir makes the names in a directory durable.
func SyncDir(root *os.Root, dir string) error {
	d, err := root.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}

func writeSynced(root *os.Root, name string, data []byte, perm fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Chmod(perm), f.Sync(), f.Close())
}

func removeTemp(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
