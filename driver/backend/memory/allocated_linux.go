package memory

import (
	"io/fs"
	"syscall"
)

// allocated is how many bytes of disk a file holds (stat(2): blocks of 512).
func allocated(fi fs.FileInfo) int64 {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return fi.Size()
}
