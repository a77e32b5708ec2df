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
	"strings"
	"testing"
)

func TestWrite(t *testing.T) {
	image := Image{
		Names: []string{"example.org/a:1", "example.org/b:2"},
		Cmd:   []string{"sh"},
		Entries: []Entry{
			{Path: "bin/", Mode: 0o755},
			{Path: "bin/tool", Content: []byte("content"), Mode: 0o755},
			{Path: "bin/alias", Link: "tool", Mode: 0o777},
		},
	}
	a, b := filepath.Join(t.TempDir(), "a.tar"), filepath.Join(t.TempDir(), "b.tar")
	for _, path := range []string{a, b} {
		if err := Write(path, image); err != nil {
			t.Fatal(err)
		}
	}
	first, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	if second, err := os.ReadFile(b); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same image gives two archives, or %v", err)
	}
	files := untar(t, first)
	for name, content := range files {
		if sum, ok := strings.CutPrefix(name, "blobs/sha256/"); ok && fmt.Sprintf("%x", sha256.Sum256(content)) != sum {
			t.Errorf("%s holds something else", name)
		}
	}
	var index struct{ Manifests []descriptor }
	if err := json.Unmarshal(files["index.json"], &index); err != nil {
		t.Fatal(err)
	}
	if len(index.Manifests) != len(image.Names) {
		t.Fatalf("index.json has %d images", len(index.Manifests))
	}
	for i, d := range index.Manifests {
		if d.Annotations[nameKey] != image.Names[i] || d.Digest != index.Manifests[0].Digest {
			t.Errorf("image %d is %+v", i, d)
		}
	}
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	if err := json.Unmarshal(blob(files, index.Manifests[0]), &manifest); err != nil {
		t.Fatal(err)
	}
	layer := untar(t, blob(files, manifest.Layers[0]))
	if string(layer["bin/tool"]) != "content" || len(layer) != len(image.Entries) {
		t.Errorf("the layer holds %v", layer)
	}
	if config := string(blob(files, manifest.Config)); !strings.Contains(config, manifest.Layers[0].Digest) {
		t.Errorf("the config does not name its layer: %s", config)
	}
}

func blob(files map[string][]byte, d descriptor) []byte {
	return files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")]
}

func untar(t *testing.T, raw []byte) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	for r := tar.NewReader(bytes.NewReader(raw)); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = content
	}
}
