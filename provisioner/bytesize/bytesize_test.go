package bytesize

import "testing"

func TestFormat(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1023: "1023 bytes", 1024: "1Ki", 1 << 20: "1Mi", 3 << 29: "1.5Gi", 1<<30 - 1: "1023.9Mi",
		5 << 40: "5Ti", 1<<63 - 1: "8388607.9Ti",
	} {
		if got := Format(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
