package ocnodetest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

var nextPort atomic.Int32

// UnusedPort returns a port of 127.0.0.1, TCP and UDP, that stays unused until somebody asks for
// this very number: below 32768, where systems look for a port if they are to choose.
func UnusedPort(t testing.TB) int {
	t.Helper()
	nextPort.CompareAndSwap(0, 20_000+rand.Int32N(10_000))
	for range 100 {
		port := int(nextPort.Add(1))
		addr := fmt.Sprint("127.0.0.1:", port)
		tcp, err := net.Listen("tcp", addr)
		if err != nil {
			continue
		}
		_ = tcp.Close()
		udp, err := net.ListenPacket("udp", addr)
		if err != nil {
			continue
		}
		_ = udp.Close()
		return port
	}
	t.Fatal("no unused port")
	return 0
}
