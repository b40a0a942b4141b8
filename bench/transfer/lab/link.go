package lab

import (
	"net"
	"sync/atomic"
	"time"
)

// Link is a relay in this process that plays a network between a client and the
// registry: each direction takes half the round trip, and each connection has a
// rate of its own, as a TCP window over a long way gives it. It stands in for tc
// netem where the kernel has none; it has no slow start and no losses.
type Link struct {
	Address string

	listener net.Listener
	target   string
	delay    time.Duration // of one direction
	rate     float64       // bytes per second and connection; 0 is any
	sent     atomic.Int64
}

// NewLink starts a relay to the target.
func NewLink(target string, roundTrip time.Duration, rate float64) (*Link, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &Link{Address: listener.Addr().String(), listener: listener, target: target, delay: roundTrip / 2, rate: rate}
	go l.serve()
	return l, nil
}

// Close ends the relay; connections that there are end by themselves.
func (l *Link) Close() { l.listener.Close() }

// Sent returns how many bytes went to clients since the last call.
func (l *Link) Sent() int64 { return l.sent.Swap(0) }

func (l *Link) serve() {
	for {
		client, err := l.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			time.Sleep(2 * l.delay) // the handshake
			server, err := net.Dial("tcp", l.target)
			if err != nil {
				client.Close()
				return
			}
			go l.carry(server, client, nil)
			l.carry(client, server, &l.sent)
			client.Close()
			server.Close()
		}()
	}
}

// parcel is what is on its way.
type parcel struct {
	data []byte
	due  time.Time
}

// window is how many parcels are on their way at most.
const window, parcelSize = 256, 64 << 10

// carry moves everything in one direction, each byte after the delay and no faster
// than the rate.
func (l *Link) carry(to, from net.Conn, count *atomic.Int64) {
	way := make(chan parcel, window)
	go func() {
		defer close(way)
		free := time.Now()
		for {
			data := make([]byte, parcelSize)
			n, err := from.Read(data)
			if n > 0 {
				now := time.Now()
				if free.Before(now) {
					free = now
				}
				if l.rate > 0 {
					free = free.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
					time.Sleep(time.Until(free))
				}
				way <- parcel{data[:n], free.Add(l.delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range way {
		time.Sleep(time.Until(p.due))
		n, err := to.Write(p.data)
		if count != nil {
			count.Add(int64(n))
		}
		if err != nil {
			from.Close()
			for range way { // until the reader has noticed
			}
			break
		}
	}
	if c, ok := to.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
}
