// Package images makes the container images that a cluster needs to boot, as
// archives in the OCI image layout, without a registry.
package images

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// Entry is one file, folder (no content, mode ends a slash in its name) or link of an image.
type Entry struct {
	Path    string
	Content []byte
	Link    string // target of a symbolic link
	Mode    int64
}

// Image is an image of one layer.
type Image struct {
	Names      []string // full references it is known by
	Entries    []Entry
	Env        []string
	Entrypoint []string
	Cmd        []string
}

const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar"

	// nameKey is how containerd finds the full name of an image in an archive.
	nameKey = "io.containerd.image.name"
)

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Write publishes the images as one archive at path.
func Write(path string, images ...Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".image-*")
	if err != nil {
		return err
	}
	defer os.Remove(tmp.Name()) //nolint:errcheck // gone already when all went well
	err = errors.Join(write(tmp, images), tmp.Close())
	if err != nil {
		return fmt.Errorf("write the images to %s: %w", path, err)
	}
	return os.Rename(tmp.Name(), path)
}

func write(w io.Writer, images []Image) error {
	layout := &layout{tar: tar.NewWriter(w), seen: map[string]bool{}}
	if err := layout.file("oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	var manifests []descriptor
	for _, image := range images {
		d, err := layout.image(image)
		if err != nil {
			return fmt.Errorf("image %v: %w", image.Names, err)
		}
		for _, name := range image.Names {
			d.Annotations = map[string]string{nameKey: name}
			manifests = append(manifests, d)
		}
	}
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "mediaType": typeIndex, "manifests": manifests})
	if err != nil {
		return err
	}
	return errors.Join(layout.file("index.json", index), layout.tar.Close())
}

type layout struct {
	tar  *tar.Writer
	seen map[string]bool
}

func (l *layout) file(name string, content []byte) error {
	if l.seen[name] {
		return nil
	}
	l.seen[name] = true
	if err := l.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	_, err := l.tar.Write(content)
	return err
}

func (l *layout) blob(mediaType string, content []byte) (descriptor, error) {
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	d := descriptor{MediaType: mediaType, Digest: "sha256:" + sum, Size: len(content)}
	return d, l.file("blobs/sha256/"+sum, content)
}

func (l *layout) image(image Image) (descriptor, error) {
	content, err := layer(image.Entries)
	if err != nil {
		return descriptor{}, err
	}
	layerBlob, err := l.blob(typeLayer, content)
	if err != nil {
		return descriptor{}, err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH,
		"os":           "linux",
		"config":       map[string]any{"Env": image.Env, "Entrypoint": image.Entrypoint, "Cmd": image.Cmd},
		"rootfs":       map[string]any{"type": "layers", "diff_ids": []string{layerBlob.Digest}},
	})
	if err != nil {
		return descriptor{}, err
	}
	configBlob, err := l.blob(typeConfig, config)
	if err != nil {
		return descriptor{}, err
	}
	manifest, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": typeManifest, "config": configBlob, "layers": []descriptor{layerBlob},
	})
	if err != nil {
		return descriptor{}, err
	}
	return l.blob(typeManifest, manifest)
}

func layer(entries []Entry) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, e := range entries {
		h := &tar.Header{Name: e.Path, Mode: e.Mode, Size: int64(len(e.Content)), Typeflag: tar.TypeReg}
		switch {
		case e.Link != "":
			h.Typeflag, h.Linkname = tar.TypeSymlink, e.Link
		case e.Path[len(e.Path)-1] == '/':
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := w.Write(e.Content); err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), w.Close()
}
