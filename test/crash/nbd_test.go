package crash

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
)

// The words of the NBD protocol that are needed to serve one disk
// (github.com/NetworkBlockDevice/nbd, doc/proto.md).
const (
	nbdMagic       = 0x4e42444d41474943
	nbdOption      = 0x49484156454f5054
	nbdOptionReply = 0x3e889045565a9
	nbdRequest     = 0x25609513
	nbdReply       = 0x67446698

	nbdFixedNewstyle = 1
	nbdOptExport     = 1
	nbdOptAbort      = 2
	nbdOptInfo       = 6
	nbdOptGo         = 7
	nbdAck           = 1
	nbdInfo          = 3
	nbdUnsupported   = 1<<31 + 1

	nbdFlags = 1 | 1<<2 // has flags, takes flushes; neither trim nor FUA

	nbdRead  = 0
	nbdWrite = 1
	nbdDisc  = 2
	nbdFlush = 3
	nbdEIO   = 5
)

// serveNBD serves a disk to one client until that one goes.
func serveNBD(conn net.Conn, d *disk, size int64) error {
	err := negotiate(conn, size)
	if err == nil {
		err = transmit(conn, d)
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) {
		err = nil
	}
	return errors.Join(err, conn.Close())
}

func send(conn net.Conn, values ...any) error {
	var out []byte
	for _, v := range values {
		var err error
		if out, err = binary.Append(out, binary.BigEndian, v); err != nil {
			return err
		}
	}
	_, err := conn.Write(out)
	return err
}

func negotiate(conn net.Conn, size int64) error {
	if err := send(conn, uint64(nbdMagic), uint64(nbdOption), uint16(nbdFixedNewstyle)); err != nil {
		return err
	}
	var clientFlags uint32
	if err := binary.Read(conn, binary.BigEndian, &clientFlags); err != nil {
		return err
	}
	for {
		var option struct {
			Magic          uint64
			Option, Length uint32
		}
		if err := binary.Read(conn, binary.BigEndian, &option); err != nil {
			return err
		}
		if option.Magic != nbdOption || option.Length > 1<<16 {
			return fmt.Errorf("not an option: %+v", option)
		}
		if _, err := io.CopyN(io.Discard, conn, int64(option.Length)); err != nil {
			return err
		}
		reply := func(kind uint32, data ...any) error {
			length := uint32(0)
			for _, d := range data {
				length += uint32(binary.Size(d))
			}
			return send(conn, append([]any{uint64(nbdOptionReply), option.Option, kind, length}, data...)...)
		}
		var err error
		switch option.Option {
		case nbdOptExport:
			return send(conn, uint64(size), uint16(nbdFlags), make([]byte, 124))
		case nbdOptInfo, nbdOptGo:
			err = errors.Join(reply(nbdInfo, uint16(0), uint64(size), uint16(nbdFlags)), reply(nbdAck))
			if err == nil && option.Option == nbdOptGo {
				return nil
			}
		case nbdOptAbort:
			return io.EOF
		default:
			err = reply(nbdUnsupported)
		}
		if err != nil {
			return err
		}
	}
}

func transmit(conn net.Conn, d *disk) error {
	for {
		var q struct {
			Magic       uint32
			Flags, Type uint16
			Cookie      uint64
			At          uint64
			Length      uint32
		}
		if err := binary.Read(conn, binary.BigEndian, &q); err != nil {
			return err
		}
		if q.Magic != nbdRequest || q.Length > 64<<20 {
			return fmt.Errorf("not a request: %+v", q)
		}
		var data, answer []byte
		var err error
		switch q.Type {
		case nbdRead:
			answer = make([]byte, q.Length)
			err = d.read(answer, int64(q.At))
		case nbdWrite:
			data = make([]byte, q.Length)
			if _, err := io.ReadFull(conn, data); err != nil {
				return err
			}
			err = d.write(data, int64(q.At))
		case nbdFlush:
			err = d.flush()
		case nbdDisc:
			return nil
		default:
			err = fmt.Errorf("request %d", q.Type)
		}
		if errors.Is(err, errDead) {
			_, err := io.Copy(io.Discard, conn) // until whoever asks has no power, too
			return err
		}
		code := uint32(0)
		if err != nil {
			code, answer = nbdEIO, nil
		}
		if err := send(conn, uint32(nbdReply), code, q.Cookie, answer); err != nil {
			return err
		}
	}
}
