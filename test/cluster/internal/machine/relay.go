package machine

import (
	"io"
	"net"
	"sync"
)

// join copies between outside and a new connection to address until both sides
// have said all they had to say.
func join(outside net.Conn, address string) {
	defer outside.Close() //nolint:errcheck // the peer sees the end of the stream
	inside, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer inside.Close() //nolint:errcheck // the peer sees the end of the stream
	var both sync.WaitGroup
	both.Go(func() { pour(inside, outside) })
	both.Go(func() { pour(outside, inside) })
	both.Wait()
}

// pour copies one direction and passes its end on.
func pour(to, from net.Conn) {
	if _, err := io.Copy(to, from); err != nil {
		to.Close() //nolint:errcheck // broken already
		return
	}
	if tcp, ok := to.(*net.TCPConn); ok {
		tcp.CloseWrite() //nolint:errcheck // the other side may have gone
	}
}
